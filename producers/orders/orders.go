// Package orders is the Orders service: it takes orders over HTTP, one by one
// or in bulk, and writes each with the event that tells of it in one Postgres
// transaction. It needs Postgres and nothing else: while the broker or the
// schema registry is away, orders are taken and their events wait in the
// outbox.
//
// A single order goes from its handler over a bounded queue to one writer,
// which writes whatever has arrived meanwhile as one batch. A bulk ingest has
// two writers of its own. Both write through the same code.
package orders

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"orderflow/internal/pg"
	"orderflow/outbox-relay/outbox"
)

// Schema is the Postgres schema of the service's tables.
const Schema = "orders"

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate makes or updates the service's tables. The outbox has a Migrate of
// its own, which must run too.
func Migrate(ctx context.Context, pool *pgxpool.Pool) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("open orders migrations: %w", err)
	}
	return pg.Migrate(ctx, pool, Schema, "orders", files)
}

// Config is what an operator may set. The zero value of every field stands for
// its default.
type Config struct {
	// Writers is how many connections write single orders. Default 1: more
	// split the batches, which pays only where a commit is slow.
	Writers int `help:"Connections that write single orders (default 1)."`
	// BatchOrders bounds the single orders in one transaction. Default 256.
	BatchOrders int `help:"Most single orders in one transaction (default 256)."`
	// QueueOrders bounds the single orders that wait for the writer; one more
	// is answered 503. Default 1024.
	QueueOrders int `help:"Most single orders waiting to be written (default 1024)."`
	// Streams bounds the bulk ingests that run at once, each with two
	// connections. Default 4.
	Streams int `help:"Most bulk ingests at a time (default 4)."`
	// StreamIdle ends a bulk ingest whose client neither sends nor reads.
	// Default two minutes.
	StreamIdle time.Duration `help:"End a bulk ingest after this long without progress (default 2m)."`
	// Patience bounds how long a batch is tried while the database is away
	// before its orders are answered 503. Default ten seconds.
	Patience time.Duration `help:"How long to try the database before answering 503 (default 10s)."`
	// KeyRetention is how long idempotency keys are kept, at least a day. Zero
	// keeps them for ever: then a bulk file may be sent again at any time.
	KeyRetention time.Duration `help:"Keep idempotency keys this long, at least 24h (default for ever)."`
	// SpoolDir holds results that a client has not read yet, beyond what fits
	// in memory. Default is the system's directory for temporary files.
	SpoolDir string `help:"Directory for unread bulk results (default the system's)." type:"path"`
	// StopTimeout bounds how long running requests may go on once the service
	// stops. Default 20 seconds.
	StopTimeout time.Duration `help:"How long running requests may finish when stopping (default 20s)."`
}

const minKeyRetention = 24 * time.Hour

