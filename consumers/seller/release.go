package seller

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"orderflow/consumers"
	"orderflow/outbox-relay/outbox"
	"orderflow/schemas"
)

// releaseSQL releases what was accepted and marks the orders as cancelled,
// also those it does not know, which must never be accepted later. It returns
// what was released with the version of the event that tells of it.
const releaseSQL = `
WITH released AS (
    UPDATE entries SET state = 'released'
    WHERE order_id = ANY ($1) AND state = 'accepted'
    RETURNING order_id, seller_id, place
), counted AS (
    INSERT INTO orders (order_id, version, cancelled)
    SELECT id, coalesce(n, 0), true
    FROM unnest($1::text[]) AS id
    LEFT JOIN (SELECT order_id, count(*) AS n FROM released GROUP BY order_id) AS r ON order_id = id
    ON CONFLICT (order_id)
    DO UPDATE SET version = orders.version + excluded.version, cancelled = true
    RETURNING order_id, version
)
SELECT order_id, seller_id, place,
       version - count(*) OVER (PARTITION BY order_id) + row_number() OVER (PARTITION BY order_id ORDER BY place)
FROM released JOIN counted USING (order_id)
ORDER BY order_id, place`

// release takes the entries of cancelled orders back.
func release(ctx context.Context, tx pgx.Tx, cancelled []consumers.Event[*schemas.OrderCancelled]) error {
	ids := make([]string, len(cancelled))
	for i, e := range cancelled {
		ids[i] = e.Value.Meta.OrderID
	}
	slices.Sort(ids)
	rows, err := tx.Query(ctx, releaseSQL, slices.Compact(ids))
	if err != nil {
		return storing("release orders", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[released])
	if err != nil {
		return storing("release orders", err)
	}
	of := make(map[string][]released, len(ids))
	for _, r := range all {
		of[r.Order] = append(of[r.Order], r)
	}
	var told []schemas.Event
	for _, e := range cancelled {
		cause := &e.Value.Meta
		for _, r := range of[cause.OrderID] {
			event := &schemas.SellerReleased{SellerID: r.Seller, Cause: schemas.UndoCauseOrderCancelled}
			outbox.Follow(cause, Group, event, r.Version, int(r.Place))
			told = append(told, event)
		}
		delete(of, cause.OrderID)
	}
	return tell(ctx, tx, told)
}

// released is an entry that was taken back.
type released struct {
	Order, Seller string
	Place         int32
	Version       int64 // of the event that tells of it
}
