// Package verify compares an outbox with Kafka and with every consumer group,
// while they are at work: each committed event is once in its topic, under its
// key and in the order of its aggregate, the relay's numbers are unbroken, and
// each group has applied each event once.
//
// What makes that exact on a live system is the order of reading. The groups'
// positions come first, so the log is read at least up to them. Then the
// relay's checkpoint, which Kafka commits together with the events before it:
// it says which rows of the outbox are published (its point) and under which
// numbers (its counts). Then the ends of the log, and last the outbox, which by
// then holds a row for everything in the log. What came meanwhile is backlog,
// not a fault.
//
// Memory stays flat: both sides are read once, and leave a tuple of fixed size
// per event in temporary files, in buckets that are compared one by one.
package verify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"orderflow/internal/kafka"
	"orderflow/outbox-relay"
)

// Config says what to compare.
type Config struct {
	// DB is the database of the outbox and of the groups. Two connections
	// are used at most. Not a replica: the outbox must be as new as the log.
	DB *pgxpool.Pool
	// Kafka says where the events are.
	Kafka kafka.Config
	// Source is the name under which the outbox is published. Default
	// "orderflow".
	Source string
	// Groups are the consumer groups to check. None means the outbox and
	// Kafka only.
	Groups []Group
	// TempDir takes the temporary files: about 170 bytes an event. Default
	// the system's.
	TempDir string
	// Patience is how long Kafka or Postgres may make no progress before the
	// check gives up. Default 60 s, longer than brokers keep a dead relay's
	// transaction open.
	Patience time.Duration
	// Log receives what the Kafka client complains of. Nil discards it.
	Log *slog.Logger
}

// Group is a consumer group: its name, which is its Postgres schema too, and
// the topics it reads.
type Group struct {
	Name   string
	Topics []string
}

// Validate reports every problem of the Config.
func (c Config) Validate() error {
	errs := []error{c.Kafka.Validate()}
	if c.DB == nil {
		errs = append(errs, errors.New("verify: needs a database"))
	}
	if c.Patience < 0 {
		errs = append(errs, fmt.Errorf("verify: patience of %s: want 0 or more", c.Patience))
	}
	for _, g := range c.Groups {
		if g.Name == "" {
			errs = append(errs, errors.New("verify: a group without a name"))
		}
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if c.Source == "" {
		c.Source = "orderflow"
	}
	if c.TempDir == "" {
		c.TempDir = os.TempDir()
	}
	if c.Patience == 0 {
		c.Patience = time.Minute
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// check is one run.
type check struct {
	cfg    Config
	client *kgo.Client
	report Report
	hash   hasher

	groups     []*groupCheck
	checkpoint relay.Checkpoint
	topics     *topicTable
	space      sizes

	rows    *spill // the outbox, by event id
	records *spill // the log, by event id
	ordered *spill // the log with the outbox's versions, by aggregate
}

// Run compares everything once. Whatever it finds is in the Report; an error
// means that it could not look, which says nothing about the events.
func Run(ctx context.Context, cfg Config) (Report, error) {
	if err := cfg.Validate(); err != nil {
		return Report{}, err
	}
	cfg = cfg.withDefaults()
	began := time.Now()
	client, err := kafka.Open(ctx, cfg.Kafka, cfg.Log)
	if err != nil {
		return Report{}, err
	}
	c := &check{cfg: cfg, client: client, hash: newHasher(), topics: newTopicTable()}
	defer c.close()
	c.report = Report{Source: cfg.Source, Groups: []GroupReport{}, Unchecked: []string{}}
	for _, step := range []func(context.Context) error{
		c.readPositions, c.readCheckpoint, c.findBounds, c.makeRoom,
		c.readBothSides, c.match, c.followVersions, c.settleGroups,
	} {
		if err := step(ctx); err != nil {
			return Report{}, fmt.Errorf("verify source %s: %w", cfg.Source, err)
		}
	}
	c.report.finish(c, time.Since(began))
	return c.report, nil
}

func (c *check) close() {
	c.client.Close()
	for _, s := range []*spill{c.rows, c.records, c.ordered} {
		if s != nil {
			s.close()
		}
	}
}

// readBothSides reads the outbox and the log at the same time.
func (c *check) readBothSides(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.readOutbox(ctx) })
	g.Go(func() error { return c.readLog(ctx) })
	if err := g.Wait(); err != nil {
		return err
	}
	return errors.Join(c.rows.seal(), c.records.seal())
}
