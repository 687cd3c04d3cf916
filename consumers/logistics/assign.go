package logistics

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow/consumers"
	"orderflow/outbox-relay/outbox"
	"orderflow/schemas"
)

// assignSQL writes the shipments of the orders that are new here. One that was
// cancelled before is not new.
const assignSQL = `
WITH fresh AS (
    INSERT INTO orders (order_id, version)
    SELECT * FROM unnest($1::text[], $2::bigint[])
    ON CONFLICT (order_id) DO NOTHING
    RETURNING order_id
), written AS (
    INSERT INTO shipments (order_id, seller_id, place, shipment_id, state, carrier, rule, weight_g, eta)
    SELECT order_id, s.seller_id, s.place, s.shipment_id,
           CASE WHEN s.carrier IS NULL THEN 'unavailable' ELSE 'assigned' END,
           s.carrier, s.rule, s.weight_g, s.eta
    FROM unnest($3::text[], $4::text[], $5::int[], $6::uuid[], $7::text[], $8::text[], $9::bigint[], $10::timestamptz[])
         AS s (order_id, seller_id, place, shipment_id, carrier, rule, weight_g, eta)
    JOIN fresh USING (order_id)
)
SELECT order_id FROM fresh`

// assign finds a carrier for each package of an order.
func assign(ctx context.Context, tx pgx.Tx, placed []consumers.Event[*schemas.OrderPlaced]) error {
	var rows shipmentRows
	shipments := make(map[string][]shipment, len(placed))
	for _, e := range placed {
		id := e.Value.Meta.OrderID
		if _, again := shipments[id]; again {
			continue
		}
		shipments[id] = plan(e.Value)
		rows.add(id, shipments[id])
	}
	fresh, err := rows.insert(ctx, tx)
	if err != nil {
		return storing("assign carriers", err)
	}
	var told []schemas.Event
	for _, e := range placed {
		id := e.Value.Meta.OrderID
		if !fresh[id] {
			continue
		}
		delete(fresh, id)
		for place, s := range shipments[id] {
			event := s.event()
			outbox.Follow(&e.Value.Meta, Group, event, int64(place)+1, place)
			told = append(told, event)
		}
	}
	return tell(ctx, tx, told)
}

// shipment is a package with its carrier, if it found one.
type shipment struct {
	id uuid.UUID
	parcel
	choice
}

func plan(o *schemas.OrderPlaced) []shipment {
	parcels := pack(o.Lines)
	shipments := make([]shipment, len(parcels))
	for i, p := range parcels {
		shipments[i] = shipment{
			id:     shipmentID(o.Meta.OrderID, p.seller),
			parcel: p,
			choice: choose(p, o.ShipTo, o.Meta.OccurredAt),
		}
	}
	return shipments
}

// shipmentID is derived, so that a repeated handler makes the same one.
func shipmentID(order, seller string) uuid.UUID {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte(order+"|shipment|"+seller))
}

func (s *shipment) event() schemas.Event {
	if s.carrier == "" {
		return &schemas.CarrierUnavailable{
			ShipmentID: s.id.String(), SellerID: s.seller, Reason: s.reason,
			Final: true, Detail: &s.detail, // the table does not change by waiting
		}
	}
	weight := int(s.weightG) // within the carrier's limit, so it fits an Avro int
	return &schemas.CarrierAssigned{
		ShipmentID: s.id.String(), SellerID: s.seller, Carrier: s.carrier,
		ETA: &s.eta, WeightG: &weight, Rule: &s.rule,
	}
}

// shipmentRows are the parameters of assignSQL: one element an order, then one
// element a shipment.
type shipmentRows struct {
	orders   []string
	versions []int64

	of, sellers     []string
	places          []int32
	ids             []uuid.UUID
	carriers, rules []*string
	weights         []int64
	etas            []*time.Time
}

func (r *shipmentRows) add(order string, shipments []shipment) {
	r.orders = append(r.orders, order)
	r.versions = append(r.versions, int64(len(shipments)))
	for place := range shipments {
		s := &shipments[place]
		carrier, rule, eta := &s.carrier, &s.rule, &s.eta
		if s.carrier == "" {
			reason := string(s.reason)
			carrier, rule, eta = nil, &reason, nil
		}
		r.of, r.sellers = append(r.of, order), append(r.sellers, s.seller)
		r.places, r.ids = append(r.places, int32(place)), append(r.ids, s.id)
		r.carriers, r.rules = append(r.carriers, carrier), append(r.rules, rule)
		r.weights, r.etas = append(r.weights, s.weightG), append(r.etas, eta)
	}
}

// insert returns the orders that were new.
func (r *shipmentRows) insert(ctx context.Context, tx pgx.Tx) (map[string]bool, error) {
	rows, err := tx.Query(ctx, assignSQL, r.orders, r.versions,
		r.of, r.sellers, r.places, r.ids, r.carriers, r.rules, r.weights, r.etas)
	if err != nil {
		return nil, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	fresh := make(map[string]bool, len(ids))
	for _, id := range ids {
		fresh[id] = true
	}
	return fresh, err
}
