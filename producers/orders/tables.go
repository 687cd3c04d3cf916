package orders

import (
	"strings"

	"orderflow/outbox-relay/outbox"
)

// table is one table that a placed order adds rows to: how, and which fields
// in which order.
type table struct {
	name    string // also of its prepared statement
	insert  string // one array parameter a column
	copy    string
	columns int
	add     func(*rows, *prepared)
}

// insertKeys claims the keys of a batch. It returns the ids of the orders
// whose key was new, and never the key, which another row of the batch may
// have too. DO NOTHING waits for another transaction that holds the same key,
// which is why a batch is sorted by key.
const insertKeys = `
INSERT INTO orders.idempotency_keys (client_id, key, fingerprint, order_id, response, created_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::uuid[], $5::bytea[], $6::timestamptz[])
ON CONFLICT (client_id, key) DO NOTHING
RETURNING order_id`

func addKey(r *rows, p *prepared) {
	r.text(p.client)
	r.text(p.key)
	r.bytes(p.fingerprint[:])
	r.id(p.id)
	r.bytes(p.receipt)
	r.time(p.acceptedAt)
}

// placedTables are the tables behind the keys, in the order in which they are
// written: the outbox comes after the row of the order that it tells of.
var placedTables = [...]table{
	{
		name: "orders_insert_orders",
		insert: `
INSERT INTO orders.orders (order_id, customer_id, channel, currency, scale, grand_minor, line_count, placed_at, changed_at, doc)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::bigint[], $7::int[],
                     $8::timestamptz[], $9::timestamptz[], $10::bytea[])`,
		copy: `COPY orders.orders (order_id, customer_id, channel, currency, scale, grand_minor, line_count, placed_at, changed_at, doc)
FROM STDIN (FORMAT binary)`,
		columns: 10,
		add:     addOrder,
	},
	{
		name: "orders_insert_lines",
		insert: `
INSERT INTO orders.order_lines (order_id, line_no, sku, seller_id, quantity, unit_minor, freight_minor)
SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::int[], $6::bigint[], $7::bigint[])`,
		copy: `COPY orders.order_lines (order_id, line_no, sku, seller_id, quantity, unit_minor, freight_minor)
FROM STDIN (FORMAT binary)`,
		columns: 7,
		add:     addLines,
	},
	{
		name:    "orders_insert_outbox",
		insert:  outbox.InsertSQL,
		copy:    `COPY outbox.events (` + strings.Join(outbox.CopyColumns(), ", ") + `) FROM STDIN (FORMAT binary)`,
		columns: len(outbox.CopyColumns()),
		add:     addEvent,
	},
}

func addOrder(r *rows, p *prepared) {
	r.id(p.id)
	r.text(p.order.CustomerID)
	r.text(p.order.Channel)
	r.text(p.order.currency)
	r.int16(p.order.scale)
	r.int64(p.order.totals.grand)
	r.int32(len(p.order.Lines))
	r.time(p.placedAt)
	r.time(p.acceptedAt)
	r.bytes(p.doc)
}

func addLines(r *rows, p *prepared) {
	for i := range p.order.Lines {
		l := &p.order.Lines[i]
		r.id(p.id)
		r.int32(i + 1)
		r.text(l.SKU)
		r.text(l.SellerID)
		r.int32(l.Quantity)
		r.int64(l.UnitPrice.minor)
		r.int64(l.Freight.minor)
	}
}

func addEvent(r *rows, p *prepared) {
	e := &p.event
	r.id(e.EventID)
	r.text(e.AggregateType)
	r.text(e.AggregateID)
	r.int64(e.AggregateVersion)
	r.text(e.EventType)
	r.text(e.Topic)
	r.int64(e.SchemaFP)
	r.bytes(e.Payload)
	r.bytes(e.Headers)
}
