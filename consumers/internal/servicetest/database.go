package servicetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow/consumers"
	"orderflow/internal/pg"
	"orderflow/internal/testenv"
	"orderflow/outbox-relay/outbox"
	"orderflow/schemas"
)

// Database is a migrated database of the service's own, with the outbox, as a
// pool whose search_path is the service's schema.
func Database(t testing.TB, c consumers.Consumer) *pgxpool.Pool {
	t.Helper()
	url := testenv.Postgres(t, testenv.Template(c.Group, func(ctx context.Context, url string) error {
		return migrate(ctx, url, c)
	}))
	pool, err := pg.Open(t.Context(), pg.Config{URL: url, Schema: c.Group, MaxConns: 12, Name: "test " + c.Group})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func migrate(ctx context.Context, url string, c consumers.Consumer) error {
	pool, err := pg.Open(ctx, pg.Config{URL: url})
	if err != nil {
		return err
	}
	defer pool.Close()
	return errors.Join(outbox.Migrate(ctx, pool), c.Migrate(ctx, pool))
}

// Apply runs f in a transaction and commits it.
func Apply(t testing.TB, pool *pgxpool.Pool, f func(ctx context.Context, tx pgx.Tx) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return f(ctx, tx) }); err != nil {
		t.Fatal(err)
	}
}

// errRollBack is what [Undone] rolls back with.
var errRollBack = errors.New("roll back on purpose")

// Undone runs f in a transaction that is rolled back, as by a crash before
// the commit.
func Undone(t testing.TB, pool *pgxpool.Pool, f func(ctx context.Context, tx pgx.Tx) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if err := f(ctx, tx); err != nil {
			return err
		}
		return errRollBack
	})
	if !errors.Is(err, errRollBack) {
		t.Fatal(err)
	}
}

// Told is one event in the outbox.
type Told struct {
	EventID string
	Order   string
	Version int64
	Type    string
	Event   schemas.Event
}

// Outbox returns the committed events in the order of their appending.
func Outbox(t testing.TB, pool *pgxpool.Pool) []Told {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		SELECT event_id::text, aggregate_id, aggregate_version, event_type, payload FROM outbox.events ORDER BY seq`)
	if err != nil {
		t.Fatal(err)
	}
	told, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (Told, error) {
		var e Told
		var payload []byte
		if err := r.Scan(&e.EventID, &e.Order, &e.Version, &e.Type, &payload); err != nil {
			return e, err
		}
		s, ok := schemas.ByFullName(e.Type)
		if !ok {
			return e, errors.New("unknown type " + e.Type)
		}
		e.Event, err = s.DecodeBody(payload[schemas.FrameSize:])
		return e, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return told
}

// OfType returns the events of type E, in order.
func OfType[E schemas.Event](told []Told) []E {
	var events []E
	for _, e := range told {
		if event, ok := e.Event.(E); ok {
			events = append(events, event)
		}
	}
	return events
}

// CheckVersions fails the test unless the events of each order, in the order
// of their appending, have the versions 1, 2, 3 ... and no id comes twice.
func CheckVersions(t interface {
	Helper()
	Errorf(format string, args ...any)
}, told []Told,
) {
	t.Helper()
	last := map[string]int64{}
	ids := map[string]bool{}
	for _, e := range told {
		if e.Version != last[e.Order]+1 {
			t.Errorf("order %s: version %d (%s) follows %d", e.Order, e.Version, e.Type, last[e.Order])
		}
		last[e.Order] = e.Version
		if ids[e.EventID] {
			t.Errorf("event %s (%s of %s) was appended twice", e.EventID, e.Type, e.Order)
		}
		ids[e.EventID] = true
	}
}

// Count returns the number that the query selects.
func Count(t testing.TB, pool *pgxpool.Pool, query string, args ...any) int64 {
	t.Helper()
	var n int64
	if err := pool.QueryRow(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}
