package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow/internal/embedded"
	"orderflow/internal/kafka"
	"orderflow/internal/pg"
	"orderflow/outbox-relay"
	"orderflow/outbox-relay/outbox"
	"orderflow/schemas"
)

// Options are what every bench takes.
type Options struct {
	// Rounds is how often each pair is measured.
	Rounds int
	// Brokers is a real Kafka to use; empty starts one.
	Brokers []string
	// Program is the orderflow binary that is measured.
	Program string
	// Log tells what is being done.
	Log *slog.Logger
}

// lab is the environment of a bench, on a directory of its own.
type lab struct {
	dir      string
	bin      string // Postgres's programs
	postgres *embedded.Postgres
	url      string
	db       *pgxpool.Pool
	registry *embedded.Registry
	kafka    *embedded.ApacheKafka
	brokers  []string
	log      *slog.Logger
}

// postgresSettings are those of the references' published figures: durable,
// with buffers smaller than the tables.
func postgresSettings() map[string]string {
	return map[string]string{
		"shared_buffers": "256MB", "max_wal_size": "4GB", "wal_level": "logical", "max_connections": "300",
		"fsync": "on", "synchronous_commit": "on", "autovacuum": "off",
	}
}

// newLab starts Postgres, and a registry; close stops what was started.
func newLab(ctx context.Context, o Options) (*lab, error) {
	dir, err := os.MkdirTemp("", "orderflow-bench-")
	if err != nil {
		return nil, fmt.Errorf("make bench directory: %w", err)
	}
	l := &lab{dir: dir, log: o.Log}
	if err := l.start(ctx); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lab) start(ctx context.Context) (err error) {
	if err := os.Chmod(l.dir, 0o711); err != nil { // the user that runs Postgres for root must get in
		return fmt.Errorf("open bench directory: %w", err)
	}
	if l.bin, err = embedded.FindPostgres(ctx, embedded.FindOptions{Out: os.Stderr, Log: l.log}); err != nil {
		return err
	}
	l.postgres, err = embedded.StartPostgres(ctx, embedded.PostgresConfig{
		BinDir: l.bin, DataDir: filepath.Join(l.dir, "postgres"), Settings: postgresSettings(), Log: l.log,
	})
	if err != nil {
		return err
	}
	l.url = l.postgres.URL()
	if l.db, err = pg.Open(ctx, pg.Config{URL: l.url, MaxConns: 16}); err != nil {
		return err
	}
	l.registry, err = embedded.StartRegistry(ctx, embedded.RegistryConfig{Log: l.log})
	return err
}

// migrateOutbox makes the outbox that both sides of a bench use.
func (l *lab) migrateOutbox(ctx context.Context) error {
	return errors.Join(outbox.Migrate(ctx, l.db), relay.Migrate(ctx, l.db), outbox.Announce(ctx, l.db), outbox.EnsurePartitions(ctx, l.db))
}

// startKafka uses the given brokers or starts a real one, with every topic.
func (l *lab) startKafka(ctx context.Context, o Options) error {
	l.brokers = o.Brokers
	if len(l.brokers) == 0 {
		k, err := embedded.StartApacheKafka(ctx, filepath.Join(l.dir, "kafka"), embedded.ApacheKafkaConfig{HeapMiB: 1024, Out: os.Stderr, Log: l.log})
		if err != nil {
			return err
		}
		l.kafka, l.brokers = k, k.Addrs()
	}
	cl, err := kafka.Open(ctx, kafka.Config{Brokers: l.brokers}, l.log)
	if err != nil {
		return err
	}
	defer cl.Close()
	return kafka.EnsureTopics(ctx, cl, schemas.Topics(), -1)
}

func (l *lab) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var errs []error
	if l.db != nil {
		l.db.Close()
	}
	if l.kafka != nil {
		errs = append(errs, l.kafka.Stop(ctx))
	}
	if l.registry != nil {
		errs = append(errs, l.registry.Close())
	}
	if l.postgres != nil {
		errs = append(errs, l.postgres.Stop(ctx))
	}
	errs = append(errs, os.RemoveAll(l.dir))
	if err := errors.Join(errs...); err != nil {
		l.log.Warn("clear up after the bench", "err", err)
	}
}
