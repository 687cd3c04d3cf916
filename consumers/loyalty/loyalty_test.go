package loyalty

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	st "orderflow/consumers/internal/servicetest"
	"orderflow/schemas"
)

func TestCustomerKeepsThePointsOfOrdersThatStand(t *testing.T) {
	t.Parallel()
	pool := st.Database(t, New())
	g := st.Start(t, New(), pool)
	exact := st.Placed("exact", st.Line("uci", "mug", 1))
	exact.Totals.Grand = schemas.Money{Minor: 123_4567, Currency: "GBP", Scale: 4}
	g.Produce(t, st.Placed("kept", st.Line("uci", "mug", 4)), // 10.20
		st.Placed("cancelled", st.Line("uci", "lamp", 100)), st.Cancelled("cancelled"), exact)
	g.WaitApplied(t)

	if got := st.Count(t, pool, `SELECT sum(points) FROM points WHERE customer_id = '17850'`); got != 10+123 {
		t.Errorf("customer has %d points, want 133", got)
	}
}

func TestOrderCancelledBeforeItIsKnownEarnsNothing(t *testing.T) {
	t.Parallel()
	pool := st.Database(t, New())
	st.Apply(t, pool, func(ctx context.Context, tx pgx.Tx) error {
		if err := takeBack(ctx, tx, st.Batch(st.Cancelled("o1"), st.Cancelled("o1"))); err != nil {
			return err
		}
		return award(ctx, tx, st.Batch(st.Placed("o1", st.Line("uci", "mug", 4))))
	})
	if got := st.Count(t, pool, `SELECT sum(points) FROM points`); got != 0 {
		t.Errorf("got %d points, want none", got)
	}
}
