package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/internal/kafka"
	"orderflow/schemas"
)

// plainRound reads the topic as a consumer without any promise does: the same
// fetch, decode and batch inserts, but no position, no fence, no self-check.
func (l *lab) plainRound(ctx context.Context, events int) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, effectsLimit)
	defer cancel()
	db, err := l.groupPool(ctx, "plain")
	if err != nil {
		return 0, err
	}
	defer db.Close()
	registry, err := schemas.NewRegistry(l.registry.URL())
	if err != nil {
		return 0, err
	}
	cl, err := kgo.NewClient(append(kafka.Config{Brokers: l.brokers}.Options(l.log),
		kgo.ConsumeTopics(ordersTopic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxBytes(4<<20), kgo.FetchMaxPartitionBytes(1<<20))...)
	if err != nil {
		return 0, fmt.Errorf("make plain consumer: %w", err)
	}
	defer cl.Close()
	p := plain{db: db, decoder: schemas.NewDecoder(registry), work: make(chan []*kgo.Record, effectConns)}
	rate, err := p.run(ctx, cl, events)
	return rate, errors.Join(err, l.dropGroup(context.WithoutCancel(ctx), "plain"))
}

const ordersTopic = "orders.events.v1"

type plain struct {
	db      *pgxpool.Pool
	decoder *schemas.Decoder
	work    chan []*kgo.Record // closed by run
}

// run returns events a second between the first records and the last insert.
func (p *plain) run(ctx context.Context, cl *kgo.Client, events int) (float64, error) {
	errs := make([]error, effectConns)
	var workers sync.WaitGroup
	for c := range effectConns {
		workers.Go(func() { errs[c] = p.insert(ctx) })
	}
	var began time.Time
	for read := 0; read < events && ctx.Err() == nil; {
		fetches := cl.PollFetches(ctx)
		if began.IsZero() {
			began = time.Now()
		}
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			for from := 0; from < len(f.Records); from += bareBatch {
				p.work <- f.Records[from:min(from+bareBatch, len(f.Records))]
			}
			read += len(f.Records)
		})
	}
	close(p.work)
	workers.Wait()
	return float64(events) / time.Since(began).Seconds(), errors.Join(append(errs, ctx.Err())...)
}

// insert takes batches until there are no more; after a failure it only
// takes them, so that nobody waits.
func (p *plain) insert(ctx context.Context) (err error) {
	schema := (*schemas.OrderPlaced)(nil).EventSchema()
	for records := range p.work {
		if err != nil {
			continue
		}
		var e effects
		for _, r := range records {
			var decoded schemas.Event
			if decoded, err = p.decoder.Decode(ctx, r.Value, schema); err != nil {
				break
			}
			e.add(decoded.(*schemas.OrderPlaced))
		}
		if err == nil {
			_, err = p.db.Exec(ctx, effectSQL, e.args()...)
		}
	}
	return err
}
