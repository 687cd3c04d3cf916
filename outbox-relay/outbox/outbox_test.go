package outbox_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow/internal/pg"
	"orderflow/internal/testenv"
	"orderflow/outbox-relay/outbox"
	"orderflow/schemas"
)

func database(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool, err := pg.Open(t.Context(), pg.Config{URL: testenv.Postgres(t), MaxConns: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if err := outbox.Migrate(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	return pool
}

func event(version int64, reason string) *schemas.OrderCancelled {
	return &schemas.OrderCancelled{
		Meta: schemas.EventMeta{
			EventID: uuid.NewString(), OrderID: uuid.NewString(), OrderVersion: version, OccurredAt: time.Now(),
			CorrelationID: "correlation", Producer: "orders", Flow: schemas.FlowChoreography,
		},
		By: schemas.CancelledByCustomer, Reason: reason,
	}
}

func count(t *testing.T, db *pgxpool.Pool) int {
	t.Helper()
	var n int
	if err := db.QueryRow(t.Context(), `SELECT count(*) FROM outbox.events`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestEventsLiveAndDieWithTheirTransaction(t *testing.T) {
	t.Parallel()
	db := database(t)
	for _, commit := range []bool{false, true} {
		tx, err := db.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := outbox.Append(t.Context(), tx, event(1, "a"), event(1, "b")); err != nil {
			t.Fatal(err)
		}
		if commit {
			err = tx.Commit(t.Context())
		} else {
			err = tx.Rollback(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, want := count(t, db), map[bool]int{false: 0, true: 2}[commit]; got != want {
			t.Errorf("commit=%t: %d events, want %d", commit, got, want)
		}
	}
}

func TestAnEventThatCouldNeverBePublishedFailsItsTransaction(t *testing.T) {
	t.Parallel()
	db := database(t)
	for name, c := range map[string]struct {
		change func(*schemas.OrderCancelled)
		want   string
		is     error
	}{
		"too large":     {func(e *schemas.OrderCancelled) { e.Reason = strings.Repeat("x", outbox.MaxEventBytes) }, "at most 900000", outbox.ErrTooLarge},
		"no event id":   {func(e *schemas.OrderCancelled) { e.Meta.EventID = "" }, "is no UUID", nil},
		"no order":      {func(e *schemas.OrderCancelled) { e.Meta.OrderID = "" }, "no order id", nil},
		"no version":    {func(e *schemas.OrderCancelled) { e.Meta.OrderVersion = 0 }, "order version 0", nil},
		"no time":       {func(e *schemas.OrderCancelled) { e.Meta.OccurredAt = time.Time{} }, "no time of occurrence", nil},
		"no producer":   {func(e *schemas.OrderCancelled) { e.Meta.Producer = "" }, "no producer", nil},
		"unknown value": {func(e *schemas.OrderCancelled) { e.By = "NOBODY" }, "OrderCancelled", nil},
	} {
		t.Run(name, func(t *testing.T) {
			e := event(1, "a")
			c.change(e)
			err := outbox.Append(t.Context(), db, event(1, "good"), e)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one about %q", err, c.want)
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("error %v is not %v", err, c.is)
			}
			if n := count(t, db); n != 0 {
				t.Errorf("%d events written", n)
			}
		})
	}
}

func TestAFollowUpHasTheSameIDEachTime(t *testing.T) {
	t.Parallel()
	cause := event(3, "cause")
	follow := func(group string, ordinal int) schemas.EventMeta {
		e := &schemas.SellerReleased{}
		outbox.Follow(&cause.Meta, group, e, 2, ordinal)
		return e.Meta
	}
	a, b := follow("seller", 0), follow("seller", 0)
	if a.EventID != b.EventID {
		t.Errorf("ids %s and %s of one follow-up", a.EventID, b.EventID)
	}
	for _, other := range []schemas.EventMeta{follow("seller", 1), follow("logistics", 0)} {
		if other.EventID == a.EventID {
			t.Errorf("another follow-up has the id %s too", a.EventID)
		}
	}
	if a.CausationID == nil || *a.CausationID != cause.Meta.EventID {
		t.Errorf("causation %v, want %s", a.CausationID, cause.Meta.EventID)
	}
	got := []any{a.OrderID, a.OrderVersion, a.CorrelationID, a.Producer, a.Flow}
	want := []any{cause.Meta.OrderID, int64(2), "correlation", "seller", schemas.FlowChoreography}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("envelope (-want +got):\n%s", diff)
	}
}

func TestUpkeepMakesPartitionsTwoWeeksAheadOnce(t *testing.T) {
	t.Parallel()
	db := database(t)
	partitions := func() (n int) {
		t.Helper()
		err := db.QueryRow(t.Context(), `SELECT count(*) FROM pg_inherits WHERE inhparent = 'outbox.events'::regclass`).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if _, err := db.Exec(t.Context(), `DO $$ DECLARE p text; BEGIN
		FOR p IN SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'outbox.events'::regclass LOOP
		EXECUTE 'DROP TABLE ' || p; END LOOP; END $$`); err != nil {
		t.Fatal(err)
	}
	if err := outbox.Append(t.Context(), db, event(1, "a")); err == nil {
		t.Fatal("an event was appended without a partition")
	}
	var all sync.WaitGroup
	for range 5 { // every writer and every relay does it
		all.Go(func() {
			if err := outbox.EnsurePartitions(t.Context(), db); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got, want := partitions(), 16; got != want {
		t.Errorf("%d partitions, want %d: yesterday, today and 14 more", got, want)
	}
	if err := outbox.Append(t.Context(), db, event(1, "a")); err != nil {
		t.Error(err)
	}
}

func TestUpkeepAnnouncesEverySchema(t *testing.T) {
	t.Parallel()
	db := database(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- outbox.Upkeep{DB: db, Log: testenv.Logger(t)}.Run(ctx) }()
	testenv.Wait(t, 20*time.Second, "the schemas", func() bool {
		var n int
		err := db.QueryRow(t.Context(), `SELECT count(*) FROM outbox.schemas`).Scan(&n)
		return err == nil && n == len(schemas.All())
	})
	cancel()
	if err := <-done; err != nil {
		t.Errorf("upkeep that was told to stop: %v", err)
	}
	s := (*schemas.OrderCancelled)(nil).EventSchema()
	var text string
	if err := db.QueryRow(t.Context(), `SELECT text FROM outbox.schemas WHERE fingerprint = $1`, s.Fingerprint).Scan(&text); err != nil {
		t.Fatal(err)
	}
	if text != s.Text {
		t.Errorf("text %q, want %q", text, s.Text)
	}
}
