package consumers

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/internal/kafka"
	"orderflow/internal/testenv"
	"orderflow/schemas"
)

const (
	benchParts = 12
	// benchEvents are in the log, and inserted bare; of benchKept the records
	// and the rows stay in memory, few enough to leave the collector little to do.
	benchEvents = 300_000
	benchKept   = 24_000
)

// rows are what the handler of the benchmark inserts, and what the bare
// inserts beside it do.
type rows struct {
	orders    []string
	customers []string
	totals    []int64
	at        []time.Time
	notes     []string
}

func (r *rows) add(e *schemas.OrderPlaced) {
	r.orders = append(r.orders, e.Meta.OrderID)
	r.customers = append(r.customers, e.CustomerID)
	r.totals = append(r.totals, e.Totals.Grand.Minor)
	r.at = append(r.at, e.Meta.OccurredAt)
	r.notes = append(r.notes, e.Lines[0].SKU)
}

const benchSQL = `INSERT INTO bench (order_id, customer_id, total_minor, placed_at, note)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[], $5::text[])`

func (r *rows) args() []any { return []any{r.orders, r.customers, r.totals, r.at, r.notes} }

func benchHandler() Handler {
	return OnBatch(func(ctx context.Context, tx pgx.Tx, events []Event[*schemas.OrderPlaced]) error {
		var r rows
		for _, e := range events {
			r.add(e.Value)
		}
		_, err := tx.Exec(ctx, benchSQL, r.args()...)
		return err
	})
}

// BenchmarkEffects compares what a group applies, from the log to the commit,
// with the same rows inserted bare from memory: batches of 1000, one statement
// each, on as many connections as there are partitions. The two take turns.
// What lies between is fetching, Avro and the fence.
func BenchmarkEffects(b *testing.B) {
	bed := newBenchBed(b)
	var bare, consumed []float64
	for b.Loop() {
		bare = append(bare, bed.bare())
		consumed = append(consumed, bed.consume())
	}
	b.ReportMetric(median(bare), "bare/s")
	b.ReportMetric(median(consumed), "consumed/s")
	b.ReportMetric(median(consumed)/median(bare), "ratio")
}

// BenchmarkFence leaves Kafka and Avro out: decoded events through headers,
// self-check and transaction of the runtime, against the same rows bare.
func BenchmarkFence(b *testing.B) {
	for _, size := range []int{500, 1000} {
		b.Run(fmt.Sprint("batch", size), func(b *testing.B) {
			bed := newBenchBed(b)
			var bare, fenced []float64
			for b.Loop() {
				bare = append(bare, bed.bareOf(size))
				fenced = append(fenced, bed.fenced(size))
			}
			b.ReportMetric(median(bare), "bare/s")
			b.ReportMetric(median(fenced), "fenced/s")
			b.ReportMetric(median(fenced)/median(bare), "ratio")
		})
	}
}

func median(x []float64) float64 {
	x = slices.Clone(x)
	slices.Sort(x)
	return x[len(x)/2]
}

type decoded struct {
	record *kgo.Record
	value  schemas.Event
}

type benchBed struct {
	*bed
	events [benchParts][]decoded
}

func newBenchBed(b *testing.B) *benchBed {
	b.Helper()
	bb := &benchBed{bed: newBed(b, benchParts, testenv.Durable())}
	// A row as plain as can be, with the one index that every table has.
	bb.exec(`CREATE TABLE bench (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
		order_id text, customer_id text, total_minor bigint, placed_at timestamptz, note text)`)
	const each = 1000
	for from := 0; from < benchEvents; from += each {
		events := make([]schemas.Event, each)
		for i := range events {
			e := placed(uuid.NewString()).(*schemas.OrderPlaced)
			e.CustomerID = fmt.Sprintf("customer-%06d", from+i)
			e.Lines[0].SKU = "a note of about a hundred bytes, to give the row the size of a real one in a service's own table"
			events[i] = e
		}
		var records []*kgo.Record
		for _, e := range events {
			r := bb.encode(e)
			records = append(records, r)
			if from < benchKept {
				bb.events[r.Partition] = append(bb.events[r.Partition], decoded{r, e})
			}
		}
		bb.publish(records, kgo.TryCommit)
	}
	return bb
}

