// Package relay streams committed outbox events into Kafka. It publishes in
// Kafka transactions, each of which holds the next events in the source's
// order and one checkpoint that says where to go on. Data and position cannot
// disagree, so every start, takeover and failure is the same path: take the
// lease, fence the predecessor in Kafka, read the checkpoint, read the source
// from there.
//
// Any number of relays may run; one leads per source, the others stand by. A
// broker or a registry that is away is waited for, bounded in memory by the
// source's batches.
package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"orderflow/internal/kafka"
	"orderflow/outbox-relay/outbox"
	"orderflow/outbox-relay/source"
)

// Config says what a relay publishes and how.
type Config struct {
	// Source names the outbox. It is the transactional id in Kafka and the
	// name in every record's position, so it never changes. Default
	// "orderflow".
	Source string
	// Poll says how the outbox is read, and where it is.
	Poll source.PollConfig
	// Kafka says where events go.
	Kafka kafka.Config
	// TxnInterval bounds how long a transaction stays open while events keep
	// coming. Default 100 ms; idle transactions end at once.
	TxnInterval time.Duration
	// TxnBytes bounds a transaction in bytes of payload and headers. Default
	// 32 MiB.
	TxnBytes int
	// LeaseTTL is how long a leader that fell silent keeps others waiting.
	// Default 6 s, at least 1 s.
	LeaseTTL time.Duration
}

func (c Config) withDefaults() Config {
	if c.Source == "" {
		c.Source = "orderflow"
	}
	if c.TxnInterval == 0 {
		c.TxnInterval = 100 * time.Millisecond
	}
	if c.TxnBytes == 0 {
		c.TxnBytes = 32 << 20
	}
	if c.LeaseTTL == 0 {
		c.LeaseTTL = 6 * time.Second
	}
	return c
}

// Validate reports every problem of the Config.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	if len(c.Source) > 200 {
		errs = append(errs, fmt.Errorf("source name of %d bytes: at most 200", len(c.Source)))
	}
	if c.TxnInterval < 0 || c.TxnInterval > 10*time.Second {
		errs = append(errs, fmt.Errorf("transaction interval %s: want 0 to 10s", c.TxnInterval))
	}
	if c.LeaseTTL < time.Second {
		errs = append(errs, fmt.Errorf("lease of %s: want 1s or more", c.LeaseTTL))
	}
	return errors.Join(append(errs, c.Kafka.Validate())...)
}

// Registry tells under which id a schema is registered, and registers it if
// it is not. [schemas.Registry] is the real one.
type Registry interface {
	ID(ctx context.Context, subject, text string) (int, error)
}

// Deps are what a relay works with. All are required.
type Deps struct {
	// DB is for the lease and the schemas; the source has its own connection.
	DB       *pgxpool.Pool
	Registry Registry
	Metrics  prometheus.Registerer
	Log      *slog.Logger
}

// Relay publishes the events of one source.
type Relay struct {
	cfg     Config
	db      *pgxpool.Pool
	schemas *schemaIDs
	lease   *lease
	events  eventLog
	open    func(ctx context.Context, after source.Point) (source.Source, error)
	metrics *metrics
	backlog *backlogMetrics
	log     *slog.Logger
}

// New makes a Relay that does nothing yet.
func New(cfg Config, d Deps) (*Relay, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	holder, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make lease holder id: %w", err)
	}
	log := d.Log.With("source", cfg.Source)
	return &Relay{
		cfg:     cfg,
		db:      d.DB,
		schemas: newSchemaIDs(d.DB, d.Registry, log),
		lease:   &lease{db: d.DB, source: cfg.Source, holder: holder, ttl: cfg.LeaseTTL, log: log},
		events:  kafkaLog{cfg: cfg.Kafka, source: cfg.Source, log: log},
		open: func(ctx context.Context, after source.Point) (source.Source, error) {
			return source.NewPoll(ctx, cfg.Poll, after)
		},
		metrics: newMetrics(d.Metrics, cfg.Source),
		backlog: newBacklogMetrics(d.Metrics),
		log:     log,
	}, nil
}

