package notification

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"orderflow/consumers"
	"orderflow/internal/pg"
	"orderflow/schemas"
)

// Templates, and names of effects.
const (
	orderReceived  = "order-received"
	orderCancelled = "order-cancelled"
)

// effectKey names one effect of one event for ever.
func effectKey(cause *schemas.EventMeta, template string) string {
	return Group + "/" + cause.EventID + "/" + template
}

// placed writes the mail about each order that is new here. One that was
// cancelled before is not new.
func (s *service) placed(ctx context.Context, tx pgx.Tx, events []consumers.Event[*schemas.OrderPlaced]) error {
	events, err := fresh(ctx, tx, orderReceived, events)
	if err != nil || len(events) == 0 {
		return err
	}
	var orders, customers []string
	for _, e := range events {
		orders, customers = append(orders, e.Value.Meta.OrderID), append(customers, e.Value.CustomerID)
	}
	numbers, err := numberMails(ctx, tx, `
		INSERT INTO orders (order_id, customer_id, mails)
		SELECT order_id, customer_id, 1 FROM unnest($1::text[], $2::text[]) AS p (order_id, customer_id)
		ON CONFLICT (order_id) DO NOTHING
		RETURNING order_id, mails`, orders, customers)
	if err != nil {
		return err
	}
	var mails []newMail
	for _, e := range events {
		mails = addMail(mails, numbers, &e.Value.Meta, orderReceived, aboutOrder(e.Value))
	}
	return s.enqueue(ctx, tx, mails)
}

// cancelled writes the mail about each cancellation. An order that is not
// known is marked, so that it never gets a mail: nobody was told of it.
func (s *service) cancelled(ctx context.Context, tx pgx.Tx, events []consumers.Event[*schemas.OrderCancelled]) error {
	events, err := fresh(ctx, tx, orderCancelled, events)
	if err != nil || len(events) == 0 {
		return err
	}
	orders := make([]string, len(events))
	for i, e := range events {
		orders[i] = e.Value.Meta.OrderID
	}
	slices.Sort(orders) // rows are locked in one order everywhere
	numbers, err := numberMails(ctx, tx, `
		INSERT INTO orders (order_id, cancelled)
		SELECT id, true FROM unnest($1::text[]) AS id
		ON CONFLICT (order_id) DO UPDATE SET cancelled = true, mails = orders.mails + 1
		WHERE NOT orders.cancelled
		RETURNING order_id, mails`, slices.Compact(orders))
	if err != nil {
		return err
	}
	var mails []newMail
	for _, e := range events {
		mails = addMail(mails, numbers, &e.Value.Meta, orderCancelled, aboutCancellation(e.Value))
	}
	return s.enqueue(ctx, tx, mails)
}

// fresh leaves out the events whose mail was asked for already.
func fresh[E schemas.Event](ctx context.Context, tx pgx.Tx, template string, events []consumers.Event[E]) ([]consumers.Event[E], error) {
	keys := make([]string, len(events))
	for i, e := range events {
		keys[i] = effectKey(e.Value.Envelope(), template)
	}
	recorded, err := consumers.Fresh(ctx, tx, keys)
	if err != nil {
		return nil, err
	}
	isNew := make(map[string]bool, len(recorded))
	for _, k := range recorded {
		isNew[k] = true
	}
	var left []consumers.Event[E]
	for i, e := range events {
		if isNew[keys[i]] {
			left = append(left, e)
		}
	}
	return left, nil
}

// numberMails runs a statement that counts one more mail for some orders, and
// returns their numbers. It locks the orders' rows, which comes before
// everything else that is done to an order.
func numberMails(ctx context.Context, tx pgx.Tx, query string, args ...any) (map[string]int64, error) {
	numbers := map[string]int64{}
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return nil, storing("number mails", err)
	}
	var order string
	var number int64
	_, err = pgx.ForEachRow(rows, []any{&order, &number}, func() error {
		if number > 0 { // 0: cancelled before it was known
			numbers[order] = number
		}
		return nil
	})
	return numbers, storing("number mails", err)
}

// storing wraps an error of the database. One that the data itself causes,
// such as text with a zero byte, is final.
func storing(what string, err error) error {
	if err == nil {
		return nil
	}
	wrapped := fmt.Errorf("%s: %w", what, err)
	if pg.DataError(err) {
		return consumers.Permanent(wrapped)
	}
	return wrapped
}
