package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"orderflow/internal/kafka"
	"orderflow/internal/pg"
	"orderflow/internal/testenv"
	"orderflow/outbox-relay/outbox"
	"orderflow/outbox-relay/source"
)

// history is the committed events of an outbox, in the source's order.
type history struct {
	mu     sync.Mutex // protects events
	events []source.Event
}

func (h *history) append(aggregate string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, source.Event{
		Seq: int64(len(h.events) + 1), ID: uuid.New(), AggregateID: []byte(aggregate), CreatedAt: time.Now(),
		Type: "test.Happened", Topic: "test.events.v1", SchemaFP: 1, Payload: make([]byte, 8),
	})
}

// memSource hands out a history; its points are indexes.
type memSource struct {
	history *history
	next    int
	rand    *rand.Rand
}

func (s *memSource) Next(ctx context.Context) (*source.Batch, error) {
	for {
		s.history.mu.Lock()
		n := min(len(s.history.events)-s.next, 1+s.rand.IntN(9))
		events := append([]source.Event(nil), s.history.events[s.next:s.next+n]...)
		s.history.mu.Unlock()
		if n > 0 {
			s.next += n
			for i := range events {
				events[i].Payload = append([]byte(nil), events[i].Payload...)
			}
			return &source.Batch{Events: events, After: source.Point(strconv.Itoa(s.next))}, nil
		}
		sleep(ctx, time.Millisecond)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

func (s *memSource) Close() {}

// gatedDB is a database seen by a process that may be frozen.
type gatedDB struct {
	pg.DB
	gate *gate
}

func (d gatedDB) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	d.gate.pass()
	return d.DB.Exec(ctx, sql, args...)
}

func (d gatedDB) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	d.gate.pass()
	return d.DB.QueryRow(ctx, sql, args...)
}

// trial is one random history: commits, crashes, freezes and failures.
type trial struct {
	t       *testing.T
	rand    *rand.Rand
	db      *pgxpool.Pool
	name    string
	log     *memLog
	history *history
}

const trialEvents = 150

func newTrial(t *testing.T, db *pgxpool.Pool, seed uint64, outside bool) *trial {
	r := rand.New(rand.NewPCG(seed, 99))
	return &trial{
		t: t, rand: r, db: db, name: fmt.Sprintf("trial-%t-%d", outside, seed), history: &history{},
		log: &memLog{rand: rand.New(rand.NewPCG(seed, 1)), faults: 25, outside: outside},
	}
}

