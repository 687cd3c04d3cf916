package logistics

import (
	"context"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow/consumers"
	"orderflow/outbox-relay/outbox"
	"orderflow/schemas"
)

// cancelSQL cancels the shipments that have a carrier and marks the orders as
// cancelled, also those it does not know, which must never be shipped later.
// It returns what was cancelled with the version of the event that tells of it.
const cancelSQL = `
WITH cancelled AS (
    UPDATE shipments SET state = 'cancelled'
    WHERE order_id = ANY ($1) AND state = 'assigned'
    RETURNING order_id, seller_id, place, shipment_id
), counted AS (
    INSERT INTO orders (order_id, version, cancelled)
    SELECT id, coalesce(n, 0), true
    FROM unnest($1::text[]) AS id
    LEFT JOIN (SELECT order_id, count(*) AS n FROM cancelled GROUP BY order_id) AS c ON order_id = id
    ON CONFLICT (order_id)
    DO UPDATE SET version = orders.version + excluded.version, cancelled = true
    RETURNING order_id, version
)
SELECT order_id, seller_id, place, shipment_id,
       version - count(*) OVER (PARTITION BY order_id) + row_number() OVER (PARTITION BY order_id ORDER BY place)
FROM cancelled JOIN counted USING (order_id)
ORDER BY order_id, place`

// cancel calls the carriers of cancelled orders off.
func cancel(ctx context.Context, tx pgx.Tx, cancelled []consumers.Event[*schemas.OrderCancelled]) error {
	ids := make([]string, len(cancelled))
	for i, e := range cancelled {
		ids[i] = e.Value.Meta.OrderID
	}
	slices.Sort(ids)
	rows, err := tx.Query(ctx, cancelSQL, slices.Compact(ids))
	if err != nil {
		return storing("cancel shipments", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[calledOff])
	if err != nil {
		return storing("cancel shipments", err)
	}
	of := make(map[string][]calledOff, len(ids))
	for _, c := range all {
		of[c.Order] = append(of[c.Order], c)
	}
	var told []schemas.Event
	for _, e := range cancelled {
		cause := &e.Value.Meta
		for _, c := range of[cause.OrderID] {
			event := &schemas.ShipmentCancelled{
				ShipmentID: c.Shipment.String(), SellerID: c.Seller, Cause: schemas.UndoCauseOrderCancelled,
			}
			outbox.Follow(cause, Group, event, c.Version, int(c.Place))
			told = append(told, event)
		}
		delete(of, cause.OrderID)
	}
	return tell(ctx, tx, told)
}

// calledOff is a shipment that was cancelled.
type calledOff struct {
	Order, Seller string
	Place         int32
	Shipment      uuid.UUID
	Version       int64 // of the event that tells of it
}
