package seller

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"pgregory.net/rapid"

	"orderflow/consumers"
	st "orderflow/consumers/internal/servicetest"
	"orderflow/schemas"
)

func twoSellers(order string) *schemas.OrderPlaced {
	return st.Placed(order, st.Line("anna", "mug", 2), st.Line("ben", "lamp", 1), st.Line("anna", "cup", 200))
}

func placing(events ...*schemas.OrderPlaced) func(context.Context, pgx.Tx) error {
	return func(ctx context.Context, tx pgx.Tx) error { return accept(ctx, tx, st.Batch(events...)) }
}

func cancelling(events ...*schemas.OrderCancelled) func(context.Context, pgx.Tx) error {
	return func(ctx context.Context, tx pgx.Tx) error { return release(ctx, tx, st.Batch(events...)) }
}

func entries(t testing.TB, pool *pgxpool.Pool) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		SELECT order_id || ' ' || seller_id || ' ' || state || ' ' || lines FROM entries ORDER BY order_id, place`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestEachSellerOfAnOrderGetsOneEntryWithTheirLines(t *testing.T) {
	t.Parallel()
	pool := st.Database(t, New())
	st.Apply(t, pool, placing(twoSellers("o1"), st.Placed("o2", st.Line("ben", "lamp", 3))))

	want := []string{
		`o1 anna accepted [{"sku": "mug", "line_no": 1, "quantity": 2}, {"sku": "cup", "line_no": 3, "quantity": 200}]`,
		`o1 ben accepted [{"sku": "lamp", "line_no": 2, "quantity": 1}]`,
		`o2 ben accepted [{"sku": "lamp", "line_no": 1, "quantity": 3}]`,
	}
	if diff := cmp.Diff(want, entries(t, pool)); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	told := st.Outbox(t, pool)
	st.CheckVersions(t, told)
	accepted := st.OfType[*schemas.SellerAccepted](told)
	if len(accepted) != 3 || len(told) != 3 {
		t.Fatalf("got %d events, %d of them SellerAccepted, want 3", len(told), len(accepted))
	}
	first := accepted[0]
	if first.SellerID != "anna" || len(first.Lines) != 2 || first.Lines[1] != (schemas.SellerLine{LineNo: 3, SKU: "cup", Quantity: 200}) {
		t.Errorf("got %s with lines %v", first.SellerID, first.Lines)
	}
	if first.Meta.OrderID != "o1" || *first.Meta.CausationID != st.ID("o1", "placed") || first.Meta.Producer != Group {
		t.Errorf("envelope %+v does not tell of its cause", first.Meta)
	}
}

func TestCancelledOrderReleasesEveryEntryOnce(t *testing.T) {
	t.Parallel()
	pool := st.Database(t, New())
	st.Apply(t, pool, placing(twoSellers("o1"), twoSellers("o2")))
	st.Apply(t, pool, cancelling(st.Cancelled("o1"), st.Cancelled("o1")))
	st.Apply(t, pool, cancelling(st.Cancelled("o1")))

	if n := st.Count(t, pool, `SELECT count(*) FROM entries WHERE order_id = 'o1' AND state = 'released'`); n != 2 {
		t.Errorf("released %d entries of the cancelled order, want 2", n)
	}
	if n := st.Count(t, pool, `SELECT count(*) FROM entries WHERE order_id = 'o2' AND state = 'accepted'`); n != 2 {
		t.Errorf("kept %d entries of the other order, want 2", n)
	}
	told := st.Outbox(t, pool)
	st.CheckVersions(t, told)
	var got []string
	for _, e := range st.OfType[*schemas.SellerReleased](told) {
		got = append(got, fmt.Sprint(e.Meta.OrderID, " ", e.Meta.OrderVersion, " ", e.SellerID, " ", e.Cause))
	}
	if diff := cmp.Diff([]string{"o1 3 anna ORDER_CANCELLED", "o1 4 ben ORDER_CANCELLED"}, got); diff != "" {
		t.Errorf("releases (-want +got):\n%s", diff)
	}
}

func TestOrderCancelledBeforeItIsKnownIsNeverAccepted(t *testing.T) {
	t.Parallel()
	pool := st.Database(t, New())
	st.Apply(t, pool, cancelling(st.Cancelled("o1")))
	st.Apply(t, pool, placing(twoSellers("o1")))

	if got := entries(t, pool); len(got) != 0 {
		t.Errorf("accepted a cancelled order: %v", got)
	}
	if told := st.Outbox(t, pool); len(told) != 0 {
		t.Errorf("told of a cancelled order: %v", told)
	}
}

func TestRepeatedBatchMakesTheSameEvents(t *testing.T) {
	t.Parallel()
	var runs [2][]st.Told
	for i := range runs {
		pool := st.Database(t, New())
		if i == 1 { // as after a crash before the commit
			st.Undone(t, pool, placing(twoSellers("o1"), twoSellers("o2")))
		}
		st.Apply(t, pool, placing(twoSellers("o1"), twoSellers("o2")))
		st.Apply(t, pool, placing(twoSellers("o1"))) // again, defensive
		if i == 1 {
			st.Undone(t, pool, cancelling(st.Cancelled("o1")))
		}
		st.Apply(t, pool, cancelling(st.Cancelled("o1")))
		runs[i] = st.Outbox(t, pool)
		for n := range runs[i] {
			runs[i][n].Event = nil // holds the time of writing
		}
	}
	if diff := cmp.Diff(runs[0], runs[1]); diff != "" {
		t.Errorf("second run differs (-first +second):\n%s", diff)
	}
	if len(runs[0]) != 6 {
		t.Errorf("got %d events, want 6", len(runs[0]))
	}
}

// TestVersionsHaveNoHole places and cancels a few orders in a random order, in
// batches of random sizes.
func TestVersionsHaveNoHole(t *testing.T) {
	t.Parallel()
	pool := st.Database(t, New())
	story := 0
	rapid.Check(t, func(rt *rapid.T) {
		story++
		steps := rapid.SliceOfN(rapid.IntRange(0, 9), 1, 40).Draw(rt, "steps")
		size := rapid.IntRange(1, 8).Draw(rt, "batch size")
		for len(steps) > 0 {
			batch := steps[:min(size, len(steps))]
			steps = steps[len(batch):]
			st.Apply(t, pool, func(ctx context.Context, tx pgx.Tx) error { return applySteps(ctx, tx, story, batch) })
		}
		st.CheckVersions(rt, st.Outbox(t, pool))
	})
}

// applySteps runs one event after the other; step n is about order n/2, placed
// if n is even and cancelled if it is odd.
func applySteps(ctx context.Context, tx pgx.Tx, story int, steps []int) error {
	for _, n := range steps {
		order := fmt.Sprintf("story %d order %d", story, n/2)
		step := placing(twoSellers(order))
		if n%2 == 1 {
			step = cancelling(st.Cancelled(order))
		}
		if err := step(ctx, tx); err != nil {
			return err
		}
	}
	return nil
}

func TestTextThatPostgresCannotHoldIsADeadLetter(t *testing.T) {
	t.Parallel()
	pool := st.Database(t, New())
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		return placing(st.Placed("o1", st.Line("anna", "mug\x00", 1)))(t.Context(), tx)
	})
	if !consumers.IsPermanent(err) {
		t.Errorf("got %v, want a permanent error: trying again cannot help", err)
	}
}

func TestReadyBy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		placed string
		units  int
		want   string
	}{
		{"2026-03-04T09:30:00Z", 1, "2026-03-06T17:00:00Z"},   // Wednesday to Friday
		{"2026-03-04T09:30:00Z", 100, "2026-03-06T17:00:00Z"}, // the limit itself
		{"2026-03-04T09:30:00Z", 101, "2026-03-09T17:00:00Z"}, // bulk: over the weekend to Monday
		{"2026-03-06T23:59:00Z", 1, "2026-03-10T17:00:00Z"},   // Friday to Tuesday
		{"2026-03-07T00:00:00Z", 1, "2026-03-10T17:00:00Z"},   // Saturday to Tuesday
		{"2026-03-07T23:30:00-02:00", 1, "2026-03-10T17:00:00Z"},
	} {
		placed, err := time.Parse(time.RFC3339, c.placed)
		if err != nil {
			t.Fatal(err)
		}
		if got := readyBy(placed, c.units).Format(time.RFC3339); got != c.want {
			t.Errorf("%d pieces placed %s: ready by %s, want %s", c.units, c.placed, got, c.want)
		}
	}
}

func TestServiceAppliesEachEventFromKafkaOnce(t *testing.T) {
	t.Parallel()
	pool := st.Database(t, New())
	g := st.Start(t, New(), pool)
	for n := range 40 {
		order := fmt.Sprintf("o%d", n)
		g.Produce(t, twoSellers(order))
		if n%4 == 0 {
			g.Produce(t, st.Cancelled(order))
		}
	}
	g.WaitApplied(t)
	told := st.Outbox(t, pool)
	st.CheckVersions(t, told)
	if a, r := len(st.OfType[*schemas.SellerAccepted](told)), len(st.OfType[*schemas.SellerReleased](told)); a != 80 || r != 20 {
		t.Errorf("got %d SellerAccepted and %d SellerReleased, want 80 and 20", a, r)
	}
}

// BenchmarkAccept applies batches of 500 orders with 20 lines each.
func BenchmarkAccept(b *testing.B) {
	pool := st.Database(b, New())
	lines := make([]schemas.OrderLine, 20)
	for i := range lines {
		lines[i] = st.Line([]string{"anna", "ben"}[i%20/19], fmt.Sprintf("sku%d", i), i+1)
	}
	batch := 0
	for b.Loop() {
		b.StopTimer()
		batch++
		orders := make([]*schemas.OrderPlaced, 500)
		for i := range orders {
			orders[i] = st.Placed(fmt.Sprintf("%032d-%d", batch, i), lines...)
		}
		b.StartTimer()
		st.Apply(b, pool, placing(orders...))
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/batch")
}

// BenchmarkRelease cancels batches of 500 orders.
func BenchmarkRelease(b *testing.B) {
	pool := st.Database(b, New())
	batch := 0
	for b.Loop() {
		b.StopTimer()
		batch++
		orders, cancels := make([]*schemas.OrderPlaced, 500), make([]*schemas.OrderCancelled, 500)
		for i := range orders {
			id := fmt.Sprintf("%032d-%d", batch, i)
			orders[i], cancels[i] = twoSellers(id), st.Cancelled(id)
		}
		st.Apply(b, pool, placing(orders...))
		b.StartTimer()
		st.Apply(b, pool, cancelling(cancels...))
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/batch")
}
