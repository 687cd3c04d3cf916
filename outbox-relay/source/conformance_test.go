package source_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow/internal/pg"
	"orderflow/internal/testenv"
	"orderflow/outbox-relay/outbox"
	"orderflow/outbox-relay/source"
)

// opener opens the source under test behind a point.
type opener func(t *testing.T, url string, after source.Point) source.Source

// conform is what every source must pass.
func conform(t *testing.T, open opener) {
	t.Run("concurrent writers: everything once, each aggregate in commit order", func(t *testing.T) { testConcurrentWriters(t, open) })
	t.Run("restart at any point: neither gap nor repeat", func(t *testing.T) { testRestartAnywhere(t, open) })
	t.Run("a later commit with an earlier seq is not lost", func(t *testing.T) { testLateCommit(t, open) })
	t.Run("a long unrelated transaction delays nobody", func(t *testing.T) { testLongTransaction(t, open) })
	t.Run("rolled back rows and savepoints never appear", func(t *testing.T) { testRollbacks(t, open) })
	t.Run("events of any size pass", func(t *testing.T) { testSizes(t, open) })
	t.Run("the source stops when its context ends", func(t *testing.T) { testStop(t, open) })
}

// database makes an empty outbox.
func database(t *testing.T) (string, *pgxpool.Pool) {
	t.Helper()
	url := testenv.Postgres(t, testenv.Template("outbox", func(ctx context.Context, url string) error {
		pool, err := pg.Open(ctx, pg.Config{URL: url})
		if err != nil {
			return err
		}
		defer pool.Close()
		return outbox.Migrate(ctx, pool)
	}))
	pool, err := pg.Open(t.Context(), pg.Config{URL: url, MaxConns: 16})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return url, pool
}

func row(aggregate string, version int64, payload int) outbox.Row {
	return outbox.Row{
		EventID: uuid.Must(uuid.NewV7()), AggregateType: "order", AggregateID: aggregate, AggregateVersion: version,
		EventType: "test.Happened", Topic: "test.events.v1", SchemaFP: 1, Payload: make([]byte, 5+payload), Headers: []byte{},
	}
}

func appendRows(t *testing.T, db pg.DB, rows ...outbox.Row) {
	t.Helper()
	if err := outbox.AppendRows(t.Context(), db, rows); err != nil {
		t.Fatal(err)
	}
}

// seen is an event as the tests compare it.
type seen struct {
	ID    uuid.UUID
	After source.Point // of the event's batch when it is the batch's last, else empty
}

// take reads until n events came, or fails after a while.
func take(t *testing.T, s source.Source, n int) []seen {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var got []seen
	for len(got) < n {
		b, err := s.Next(ctx)
		if err != nil {
			t.Fatalf("after %d of %d events: %v", len(got), n, err)
		}
		for _, e := range b.Events {
			got = append(got, seen{ID: e.ID})
		}
		got[len(got)-1].After = b.After
		b.Release()
	}
	return got
}

// quiet checks that nothing more comes.
func quiet(t *testing.T, s source.Source) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if b, err := s.Next(ctx); err == nil {
		t.Errorf("%d events more than were committed, first %x", len(b.Events), b.Events[0].ID)
	}
}

func ids(events []seen) []uuid.UUID {
	out := make([]uuid.UUID, len(events))
	for i, e := range events {
		out[i] = e.ID
	}
	return out
}

func testConcurrentWriters(t *testing.T, open opener) {
	t.Parallel()
	const writers, aggregates, each = 8, 12, 150
	url, pool := database(t)
	mustExec(t, pool, `CREATE TABLE aggregates (id text PRIMARY KEY, version bigint NOT NULL)`)
	mustExec(t, pool, `INSERT INTO aggregates SELECT 'a' || n, 0 FROM generate_series(0, $1 - 1) n`, aggregates)
	s := open(t, url, "")
	t.Cleanup(s.Close)

	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(7, uint64(w)))
			for range each {
				writeHarshly(t, pool, fmt.Sprintf("a%d", r.IntN(aggregates)), r)
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	byAggregate := map[string][]uuid.UUID{}
	for n := 0; n < writers*each; {
		b, err := s.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range b.Events {
			byAggregate[string(e.AggregateID)] = append(byAggregate[string(e.AggregateID)], e.ID)
		}
		n += len(b.Events)
		b.Release()
	}
	wg.Wait()
	quiet(t, s)

	want := map[string][]uuid.UUID{}
	rows, err := pool.Query(t.Context(), `SELECT aggregate_id, event_id FROM outbox.events ORDER BY aggregate_id, aggregate_version`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var a string
		var id uuid.UUID
		if err := rows.Scan(&a, &id); err != nil {
			t.Fatal(err)
		}
		want[a] = append(want[a], id)
	}
	if diff := cmp.Diff(want, byAggregate); diff != "" {
		t.Errorf("events by aggregate, want the order of versions (-want +got):\n%s", diff)
	}
}

