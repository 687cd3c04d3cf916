package bench

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow/outbox-relay/outbox"
	"orderflow/schemas"
)

// RelayOptions size the bench of the relay.
type RelayOptions struct {
	Options
	// Events is the backlog that is drained. SmallEvents is the backlog that
	// memory is compared with.
	Events, SmallEvents int
}

const (
	minDrainRatio  = 0.3
	maxRelayMiB    = 128
	flatWithin     = 1.35 // peak memory at the large backlog over that at the small one
	fillBatch      = 5000
	preparedOrders = 500
)

// relayColumns are what the relay reads of a row.
const relayColumns = `seq, created_at, event_id, aggregate_id, event_type, topic, schema_fp, payload, headers`

// Relay drains a backlog with the poll source into a real Kafka, beside binary
// COPY of the same rows to a null sink.
func Relay(ctx context.Context, o RelayOptions) ([]Row, error) {
	if o.SmallEvents <= 0 || o.Events < o.SmallEvents {
		return nil, fmt.Errorf("bench relay: want 0 < small events (%d) <= events (%d)", o.SmallEvents, o.Events)
	}
	l, err := newLab(ctx, o.Options)
	if err != nil {
		return nil, err
	}
	defer l.close()
	if err := l.startKafka(ctx, o.Options); err != nil {
		return nil, err
	}
	if err := l.migrateOutbox(ctx); err != nil {
		return nil, err
	}
	if err := l.fill(ctx, o.SmallEvents); err != nil {
		return nil, err
	}
	small, err := l.drain(ctx, o, o.SmallEvents, "small")
	if err != nil {
		return nil, err
	}
	if err := l.fill(ctx, o.Events-o.SmallEvents); err != nil {
		return nil, err
	}
	var rate, perCPU, peak, same, all []float64
	for round := range o.Rounds {
		a, err := l.copyOut(ctx, relayColumns)
		if err != nil {
			return nil, err
		}
		b, err := l.copyOut(ctx, "*")
		if err != nil {
			return nil, err
		}
		d, err := l.drain(ctx, o, o.Events, fmt.Sprintf("round-%d", round))
		if err != nil {
			return nil, err
		}
		same, all = append(same, float64(o.Events)/a.Seconds()), append(all, float64(o.Events)/b.Seconds())
		rate, perCPU, peak = append(rate, d.perSecond), append(perCPU, d.perCPUSecond), append(peak, d.peakMiB)
		l.log.Info("measured", "round", round+1, "events_per_second", d.perSecond, "copy_rows_per_second", float64(o.Events)/a.Seconds())
	}
	flat := compared("relay peak memory", "MiB", fmt.Sprintf("the same at a backlog of %d", o.SmallEvents), peak, repeat(small.peakMiB, len(peak)), 0)
	flat.Goal = fmt.Sprintf("<= %d MiB, flat", maxRelayMiB)
	flat.Holds = flat.Value <= maxRelayMiB && flat.Ratio <= flatWithin
	return []Row{
		compared("relay drain, poll, into Kafka", "events/s", "binary COPY of the same rows and columns to a null sink", rate, same, minDrainRatio),
		compared("relay drain, poll, all columns", "events/s", "binary COPY of the same rows, all columns", rate, all, 0),
		{Name: "relay events per CPU second", Value: median(perCPU), Unit: "events"},
		flat,
	}, nil
}

func repeat(v float64, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = v
	}
	return out
}

// fill appends n real OrderPlaced events, in transactions of many.
func (l *lab) fill(ctx context.Context, n int) error {
	rows, err := prepareOrders(ctx, preparedOrders)
	if err != nil {
		return err
	}
	l.log.Info("fill the outbox", "events", n)
	for done := 0; done < n; {
		batch := min(fillBatch, n-done)
		i := 0
		_, err := l.db.CopyFrom(ctx, pgx.Identifier{outbox.Schema, "events"}, outbox.CopyColumns(), pgx.CopyFromFunc(func() ([]any, error) {
			if i == batch {
				return nil, nil
			}
			r := rows[(done+i)%len(rows)]
			i++
			return []any{
				uuid.Must(uuid.NewV7()), r.AggregateType, uuid.Must(uuid.NewV7()).String(), r.AggregateVersion,
				r.EventType, r.Topic, r.SchemaFP, r.Payload, r.Headers,
			}, nil
		}))
		if err != nil {
			return fmt.Errorf("fill the outbox: %w", err)
		}
		done += batch
	}
	_, err = l.db.Exec(ctx, `ANALYZE outbox.events`)
	return err
}

// prepareOrders makes the outbox rows of orders with 1 to 9 lines, 5 in the
// mean.
func prepareOrders(ctx context.Context, n int) ([]outbox.Row, error) {
	r := rand.New(rand.NewPCG(1, 2))
	ctx = outbox.WithTraceparent(ctx, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	rows := make([]outbox.Row, n)
	for i := range rows {
		var err error
		if rows[i], err = outbox.Prepare(ctx, order(r)); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

func order(r *rand.Rand) *schemas.OrderPlaced {
	gbp := func(minor int64) schemas.Money { return schemas.Money{Minor: minor, Currency: "GBP", Scale: 2} }
	o := &schemas.OrderPlaced{
		Meta: schemas.EventMeta{
			EventID: uuid.Must(uuid.NewV7()).String(), OrderID: uuid.Must(uuid.NewV7()).String(), OrderVersion: 1,
			OccurredAt: time.Now().UTC(), CorrelationID: uuid.Must(uuid.NewV7()).String(), Producer: "orders", Flow: schemas.FlowChoreography,
		},
		CustomerID: fmt.Sprint(10000 + r.IntN(9000)), Channel: "bench",
		ShipTo:  schemas.Address{Country: "GB"},
		Payment: schemas.Payment{Method: schemas.PaymentMethodCard, Installments: 1},
	}
	var sum int64
	for n := range 1 + r.IntN(9) {
		title, price, quantity := "WHITE HANGING HEART T-LIGHT HOLDER", int64(50+r.IntN(2000)), 1+r.IntN(12)
		sum += price * int64(quantity)
		o.Lines = append(o.Lines, schemas.OrderLine{
			LineNo: n + 1, SKU: fmt.Sprint(10000 + r.IntN(80000)), Title: &title, Quantity: quantity,
			UnitPrice: gbp(price), Freight: gbp(0), SellerID: "uci",
		})
	}
	o.Totals = schemas.Totals{Items: gbp(sum), Freight: gbp(0), Discount: gbp(0), Tax: gbp(0), Grand: gbp(sum)}
	return o
}

// copyOut times COPY of the outbox to nowhere.
func (l *lab) copyOut(ctx context.Context, columns string) (time.Duration, error) {
	conn, err := l.db.Acquire(ctx)
	if err != nil {
		return 0, fmt.Errorf("copy out: %w", err)
	}
	defer conn.Release()
	began := time.Now()
	_, err = conn.Conn().PgConn().CopyTo(ctx, io.Discard, `COPY (SELECT `+columns+` FROM outbox.events) TO STDOUT (FORMAT binary)`)
	if err != nil {
		return 0, fmt.Errorf("copy out: %w", err)
	}
	return time.Since(began), nil
}