func (b *benchBed) bare() float64 { return b.bareOf(1000) }

// bareOf inserts the rows of decoded events as a program without any promise
// would: it makes the rows of a batch and sends them in one statement.
func (b *benchBed) bareOf(size int) float64 {
	b.exec("TRUNCATE bench")
	return b.perPartition(size, func(_ int, batch []decoded) error {
		var r rows
		for _, d := range batch {
			r.add(d.value.(*schemas.OrderPlaced))
		}
		_, err := b.db.Exec(b.ctx, benchSQL, r.args()...)
		return err
	})
}

// perPartition gives each partition its events in batches, all partitions at
// once, again and again until benchEvents went through, and returns events/s.
func (b *benchBed) perPartition(size int, do func(part int, batch []decoded) error) float64 {
	began := time.Now()
	var wg sync.WaitGroup
	for p, events := range b.events {
		wg.Go(func() {
			for range benchEvents / benchKept {
				for batch := range slices.Chunk(events, size) {
					if err := do(p, batch); err != nil {
						b.t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	return benchEvents / time.Since(began).Seconds()
}

// consume starts a group that nobody has met, and waits until it is through.
func (b *benchBed) consume() float64 {
	b.t.Helper()
	b.exec("TRUNCATE bench, consumer_position, consumer_source")
	began := time.Now()
	m := b.run(withHandlers(benchHandler()), func(_ *Consumer, d *Deps) {
		d.Limits, d.Log = Limits{}, nil
		d.DB = b.db
	})
	b.waitApplied(benchEvents)
	rate := benchEvents / time.Since(began).Seconds()
	m.stop()
	if n := b.count("SELECT count(*) FROM bench"); n != benchEvents {
		b.t.Fatalf("%d rows, want %d", n, benchEvents)
	}
	return rate
}

// fenced takes the same decoded events through the runtime's transaction.
func (b *benchBed) fenced(size int) float64 {
	b.t.Helper()
	b.exec("TRUNCATE bench, consumer_position, consumer_source")
	b.exec(`INSERT INTO consumer_position (grp, topic, part, next_offset, fence, owner)
		SELECT $1, $2, p, 0, 1, 'bench' FROM generate_series(0, $3 - 1) AS p`, testGroup, ordersTopic, benchParts)
	g := benchGroup(b.t, b.db, b.decoder)
	var parts [benchParts]*partition
	for id := range parts {
		parts[id] = newPartition(g, topicPartition{ordersTopic, int32(id)})
		parts[id].adopt(claim{topicPartition: parts[id].topicPartition, fence: 1, seq: sequence{}})
	}
	return b.perPartition(size, func(id int, batch []decoded) error {
		items := make([]item, len(batch))
		for n, d := range batch {
			stop := (*stopError)(nil)
			if items[n], stop = g.open(d.record, sequence{}); stop != nil {
				return stop
			}
			items[n].value = d.value
		}
		// The events come round again: their offsets must not.
		last := *batch[len(batch)-1].record
		last.Offset = parts[id].next + int64(len(batch))
		items[len(items)-1].record = &last
		return parts[id].apply(items)
	})
}

func benchGroup(t testing.TB, db *pgxpool.Pool, d *schemas.Decoder) *group {
	t.Helper()
	c := Consumer{Group: testGroup, Handlers: []Handler{benchHandler()}}
	g := must(newGroup(c, Deps{DB: db, Decoder: d, Kafka: kafka.Config{Brokers: []string{"127.0.0.1:1"}}}))(t)
	t.Cleanup(g.client.Close)
	return g
}