// writeHarshly appends one event of an aggregate. Half of the transactions
// take their transaction id before the aggregate's lock, which is what breaks
// schemes that trust the order of ids.
func writeHarshly(t *testing.T, pool *pgxpool.Pool, aggregate string, r *rand.Rand) {
	ctx := t.Context()
	tx, err := pool.Begin(ctx)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if r.IntN(2) == 0 {
		if _, err := tx.Exec(ctx, `SELECT pg_current_xact_id()`); err != nil {
			t.Error(err)
			return
		}
	}
	var version int64
	if err := tx.QueryRow(ctx, `UPDATE aggregates SET version = version + 1 WHERE id = $1 RETURNING version`, aggregate).Scan(&version); err != nil {
		t.Error(err)
		return
	}
	if err := outbox.AppendRows(ctx, tx, []outbox.Row{row(aggregate, version, r.IntN(200))}); err != nil {
		t.Error(err)
		return
	}
	if _, err := tx.Exec(ctx, `SELECT pg_sleep($1)`, r.Float64()*0.002); err != nil {
		t.Error(err)
		return
	}
	if err := tx.Commit(ctx); err != nil {
		t.Error(err)
	}
}

func testRestartAnywhere(t *testing.T, open opener) {
	t.Parallel()
	url, pool := database(t)
	r := rand.New(rand.NewPCG(1, 2))
	total := 0
	write := func() {
		n := 1 + r.IntN(120)
		for range n {
			appendRows(t, pool, row(fmt.Sprint("a", r.IntN(5)), int64(total+1), r.IntN(300)))
			total++
		}
	}
	write()
	first := open(t, url, "")
	all := take(t, first, total)
	for range 3 { // windows of several sizes, some larger than a batch
		write()
		all = append(all, take(t, first, total-len(all))...)
	}
	first.Close()

	for i, e := range all {
		if e.After == "" {
			continue
		}
		again := open(t, url, e.After)
		rest := take(t, again, total-i-1)
		quiet(t, again)
		again.Close()
		if diff := cmp.Diff(ids(all[i+1:]), ids(rest)); diff != "" {
			t.Fatalf("restart at %q, behind event %d (-first run +restart):\n%s", e.After, i, diff)
		}
	}
}

func testLateCommit(t *testing.T, open opener) {
	t.Parallel()
	url, pool := database(t)
	s := open(t, url, "")
	defer s.Close()

	late, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	early := row("late", 1, 10)
	appendRows(t, late, early)
	other := row("other", 1, 10)
	appendRows(t, pool, other)
	first := take(t, s, 1)
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := take(t, s, 1)
	if diff := cmp.Diff([]uuid.UUID{other.EventID, early.EventID}, append(ids(first), ids(second)...)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	quiet(t, s)
}

func testLongTransaction(t *testing.T, open opener) {
	t.Parallel()
	url, pool := database(t)
	mustExec(t, pool, `CREATE TABLE elsewhere (n int)`)
	long, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = long.Rollback(context.WithoutCancel(t.Context())) }()
	mustExec(t, long, `INSERT INTO elsewhere VALUES (1)`)

	s := open(t, url, "")
	defer s.Close()
	for range 5 {
		want := row("a", 1, 10)
		appendRows(t, pool, want)
		if got := take(t, s, 1); got[0].ID != want.EventID {
			t.Fatalf("event %s, want %s", got[0].ID, want.EventID)
		}
	}
}

func testRollbacks(t *testing.T, open opener) {
	t.Parallel()
	url, pool := database(t)
	s := open(t, url, "")
	defer s.Close()

	gone, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	appendRows(t, gone, row("gone", 1, 10))
	if err := gone.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kept, savepoint, undone := row("kept", 1, 10), row("kept", 2, 10), row("kept", 3, 10)
	appendRows(t, tx, kept)
	for _, step := range []struct {
		row  outbox.Row
		keep bool
	}{{undone, false}, {savepoint, true}} {
		sub, err := tx.Begin(t.Context()) // a savepoint
		if err != nil {
			t.Fatal(err)
		}
		appendRows(t, sub, step.row)
		if step.keep {
			err = sub.Commit(t.Context())
		} else {
			err = sub.Rollback(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]uuid.UUID{kept.EventID, savepoint.EventID}, ids(take(t, s, 2))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	quiet(t, s)
}

func testSizes(t *testing.T, open opener) {
	t.Parallel()
	url, pool := database(t)
	var want []uuid.UUID
	for i, size := range []int{0, 1, 800_000, 5, 300_000, 300_000, 300_000, 0, 899_990} {
		r := row("a", int64(i+1), size)
		want = append(want, r.EventID)
		appendRows(t, pool, r)
	}
	s := open(t, url, "")
	defer s.Close()
	if diff := cmp.Diff(want, ids(take(t, s, len(want)))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	quiet(t, s)
}

func testStop(t *testing.T, open opener) {
	t.Parallel()
	url, _ := database(t)
	s := open(t, url, "")
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := s.Next(ctx)
		ended <- err
	}()
	cancel()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("Next returned events of an empty outbox")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Next still waits after its context ended")
	}
}

func mustExec(t *testing.T, db pg.DB, sql string, args ...any) {
	t.Helper()
	if _, err := db.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}