// Validate reports every problem of the Config.
func (c Config) Validate() error {
	var errs []error
	for _, n := range []struct {
		name string
		n    int
	}{
		{"writers", c.Writers},
		{"batch orders", c.BatchOrders},
		{"queue orders", c.QueueOrders},
		{"streams", c.Streams},
		{"stream idle", int(c.StreamIdle)},
		{"patience", int(c.Patience)},
		{"stop timeout", int(c.StopTimeout)},
	} {
		if n.n < 0 {
			errs = append(errs, fmt.Errorf("orders: %s must not be negative", n.name))
		}
	}
	if c.KeyRetention != 0 && c.KeyRetention < minKeyRetention {
		errs = append(errs, fmt.Errorf("orders: key retention %v, want 0 (for ever) or at least %v", c.KeyRetention, minKeyRetention))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	c.Writers = cmp.Or(c.Writers, 1)
	c.BatchOrders = cmp.Or(c.BatchOrders, 256)
	c.QueueOrders = cmp.Or(c.QueueOrders, 1024)
	c.Streams = cmp.Or(c.Streams, 4)
	c.StreamIdle = cmp.Or(c.StreamIdle, 2*time.Minute)
	c.Patience = cmp.Or(c.Patience, 10*time.Second)
	c.StopTimeout = cmp.Or(c.StopTimeout, 20*time.Second)
	return c
}

// Conns is how many connections the service's pool needs at least: those that
// writers hold, and some for everything else.
func (c Config) Conns() int32 {
	c = c.withDefaults()
	const others = 8
	return int32(c.Writers + streamWriters*c.Streams + others)
}

// Deps are what the service is given.
type Deps struct {
	// DB is a pool of at least Config.Conns connections.
	DB *pgxpool.Pool
	// Listener is where the API is served; Run closes it.
	Listener net.Listener
	Log      *slog.Logger
	Metrics  prometheus.Registerer
}

// Service takes orders.
type Service struct {
	cfg      Config
	db       *pgxpool.Pool
	listener net.Listener
	log      *slog.Logger
	metrics  *metrics

	queue    chan *waiting // closed by nobody
	scratch  sync.Pool     // of *scratch
	streams  chan struct{} // one token a running bulk ingest
	stopping chan struct{} // closed by Run: no more lines are read
	stopped  chan struct{} // closed by Run: no writer is left
}

// New makes a service. It reaches for nothing yet.
func New(cfg Config, d Deps) *Service {
	cfg = cfg.withDefaults()
	s := &Service{
		cfg: cfg, db: d.DB, listener: d.Listener, log: d.Log,
		queue:    make(chan *waiting, cfg.QueueOrders),
		streams:  make(chan struct{}, cfg.Streams),
		stopping: make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	s.scratch.New = func() any { return new(scratch) }
	s.metrics = newMetrics(d.Metrics, func() int { return len(s.queue) })
	return s
}

// Ready returns why the service cannot take orders now, nil if it can.
func (s *Service) Ready(ctx context.Context) error {
	if err := s.db.Ping(ctx); err != nil {
		return fmt.Errorf("reach the orders database: %w", err)
	}
	return nil
}

// Run serves the API until ctx ends. Then it takes no more requests, finishes
// those it has, and returns nil. It is called once.
func (s *Service) Run(ctx context.Context) error {
	defer func() { _ = s.listener.Close() }() // the server has, if it came to that
	if have, need := s.db.Config().MaxConns, s.cfg.Conns(); have < need {
		return fmt.Errorf("run orders: the pool has %d connections, want at least %d", have, need)
	}
	if err := s.openOutbox(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("run orders: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { s.upkeep(ctx); return nil })
	g.Go(func() error { return s.expireKeys(ctx) })
	g.Go(func() error { return s.serveAndDrain(ctx) })
	if err := g.Wait(); err != nil {
		return fmt.Errorf("run orders: %w", err)
	}
	return nil
}

// openOutbox makes the outbox ready before the first order: the relay must
// know a schema before it meets an event of it, and an event needs a partition.
func (s *Service) openOutbox(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*s.cfg.Patience)
	defer cancel()
	if err := outbox.Announce(ctx, s.db); err != nil {
		return err
	}
	return outbox.EnsurePartitions(ctx, s.db)
}

// upkeep keeps the outbox ready until ctx ends. It begins again after an error
// of any kind: a database that is away for a while must not end the service.
func (s *Service) upkeep(ctx context.Context) {
	for {
		err := outbox.Upkeep{DB: s.db, Log: s.log}.Run(ctx)
		if err == nil {
			return
		}
		s.log.Warn("begin outbox upkeep again", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(s.cfg.Patience):
		}
	}
}

// serveAndDrain runs the server, and the writers for as long as a request may
// wait for them.
func (s *Service) serveAndDrain(ctx context.Context) error {
	writers, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var g errgroup.Group
	for range s.cfg.Writers {
		w := &writer{committer: s.committer(doorSingle, singleLockWait), queue: s.queue, limit: s.cfg.BatchOrders}
		g.Go(func() error { w.run(writers); return nil })
	}
	err := s.serve(ctx)
	end()
	_ = g.Wait() // writers return no error
	close(s.stopped)
	return err
}

// committer makes a writer's half of the service. It waits for locks well below
// the time that one attempt has, or a held key would look like a lost database.
func (s *Service) committer(d door, lockWait time.Duration) committer {
	return committer{
		session: newSession(s.db, min(lockWait, s.cfg.Patience/4)), patience: s.cfg.Patience,
		log: s.log, metrics: s.metrics, door: d,
	}
}

// serve runs the HTTP server until ctx ends and its requests are finished.
func (s *Service) serve(ctx context.Context) error {
	srv := &http.Server{
		Handler:        s.Handler(),
		ReadTimeout:    30 * time.Second,
		WriteTimeout:   30*time.Second + 2*s.cfg.Patience,
		IdleTimeout:    2 * time.Minute,
		MaxHeaderBytes: 32 << 10,
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(s.listener) }()
	select {
	case err := <-served:
		close(s.stopping)
		return fmt.Errorf("serve orders: %w", err)
	case <-ctx.Done():
	}
	close(s.stopping)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.StopTimeout)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		s.log.Warn("cut requests that did not finish in time", "err", err)
		_ = srv.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve orders: %w", err)
	}
	return nil
}
