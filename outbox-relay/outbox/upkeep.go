package outbox

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"orderflow/internal/pg"
	"orderflow/schemas"
)

const (
	partitionDaysAhead = 14
	upkeepInterval     = time.Hour
	upkeepTimeout      = 30 * time.Second
	upkeepRetry        = 10 * time.Second
)

// Announce writes the text of every schema that this binary knows into the
// outbox, where the relay finds it. A writer announces before it appends.
func Announce(ctx context.Context, db pg.DB) error {
	var fps []int64
	var subjects, texts []string
	for _, s := range schemas.All() {
		fps = append(fps, s.Fingerprint)
		subjects = append(subjects, s.Subject)
		texts = append(texts, s.Text)
	}
	_, err := db.Exec(ctx, `
		INSERT INTO outbox.schemas (fingerprint, subject, text)
		SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[])
		ON CONFLICT (fingerprint) DO NOTHING`, fps, subjects, texts)
	if err != nil {
		return fmt.Errorf("announce schemas to the outbox: %w", err)
	}
	return nil
}

// EnsurePartitions makes the partitions of the next 14 days.
func EnsurePartitions(ctx context.Context, db pg.DB) error {
	if _, err := db.Exec(ctx, `SELECT outbox.ensure_partitions($1)`, partitionDaysAhead); err != nil {
		return fmt.Errorf("make outbox partitions: %w", err)
	}
	return nil
}

// Upkeep keeps partitions ready. Every writer and every relay runs one, so a
// dead relay never stops the orders.
type Upkeep struct {
	DB  pg.DB
	Log *slog.Logger
}

// Run announces the schemas and makes partitions now, which must succeed, and
// then once an hour until ctx ends. Partitions reach 14 days ahead, so a later
// failure is retried and logged, not returned.
func (u Upkeep) Run(ctx context.Context) error {
	if err := u.once(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	for wait := upkeepInterval; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = upkeepInterval
		if err := u.once(ctx); err != nil && ctx.Err() == nil {
			u.Log.Warn("retry outbox upkeep", "err", err)
			wait = upkeepRetry
		}
	}
}

func (u Upkeep) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
	defer cancel()
	if err := Announce(ctx, u.DB); err != nil {
		return err
	}
	return EnsurePartitions(ctx, u.DB)
}
