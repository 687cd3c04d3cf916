package orders

import (
	"encoding/hex"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// appendDocument writes the accepted order as JSON in one canonical form: the
// same order asked for with other white space, member order, trailing zeros or
// explicit nulls gives the same bytes. It is what the database keeps, what a
// reader is shown, and what the idempotency fingerprint covers.
func appendDocument(b []byte, o *Order) []byte {
	b = append(b, `{"customer_id":`...)
	b = appendText(b, o.CustomerID)
	b = append(b, `,"channel":`...)
	b = appendText(b, o.Channel)
	b = append(b, `,"lines":[`...)
	for i := range o.Lines {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendLine(b, o, i)
	}
	b = append(b, `],"totals":{"items":`...)
	b = appendMoney(b, o.totals.items, o)
	b = append(b, `,"freight":`...)
	b = appendMoney(b, o.totals.freight, o)
	b = append(b, `,"discount":`...)
	b = appendMoney(b, o.totals.discount, o)
	b = append(b, `,"tax":`...)
	b = appendMoney(b, o.totals.tax, o)
	b = append(b, `,"grand":`...)
	b = appendMoney(b, o.totals.grand, o)
	b = append(b, `},"ship_to":{"country":`...)
	b = appendText(b, o.ShipTo.Country)
	b = appendOptional(b, `,"region":`, o.ShipTo.Region)
	b = appendOptional(b, `,"city":`, o.ShipTo.City)
	b = appendOptional(b, `,"postal_prefix":`, o.ShipTo.PostalPrefix)
	b = append(b, `},"payment":{"method":`...)
	b = appendText(b, o.Payment.Method)
	b = append(b, `,"installments":`...)
	b = strconv.AppendInt(b, int64(o.Payment.Installments), 10)
	b = append(b, '}')
	if !o.PromisedBy.IsZero() {
		b = append(b, `,"promised_by":`...)
		b = appendTime(b, o.PromisedBy)
	}
	if o.Source != (Source{}) {
		b = append(b, `,"source":{"system":`...)
		b = appendText(b, o.Source.System)
		b = append(b, `,"ref":`...)
		b = appendText(b, o.Source.Ref)
		b = append(b, '}')
	}
	return append(b, '}')
}

func appendLine(b []byte, o *Order, i int) []byte {
	l := &o.Lines[i]
	b = append(b, `{"line_no":`...)
	b = strconv.AppendInt(b, int64(i+1), 10)
	b = append(b, `,"sku":`...)
	b = appendText(b, l.SKU)
	b = appendOptional(b, `,"title":`, l.Title)
	b = append(b, `,"quantity":`...)
	b = strconv.AppendInt(b, int64(l.Quantity), 10)
	b = append(b, `,"unit_price":`...)
	b = appendMoney(b, l.UnitPrice.minor, o)
	if l.Freight.minor != 0 {
		b = append(b, `,"freight":`...)
		b = appendMoney(b, l.Freight.minor, o)
	}
	b = append(b, `,"seller_id":`...)
	b = appendText(b, l.SellerID)
	if l.WeightG != 0 {
		b = append(b, `,"weight_g":`...)
		b = strconv.AppendInt(b, int64(l.WeightG), 10)
	}
	if l.SizeCM != (Size{}) {
		b = append(b, `,"size_cm":{"length":`...)
		b = strconv.AppendInt(b, int64(l.SizeCM.Length), 10)
		b = append(b, `,"width":`...)
		b = strconv.AppendInt(b, int64(l.SizeCM.Width), 10)
		b = append(b, `,"height":`...)
		b = strconv.AppendInt(b, int64(l.SizeCM.Height), 10)
		b = append(b, '}')
	}
	return append(b, '}')
}

// head is what may change about an order, and its ids. It stands before the
// document in an answer.
type head struct {
	id           uuid.UUID
	version      int64
	status       string
	placedAt     time.Time
	changedAt    time.Time
	cancelledBy  string // "" unless cancelled
	cancelReason string
}

// appendHead writes the opening brace and the head's members, without a comma
// after the last.
func appendHead(b []byte, h *head) []byte {
	b = append(b, `{"order_id":"`...)
	b = appendID(b, h.id)
	b = append(b, `","version":`...)
	b = strconv.AppendInt(b, h.version, 10)
	b = append(b, `,"status":"`...)
	b = append(b, h.status...)
	b = append(b, `","placed_at":`...)
	b = appendTime(b, h.placedAt)
	b = append(b, `,"changed_at":`...)
	b = appendTime(b, h.changedAt)
	if h.cancelledBy != "" {
		b = append(b, `,"cancelled":{"by":`...)
		b = appendText(b, h.cancelledBy)
		b = append(b, `,"reason":`...)
		b = appendText(b, h.cancelReason)
		b = append(b, '}')
	}
	return b
}

// appendRepresentation joins a head and a stored document to the order that
// GET shows.
func appendRepresentation(b []byte, h *head, doc []byte) []byte {
	b = appendHead(b, h)
	b = append(b, ',')
	return append(b, doc[1:]...)
}

// appendReceipt writes the short answer to a request that changed an order.
func appendReceipt(b []byte, h *head, grand int64, currency string, scale int) []byte {
	b = appendHead(b, h)
	b = append(b, `,"grand_total":`...)
	b = appendMoney(b, grand, &Order{currency: currency, scale: scale})
	return append(b, '}')
}

func appendMoney(b []byte, minor int64, o *Order) []byte {
	b = append(b, `{"amount":"`...)
	b = appendAmount(b, minor, o.scale)
	b = append(b, `","currency":"`...)
	b = append(b, o.currency...)
	return append(b, `"}`...)
}

func appendOptional(b []byte, member, text string) []byte {
	if text == "" {
		return b
	}
	return appendText(append(b, member...), text)
}

// appendText quotes a text. Every text was decoded from valid UTF-8, so
// quoting cannot meet an error.
func appendText(b []byte, text string) []byte {
	b, _ = jsontext.AppendQuote(b, text)
	return b
}

// appendTime writes t in UTC. Times are cut to microseconds before, since
// Postgres and Avro keep no more.
func appendTime(b []byte, t time.Time) []byte {
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, time.RFC3339Nano)
	return append(b, '"')
}

// appendID spells an id as uuid.UUID.String does, without a string of its own.
func appendID(b []byte, id uuid.UUID) []byte {
	b = hex.AppendEncode(b, id[:4])
	for _, part := range [...][]byte{id[4:6], id[6:8], id[8:10], id[10:]} {
		b = append(b, '-')
		b = hex.AppendEncode(b, part)
	}
	return b
}
