package notification

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"orderflow/consumers"
	st "orderflow/consumers/internal/servicetest"
	"orderflow/internal/pg"
	"orderflow/internal/testenv"
	"orderflow/schemas"
)

func TestEachOrderGetsOneMailAndOneJobHoweverOftenTheBatchRuns(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil)
	st.Undone(t, o.pool, func(ctx context.Context, tx pgx.Tx) error {
		return o.service.placed(ctx, tx, st.Batch(twoLines("o1")))
	})
	o.place(t, twoLines("o1"), twoLines("o2"), twoLines("o1"))
	o.place(t, twoLines("o1"))

	want := []string{"o1 1 order-received queued", "o2 1 order-received queued"}
	if diff := cmp.Diff(want, o.stories(t)); diff != "" {
		t.Errorf("mails (-want +got):\n%s", diff)
	}
	if got := o.jobs(t, "available"); got != 2 {
		t.Errorf("got %d jobs, want 2", got)
	}
	if n := st.Count(t, o.pool, `SELECT count(*) FROM river_job WHERE args::text LIKE '%17850%' OR args::text LIKE '%@%'`); n != 0 {
		t.Errorf("%d jobs hold something about the customer", n)
	}
}

func TestCancellationWaitsForTheMailAboutTheOrder(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil)
	o.place(t, twoLines("o1"), twoLines("o2"))
	o.cancel(t, st.Cancelled("o1"), st.Cancelled("o1"))

	want := []string{"o1 1 order-received queued", "o1 2 order-cancelled waiting", "o2 1 order-received queued"}
	if diff := cmp.Diff(want, o.stories(t)); diff != "" {
		t.Errorf("before the worker ran (-want +got):\n%s", diff)
	}
	if got := o.jobs(t, "available"); got != 2 {
		t.Errorf("got %d jobs, want none for the cancellation", got)
	}
	o.start(t)
	var got []string
	for _, e := range st.OfType[*schemas.NotificationSent](o.settled(t)) {
		if e.Meta.OrderID == "o1" {
			got = append(got, e.Template)
		}
	}
	if diff := cmp.Diff([]string{"order-received", "order-cancelled"}, got); diff != "" {
		t.Errorf("mails of the cancelled order (-want +got):\n%s", diff)
	}
	o.cancel(t, st.Cancelled("o2")) // nothing to wait for any more
	if told := o.settled(t); len(told) != 4 || o.sink.Count() != 4 {
		t.Errorf("told of %d mails and sent %d, want 4", len(told), o.sink.Count())
	}
}

func TestOrderCancelledBeforeItIsKnownGetsNoMail(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil)
	o.cancel(t, st.Cancelled("o1"))
	o.place(t, twoLines("o1"))
	if got := o.stories(t); len(got) != 0 {
		t.Errorf("wrote %v", got)
	}
}

func TestTextThatPostgresCannotHoldIsADeadLetter(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil)
	order := twoLines("o1")
	order.CustomerID = "a\x00b"
	err := pgx.BeginFunc(t.Context(), o.pool, func(tx pgx.Tx) error {
		return o.service.placed(t.Context(), tx, st.Batch(order))
	})
	if !consumers.IsPermanent(err) {
		t.Errorf("got %v, want a permanent error: trying again cannot help", err)
	}
}

func TestEffectThatWasAskedForBeforeIsNotAskedForAgain(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil)
	_, err := o.pool.Exec(t.Context(), `INSERT INTO effects_done (idem_key) VALUES ($1)`, "notification/"+st.ID("o1", "placed")+"/order-received")
	if err != nil {
		t.Fatal(err)
	}
	o.place(t, twoLines("o1"))
	if got := o.stories(t); len(got) != 0 {
		t.Errorf("wrote %v", got)
	}
}

func TestOrderIsCancelledOnceHoweverManyEventsSayIt(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil)
	again := st.Cancelled("o1")
	again.Meta.EventID = st.ID("o1", "cancelled again")
	o.place(t, twoLines("o1"))
	o.cancel(t, st.Cancelled("o1"))
	o.cancel(t, again)
	want := []string{"o1 1 order-received queued", "o1 2 order-cancelled waiting"}
	if diff := cmp.Diff(want, o.stories(t)); diff != "" {
		t.Errorf("mails (-want +got):\n%s", diff)
	}
}

func TestMigratingAtTheSameTimeIsHarmless(t *testing.T) {
	t.Parallel()
	pool, err := pg.Open(t.Context(), pg.Config{URL: testenv.Postgres(t), MaxConns: 12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if _, err := pool.Exec(t.Context(), `CREATE SCHEMA notification`); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 3)
	for range cap(errs) {
		go func() { errs <- migrateQueue(context.Background(), pool, Group) }()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if err := New(Config{}).Migrate(t.Context(), pool); err != nil {
		t.Errorf("migrate once more: %v", err)
	}
}
