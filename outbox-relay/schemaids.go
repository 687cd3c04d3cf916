package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"

	"orderflow/internal/pg"
)

const (
	topicRetry     = time.Second
	lookupTimeout  = 10 * time.Second
	maxSchemaRetry = 5 * time.Second
)

// schemaIDs turns an outbox row's schema fingerprint into the registry's id.
// The schema's text comes from the outbox, so a schema newer than this binary
// is registered all the same.
type schemaIDs struct {
	db       pg.DB
	registry Registry
	log      *slog.Logger
	known    map[int64]int // used by the reading goroutine alone
}

func newSchemaIDs(db pg.DB, r Registry, log *slog.Logger) *schemaIDs {
	return &schemaIDs{db: db, registry: r, log: log, known: make(map[int64]int)}
}

// id waits until the registry has answered, or ctx ends.
func (s *schemaIDs) id(ctx context.Context, fingerprint int64) (int, error) {
	if id, ok := s.known[fingerprint]; ok {
		return id, nil
	}
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 100*time.Millisecond, maxSchemaRetry
	for {
		id, err := s.lookup(ctx, fingerprint)
		if err == nil {
			s.known[fingerprint] = id
			return id, nil
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		s.log.Warn("wait for schema id", "fingerprint", fingerprint, "err", err)
		sleep(ctx, pause.NextBackOff())
	}
}

func (s *schemaIDs) lookup(ctx context.Context, fingerprint int64) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var subject, text string
	err := s.db.QueryRow(ctx, `SELECT subject, text FROM outbox.schemas WHERE fingerprint = $1`, fingerprint).Scan(&subject, &text)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("find schema %d: its writer did not announce it in outbox.schemas", fingerprint)
	}
	if err != nil {
		return 0, fmt.Errorf("find schema %d: %w", fingerprint, err)
	}
	id, err := s.registry.ID(ctx, subject, text)
	if err != nil {
		return 0, fmt.Errorf("register schema of %s: %w", subject, err)
	}
	return id, nil
}
