package seller

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"orderflow/consumers"
	"orderflow/outbox-relay/outbox"
	"orderflow/schemas"
)

// acceptSQL enters the shares of the orders that are new here. One that was
// cancelled before is not new.
const acceptSQL = `
WITH fresh AS (
    INSERT INTO orders (order_id, version)
    SELECT * FROM unnest($1::text[], $2::bigint[])
    ON CONFLICT (order_id) DO NOTHING
    RETURNING order_id
), entered AS (
    INSERT INTO entries (order_id, seller_id, place, state, ready_by, lines)
    SELECT order_id, e.seller_id, e.place, 'accepted', e.ready_by, e.lines
    FROM unnest($3::text[], $4::text[], $5::int[], $6::timestamptz[], $7::jsonb[])
         AS e (order_id, seller_id, place, ready_by, lines)
    JOIN fresh USING (order_id)
)
SELECT order_id FROM fresh`

// accept gives each seller of an order an entry with their lines.
func accept(ctx context.Context, tx pgx.Tx, placed []consumers.Event[*schemas.OrderPlaced]) error {
	var rows entryRows
	shares := make(map[string][]share, len(placed))
	for _, e := range placed {
		id := e.Value.Meta.OrderID
		if _, again := shares[id]; again {
			continue
		}
		shares[id] = split(e.Value)
		if err := rows.add(id, shares[id]); err != nil {
			return fmt.Errorf("accept order %s: %w", id, err)
		}
	}
	fresh, err := rows.insert(ctx, tx)
	if err != nil {
		return storing("accept orders", err)
	}
	var told []schemas.Event
	for _, e := range placed {
		if id := e.Value.Meta.OrderID; fresh[id] {
			delete(fresh, id)
			told = appendAccepted(told, &e.Value.Meta, shares[id])
		}
	}
	return tell(ctx, tx, told)
}

// appendAccepted makes one event a seller, versions 1, 2, 3 ... in the order
// in which the sellers appear.
func appendAccepted(told []schemas.Event, cause *schemas.EventMeta, shares []share) []schemas.Event {
	for place, s := range shares {
		e := &schemas.SellerAccepted{SellerID: s.seller, Lines: s.lines, ReadyBy: &s.readyBy}
		outbox.Follow(cause, Group, e, int64(place)+1, place)
		told = append(told, e)
	}
	return told
}

// share is what one seller has to pack for an order.
type share struct {
	seller  string
	lines   []schemas.SellerLine
	readyBy time.Time
}

// split shares an order out to its sellers, in the order of their first lines.
func split(o *schemas.OrderPlaced) []share {
	var shares []share
	place := map[string]int{}
	units := map[string]int{}
	for _, l := range o.Lines {
		at, known := place[l.SellerID]
		if !known {
			at = len(shares)
			place[l.SellerID] = at
			shares = append(shares, share{seller: l.SellerID})
		}
		shares[at].lines = append(shares[at].lines, schemas.SellerLine{LineNo: l.LineNo, SKU: l.SKU, Quantity: l.Quantity})
		units[l.SellerID] += l.Quantity
	}
	for i := range shares {
		shares[i].readyBy = readyBy(o.Meta.OccurredAt, units[shares[i].seller])
	}
	return shares
}

const (
	packingDays = 2
	bulkUnits   = 100 // more than so many pieces take a day longer
	pickUpHour  = 17  // UTC
)

// readyBy is when a package of so many pieces is ready to be picked up: at
// 17:00 UTC of the second working day after the order was placed, of the
// third if there are more than 100 pieces. Working days are Monday to Friday.
func readyBy(placed time.Time, units int) time.Time {
	days := packingDays
	if units > bulkUnits {
		days++
	}
	year, month, day := placed.UTC().Date()
	at := time.Date(year, month, day, pickUpHour, 0, 0, 0, time.UTC)
	for days > 0 {
		at = at.AddDate(0, 0, 1)
		if d := at.Weekday(); d != time.Saturday && d != time.Sunday {
			days--
		}
	}
	return at
}

// entryRows are the parameters of acceptSQL: one element an order, then one
// element a share.
type entryRows struct {
	orders   []string
	versions []int64

	entryOrders, sellers []string
	places               []int32
	readyBy              []time.Time
	lines                []json.RawMessage
}

// storedLine is a line in the column entries.lines.
type storedLine struct {
	LineNo   int    `json:"line_no"`
	SKU      string `json:"sku"`
	Quantity int    `json:"quantity"`
}

func (r *entryRows) add(order string, shares []share) error {
	r.orders = append(r.orders, order)
	r.versions = append(r.versions, int64(len(shares)))
	for place, s := range shares {
		lines := make([]storedLine, len(s.lines))
		for i, l := range s.lines {
			lines[i] = storedLine(l)
		}
		text, err := json.Marshal(lines)
		if err != nil {
			return consumers.Permanent(err)
		}
		r.entryOrders, r.sellers = append(r.entryOrders, order), append(r.sellers, s.seller)
		r.places, r.readyBy = append(r.places, int32(place)), append(r.readyBy, s.readyBy)
		r.lines = append(r.lines, text)
	}
	return nil
}

// insert returns the orders that were new.
func (r *entryRows) insert(ctx context.Context, tx pgx.Tx) (map[string]bool, error) {
	rows, err := tx.Query(ctx, acceptSQL, r.orders, r.versions, r.entryOrders, r.sellers, r.places, r.readyBy, r.lines)
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
