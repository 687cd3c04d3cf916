package logistics

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"orderflow/consumers"
	st "orderflow/consumers/internal/servicetest"
	"orderflow/schemas"
)

// sized is a line of pieces with a weight and a size.
func sized(seller string, quantity, weightG int, size schemas.Size) schemas.OrderLine {
	l := st.Line(seller, "sku of "+seller, quantity)
	l.WeightG, l.Size = &weightG, &size
	return l
}

// twoPackages is an order of a light package and of one that nobody can carry.
func twoPackages(order string) *schemas.OrderPlaced {
	return st.Placed(order, sized("anna", 2, 300, schemas.Size{}), sized("ben", 1, 300, schemas.Size{LengthCM: 900}), sized("carl", 1, 300, schemas.Size{}))
}

func placing(events ...*schemas.OrderPlaced) func(context.Context, pgx.Tx) error {
	return func(ctx context.Context, tx pgx.Tx) error { return assign(ctx, tx, st.Batch(events...)) }
}

func cancelling(events ...*schemas.OrderCancelled) func(context.Context, pgx.Tx) error {
	return func(ctx context.Context, tx pgx.Tx) error { return cancel(ctx, tx, st.Batch(events...)) }
}

func TestEachPackageGetsACarrierOrAReason(t *testing.T) {
	t.Parallel()
	pool := st.Database(t, New())
	st.Apply(t, pool, placing(twoPackages("o1")))

	rows, err := pool.Query(t.Context(), `
		SELECT concat_ws(' ', seller_id, state, carrier, rule, weight_g, eta AT TIME ZONE 'UTC') FROM shipments ORDER BY place`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"anna assigned letterbox domestic-letterbox 600 2026-03-08 18:00:00",
		"ben unavailable TOO_LARGE 300",
		"carl assigned letterbox domestic-letterbox 300 2026-03-08 18:00:00",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("shipments (-want +got):\n%s", diff)
	}
	told := st.Outbox(t, pool)
	st.CheckVersions(t, told)
	assigned, refused := st.OfType[*schemas.CarrierAssigned](told), st.OfType[*schemas.CarrierUnavailable](told)
	if len(assigned) != 2 || len(refused) != 1 || len(told) != 3 {
		t.Fatalf("got %d CarrierAssigned and %d CarrierUnavailable, want 2 and 1", len(assigned), len(refused))
	}
	if a := assigned[0]; a.SellerID != "anna" || a.Carrier != "letterbox" || *a.WeightG != 600 || *a.Rule != "domestic-letterbox" ||
		a.ShipmentID != shipmentID("o1", "anna").String() || *a.Meta.CausationID != st.ID("o1", "placed") {
		t.Errorf("got %+v", a)
	}
	if r := refused[0]; r.SellerID != "ben" || r.Reason != schemas.CarrierUnavailableReasonTooLarge || !r.Final || *r.Detail == "" {
		t.Errorf("got %+v", r)
	}
}

func TestCancelledOrderCallsEveryAssignedCarrierOffOnce(t *testing.T) {
	t.Parallel()
	pool := st.Database(t, New())
	st.Apply(t, pool, placing(twoPackages("o1"), twoPackages("o2")))
	st.Apply(t, pool, cancelling(st.Cancelled("o1"), st.Cancelled("o1")))
	st.Apply(t, pool, cancelling(st.Cancelled("o1")))

	for state, want := range map[string]int64{"cancelled": 2, "unavailable": 2, "assigned": 2} {
		if got := st.Count(t, pool, `SELECT count(*) FROM shipments WHERE state = $1`, state); got != want {
			t.Errorf("%d shipments are %s, want %d", got, state, want)
		}
	}
	told := st.Outbox(t, pool)
	st.CheckVersions(t, told)
	var got []string
	for _, e := range st.OfType[*schemas.ShipmentCancelled](told) {
		if e.ShipmentID != shipmentID(e.Meta.OrderID, e.SellerID).String() {
			t.Errorf("shipment %s of %s is not the one that was assigned", e.ShipmentID, e.SellerID)
		}
		got = append(got, fmt.Sprint(e.Meta.OrderID, " ", e.Meta.OrderVersion, " ", e.SellerID, " ", e.Cause))
	}
	if diff := cmp.Diff([]string{"o1 4 anna ORDER_CANCELLED", "o1 5 carl ORDER_CANCELLED"}, got); diff != "" {
		t.Errorf("cancellations (-want +got):\n%s", diff)
	}
}

