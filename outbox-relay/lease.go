package relay

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow/internal/pg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate makes or updates the relay's table, beside the outbox it reads.
func Migrate(ctx context.Context, pool *pgxpool.Pool) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("open relay migrations: %w", err)
	}
	return pg.Migrate(ctx, pool, "outbox", "relay", files)
}

var errLeaseLost = errors.New("lease lost")

// lease is the right to publish for a source, a row in Postgres that expires
// by the database's clock. It keeps others waiting; that a former leader does
// no harm is Kafka's fence, not the lease.
type lease struct {
	db     pg.DB
	source string
	holder uuid.UUID
	ttl    time.Duration
	log    *slog.Logger

	mu   sync.Mutex // protects copy
	copy *Checkpoint
}

const leaseTimeout = 2 * time.Second

// acquire takes the lease if it is free, expired or ours, and says whether it
// did.
func (l *lease) acquire(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	tag, err := l.db.Exec(ctx, `
		INSERT INTO outbox.relay AS r (source, term, holder, expires_at)
		VALUES ($1, 0, $2, clock_timestamp() + $3)
		ON CONFLICT (source) DO UPDATE
		SET holder = excluded.holder, expires_at = excluded.expires_at, updated_at = clock_timestamp()
		WHERE r.holder = excluded.holder OR r.expires_at < clock_timestamp()`, l.source, l.holder, l.ttl)
	if err != nil {
		return false, fmt.Errorf("take lease of source %s: %w", l.source, err)
	}
	return tag.RowsAffected() == 1, nil
}

// facts reads what Kafka's checkpoint is compared with. It is called after the
// checkpoint was read: read before, the facts could be older than a checkpoint
// that another leader wrote meanwhile.
func (l *lease) facts(ctx context.Context) (database, error) {
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	var d database
	var copied []byte
	err := l.db.QueryRow(ctx, `
		SELECT coalesce(r.term, 0), coalesce(r.incarnation, 1), r.checkpoint,
		  coalesce(r.holder = $2 AND r.expires_at > clock_timestamp(), false),
		  s.system_identifier::text || '/' || d.oid::text, pg_snapshot_xmax(pg_current_snapshot())::text::bigint
		FROM pg_control_system() s JOIN pg_database d ON d.datname = current_database()
		LEFT JOIN outbox.relay r ON r.source = $1`, l.source, l.holder).
		Scan(&d.term, &d.incarnation, &copied, &d.ours, &d.system, &d.nextXID)
	if err != nil {
		return database{}, fmt.Errorf("read lease of source %s: %w", l.source, err)
	}
	if copied != nil {
		if d.copy, err = decodeCheckpoint(copied); err != nil {
			return database{}, err
		}
	}
	return d, nil
}

// begin counts a new term. It comes after the check of Kafka's checkpoint: a
// database that was restored keeps the older term, however often a relay
// tries.
func (l *lease) begin(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	var term int64
	err := l.db.QueryRow(ctx, `
		UPDATE outbox.relay SET term = term + 1
		WHERE source = $1 AND holder = $2 AND expires_at > clock_timestamp()
		RETURNING term`, l.source, l.holder).Scan(&term)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, errLeaseLost
	}
	if err != nil {
		return 0, fmt.Errorf("begin a term of source %s: %w", l.source, err)
	}
	return term, nil
}

// note remembers a committed checkpoint for the next renewal to copy.
func (l *lease) note(c *Checkpoint) {
	l.mu.Lock()
	l.copy = c
	l.mu.Unlock()
}

// keep renews the lease until ctx ends. It returns errLeaseLost when another
// has it, or when it could not be renewed for so long that another may.
func (l *lease) keep(ctx context.Context) error {
	interval := l.ttl / 4
	tick := time.NewTicker(interval)
	defer tick.Stop()
	renewed := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		began := time.Now()
		err := l.renew(ctx, l.ttl)
		switch {
		case err == nil:
			renewed = began
		case errors.Is(err, errLeaseLost):
			return err
		case ctx.Err() != nil:
			return nil
		case time.Since(renewed) > l.ttl-interval:
			return fmt.Errorf("renew for %s: %w: %w", time.Since(renewed).Round(time.Millisecond), errLeaseLost, err)
		default:
			l.log.Warn("retry lease renewal", "err", err)
		}
	}
}

// renew moves the lease's end to ttl from now, and copies the checkpoint. A
// ttl of zero gives the lease up.
func (l *lease) renew(ctx context.Context, ttl time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	l.mu.Lock()
	c := l.copy
	l.mu.Unlock()
	var copied []byte
	if c != nil {
		var err error
		if copied, err = json.Marshal(c); err != nil {
			return fmt.Errorf("encode checkpoint: %w", err)
		}
	}
	tag, err := l.db.Exec(ctx, `
		UPDATE outbox.relay SET expires_at = clock_timestamp() + $3, checkpoint = coalesce($4::jsonb, checkpoint), updated_at = clock_timestamp()
		WHERE source = $1 AND holder = $2`, l.source, l.holder, ttl, copied)
	if err != nil {
		return fmt.Errorf("renew lease of source %s: %w", l.source, err)
	}
	if tag.RowsAffected() == 0 {
		return errLeaseLost
	}
	return nil
}