// Run leads whenever it can and stands by otherwise, until ctx ends, which
// returns nil. The one error it returns is a [Question].
func (r *Relay) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup // both end with ctx
	beside.Go(func() { r.upkeep(ctx) })
	beside.Go(func() { r.watch(ctx) })
	defer func() {
		cancel()
		beside.Wait()
	}()

	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 50*time.Millisecond, 5*time.Second
	standingBy := false
	for ctx.Err() == nil {
		ok, err := r.lease.acquire(ctx)
		switch {
		case err == nil && !ok:
			if !standingBy {
				r.log.Info("stand by, another relay leads")
				standingBy = true
			}
			sleep(ctx, r.cfg.LeaseTTL/8)
			continue
		case err == nil:
			standingBy = false
			began := time.Now()
			err = r.lead(ctx)
			if time.Since(began) > time.Minute {
				pause.Reset()
			}
		}
		if IsQuestion(err) {
			r.giveUp()
			return err
		}
		if err != nil && ctx.Err() == nil {
			wait := pause.NextBackOff()
			r.metrics.restarts.Inc()
			r.log.Warn("begin again", "err", err, "wait", wait)
			sleep(ctx, wait)
		}
	}
	r.giveUp()
	return nil
}

// Check compares Kafka's checkpoint with the database without leading: it
// returns the [Question] that Run would, before anything else is started.
func (r *Relay) Check(ctx context.Context) error {
	cl, err := kafka.Open(ctx, r.cfg.Kafka, r.log)
	if err != nil {
		return err
	}
	defer cl.Close()
	k := kafkaLog{cfg: r.cfg.Kafka, source: r.cfg.Source, log: r.log}
	logged, err := k.lastCheckpoint(ctx, cl)
	if err != nil {
		return err
	}
	found, err := r.lease.facts(ctx)
	if err != nil {
		return err
	}
	_, err = check(r.cfg.Source, KindPoll, logged, found)
	return err
}

// giveUp lets a stand-by take over at once.
func (r *Relay) giveUp() {
	if err := r.lease.renew(context.Background(), 0); err != nil && !errors.Is(err, errLeaseLost) {
		r.log.Warn("leave the lease to expire", "err", err)
	}
}

// upkeep makes partitions ahead, also when no writer runs.
func (r *Relay) upkeep(ctx context.Context) {
	for ctx.Err() == nil {
		err := outbox.Upkeep{DB: r.db, Log: r.log}.Run(ctx)
		if err != nil {
			r.log.Warn("retry outbox upkeep", "err", err)
			sleep(ctx, 5*time.Second)
		}
	}
}

// lead publishes until something fails or ctx ends.
func (r *Relay) lead(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	kept := make(chan struct{}) // closed when the goroutine below has ended
	go func() {
		defer close(kept)
		if err := r.lease.keep(ctx); err != nil {
			cancel(err)
		}
	}()
	defer func() {
		cancel(nil)
		<-kept
	}()

	t, err := r.begin(ctx)
	if err != nil {
		return leaderError(ctx, err)
	}
	defer t.close()
	r.metrics.leader.Set(1)
	defer r.metrics.leader.Set(0)
	r.log.Info("lead", "term", t.checkpoint.Term, "transactions", t.checkpoint.Number, "point", t.checkpoint.Point)
	return leaderError(ctx, t.run(ctx))
}

// leaderError prefers the reason why the leader was told to stop.
func leaderError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// begin is the one way into a term: fence, read the checkpoint, compare it
// with the database, open the source behind it.
func (r *Relay) begin(ctx context.Context) (*term, error) {
	s, err := r.events.open(ctx)
	if err != nil {
		return nil, err
	}
	t, err := r.beginOn(ctx, s)
	if err != nil {
		s.close()
		return nil, err
	}
	return t, nil
}

func (r *Relay) beginOn(ctx context.Context, s session) (*term, error) {
	logged, err := s.checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	found, err := r.lease.facts(ctx)
	if err != nil {
		return nil, err
	}
	if !found.ours {
		return nil, errLeaseLost
	}
	c, err := check(r.cfg.Source, KindPoll, logged, found)
	if err != nil {
		return nil, err
	}
	if c.Term, err = r.lease.begin(ctx); err != nil {
		return nil, err
	}
	src, err := r.open(ctx, c.Point)
	if err != nil {
		return nil, err
	}
	return newTerm(r, s, src, c), nil
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