func TestOrderCancelledBeforeItIsKnownIsNeverShipped(t *testing.T) {
	t.Parallel()
	pool := st.Database(t, New())
	st.Apply(t, pool, cancelling(st.Cancelled("o1")))
	st.Apply(t, pool, placing(twoPackages("o1")))
	if n := st.Count(t, pool, `SELECT count(*) FROM shipments`); n != 0 {
		t.Errorf("made %d shipments of a cancelled order", n)
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
			st.Undone(t, pool, placing(twoPackages("o1"), twoPackages("o2")))
		}
		st.Apply(t, pool, placing(twoPackages("o1"), twoPackages("o2")))
		st.Apply(t, pool, placing(twoPackages("o1"))) // again, defensive
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
	if len(runs[0]) != 8 {
		t.Errorf("got %d events, want 8", len(runs[0]))
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
		step := placing(twoPackages(order))
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
		return placing(st.Placed("o1", st.Line("an\x00na", "mug", 1)))(t.Context(), tx)
	})
	if !consumers.IsPermanent(err) {
		t.Errorf("got %v, want a permanent error: trying again cannot help", err)
	}
}

func TestHugeOrderIsRefusedAndDoesNotOverflow(t *testing.T) {
	t.Parallel()
	pool := st.Database(t, New())
	heavy, large := make([]schemas.OrderLine, 2000), make([]schemas.OrderLine, 2000)
	for i := range heavy {
		heavy[i] = sized("anna", math.MaxInt32, math.MaxInt32, schemas.Size{})
		large[i] = sized("ben", math.MaxInt32, 1, schemas.Size{LengthCM: math.MaxInt32, WidthCM: math.MaxInt32, HeightCM: math.MaxInt32})
		heavy[i].UnitPrice, large[i].UnitPrice = st.Money(0), st.Money(0)
	}
	st.Apply(t, pool, placing(st.Placed("o1", heavy...), st.Placed("o2", large...)))
	refused := st.OfType[*schemas.CarrierUnavailable](st.Outbox(t, pool))
	if len(refused) != 2 || refused[0].Reason != schemas.CarrierUnavailableReasonTooHeavy || refused[1].Reason != schemas.CarrierUnavailableReasonTooLarge {
		t.Errorf("got %+v, want a package that is too heavy and one that is too large", refused)
	}
	if h, l := pack(heavy)[0].weightG, pack(large)[0].weightG; h != most || l != most/volumeDivisor {
		t.Errorf("the packages weigh %d and %d g, want the most there is", h, l)
	}
}

func TestServiceAppliesEachEventFromKafkaOnce(t *testing.T) {
	t.Parallel()
	pool := st.Database(t, New())
	g := st.Start(t, New(), pool)
	for n := range 40 {
		order := fmt.Sprintf("o%d", n)
		g.Produce(t, twoPackages(order))
		if n%4 == 0 {
			g.Produce(t, st.Cancelled(order))
		}
	}
	g.WaitApplied(t)
	told := st.Outbox(t, pool)
	st.CheckVersions(t, told)
	if a, c := len(st.OfType[*schemas.CarrierAssigned](told)), len(st.OfType[*schemas.ShipmentCancelled](told)); a != 80 || c != 20 {
		t.Errorf("got %d CarrierAssigned and %d ShipmentCancelled, want 80 and 20", a, c)
	}
}

// BenchmarkAssign applies batches of 500 orders with 20 lines each.
func BenchmarkAssign(b *testing.B) {
	pool := st.Database(b, New())
	lines := make([]schemas.OrderLine, 20)
	for i := range lines {
		lines[i] = sized([]string{"anna", "ben"}[i/19], i+1, 300, schemas.Size{LengthCM: 20, WidthCM: 15, HeightCM: 10})
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