// relay makes one relay process.
func (x *trial) relay(g *gate, seed uint64) *Relay {
	t := x.t
	r, err := New(Config{
		Source: x.name, Kafka: kafka.Config{Brokers: []string{"127.0.0.1:1"}},
		TxnInterval: 5 * time.Millisecond, LeaseTTL: time.Second,
	}, Deps{DB: x.db, Metrics: prometheus.NewRegistry(), Log: testenv.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	r.events = gated{log: x.log, gate: g}
	r.lease.db, r.lease.ttl, r.cfg.LeaseTTL = gatedDB{DB: x.db, gate: g}, 150*time.Millisecond, 150*time.Millisecond
	r.schemas.known[1] = 7
	r.open = func(_ context.Context, after source.Point) (source.Source, error) {
		at := 0
		if after != "" {
			at, err = strconv.Atoi(string(after))
		}
		return &memSource{history: x.history, next: at, rand: rand.New(rand.NewPCG(seed, 3))}, err
	}
	return r
}

// run writes the history while relays come, freeze and go, and returns when
// everything is published or the relays ask a question.
func (x *trial) run() error {
	ctx, cancel := context.WithTimeout(x.t.Context(), 60*time.Second)
	defer cancel()
	asked := make(chan error, 8) // a question, at most one a relay
	var relays sync.WaitGroup
	start := func(n int) (*gate, context.CancelFunc) {
		g := &gate{}
		rctx, stop := context.WithCancel(ctx)
		r := x.relay(g, uint64(n))
		relays.Go(func() {
			if err := r.Run(rctx); err != nil {
				asked <- err
			}
		})
		return g, stop
	}
	gateA, stopA := start(0)
	_, stopB := start(1)
	defer relays.Wait()
	defer cancel()
	defer stopB()
	for i := range trialEvents {
		x.history.append(fmt.Sprint("a", x.rand.IntN(6)))
		switch x.rand.IntN(60) {
		case 0:
			gateA.freeze(time.Duration(x.rand.IntN(400)) * time.Millisecond)
		case 1:
			stopA()
			gateA, stopA = start(2 + i)
		case 2:
			sleep(ctx, 20*time.Millisecond)
		}
	}
	defer func() { stopA() }()
	for ctx.Err() == nil {
		select {
		case err := <-asked:
			return err
		default:
		}
		x.log.mu.Lock()
		// A control run publishes more than there is; a while is enough then.
		done := len(x.log.committed) >= trialEvents && x.log.checkpoint != nil && string(x.log.checkpoint.Point) == strconv.Itoa(trialEvents)
		x.log.mu.Unlock()
		if done {
			return nil
		}
		sleep(ctx, 2*time.Millisecond)
	}
	return errors.New("not everything was published in time")
}

// check compares the log with the history.
func (x *trial) check() error {
	x.log.mu.Lock()
	defer x.log.mu.Unlock()
	var errs []error
	want, got := map[string][]uuid.UUID{}, map[string][]uuid.UUID{}
	for _, e := range x.history.events {
		want[string(e.AggregateID)] = append(want[string(e.AggregateID)], e.ID)
	}
	last := map[int32]uint64{}
	for _, r := range x.log.committed {
		var id uuid.UUID
		for _, h := range r.Headers {
			if h.Key == kafka.HeaderID {
				id = uuid.MustParse(string(h.Value))
			}
		}
		got[string(r.Key)] = append(got[string(r.Key)], id)
		if n := position(r).N; n != last[r.Partition]+1 {
			errs = append(errs, fmt.Errorf("partition %d: n %d after %d", r.Partition, n, last[r.Partition]))
		}
		last[r.Partition] = position(r).N
	}
	for a := range want {
		if fmt.Sprint(want[a]) != fmt.Sprint(got[a]) {
			errs = append(errs, fmt.Errorf("aggregate %s: %d events published, %d committed, or in another order", a, len(got[a]), len(want[a])))
		}
	}
	return errors.Join(errs...)
}

func relayDatabase(t *testing.T) *pgxpool.Pool {
	t.Helper()
	url := testenv.Postgres(t, testenv.Template("relay", func(ctx context.Context, url string) error {
		pool, err := pg.Open(ctx, pg.Config{URL: url})
		if err != nil {
			return err
		}
		defer pool.Close()
		if err := outbox.Migrate(ctx, pool); err != nil {
			return err
		}
		return Migrate(ctx, pool)
	}))
	pool, err := pg.Open(t.Context(), pg.Config{URL: url, MaxConns: 16})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func TestNothingLostNothingTwiceOrderKept(t *testing.T) {
	t.Parallel()
	db := relayDatabase(t)
	for seed := range uint64(25) {
		x := newTrial(t, db, seed, false)
		if err := x.run(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := x.check(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// The control: with the checkpoint outside of the transaction the same
// histories must break the promise, or the test above proves nothing.
func TestCheckpointOutsideTheTransactionBreaksThePromise(t *testing.T) {
	t.Parallel()
	db := relayDatabase(t)
	for seed := range uint64(25) {
		x := newTrial(t, db, seed, true)
		if err := errors.Join(x.run(), x.check()); err != nil {
			return
		}
	}
	t.Error("25 histories kept the promise without it")
}

func TestTruncatedLogIsAQuestion(t *testing.T) {
	t.Parallel()
	x := newTrial(t, relayDatabase(t), 1, false)
	if err := x.run(); err != nil {
		t.Fatal(err)
	}
	x.log.truncate(trialEvents / 2)
	err := x.relay(&gate{}, 9).Run(t.Context())
	if !IsQuestion(err) {
		t.Errorf("a relay on a log that lost its end: %v, want a question", err)
	}
}
