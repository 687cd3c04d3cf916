package orders

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"orderflow/outbox-relay/outbox"
	"orderflow/schemas"
)

const (
	statusPlaced    = "PLACED"
	statusCancelled = "CANCELLED"

	// producer names this service in the envelope of its events.
	producer = "orders"
)

// keyOf names one request of one client. Orders and cancellations, single and
// in bulk, share the keys of a client, so a client may fall back from one door
// to another without a second order.
type keyOf struct {
	client string
	key    string
}

// prepared is an order with everything the writer needs, worked out before the
// writer is involved: nothing after this point looks at what the client sent.
type prepared struct {
	keyOf
	fingerprint [sha256.Size]byte
	id          uuid.UUID
	order       *Order
	placedAt    time.Time
	acceptedAt  time.Time
	doc         []byte
	receipt     []byte // the answer, kept for a repeated request
	event       outbox.Row
}

// bytes is about what the order adds to a batch.
func (p *prepared) bytes() int { return len(p.doc) + len(p.event.Payload) + len(p.receipt) }

// scratch is what making an order ready needs for a moment: the body it came
// in and the event before it is encoded. Both are large, so they are kept.
type scratch struct {
	body  []byte
	event schemas.OrderPlaced
}

// maxScratch bounds the body that is kept, in bytes.
const maxScratch = 64 << 10

// prepare validates an order and makes its ids, document, answer and event.
// The error is a *problem.
func (s *scratch) prepare(ctx context.Context, k keyOf, o *Order, now time.Time) (*prepared, error) {
	now = now.UTC().Truncate(time.Microsecond)
	if f := o.validate(now); len(f) > 0 {
		return nil, invalidOrder(f)
	}
	p := &prepared{keyOf: k, order: o, acceptedAt: now}
	p.doc = appendDocument(make([]byte, 0, 448+160*len(o.Lines)), o)
	p.fingerprint = fingerprintOrder(p.doc, o.PlacedAt)
	p.placedAt = now
	if !o.PlacedAt.IsZero() {
		p.placedAt = o.PlacedAt.UTC().Truncate(time.Microsecond)
	}
	ids, err := newIDs()
	if err != nil {
		return nil, problemOf(codeInternal, "").because(err)
	}
	p.id = ids.order
	p.receipt = appendReceipt(make([]byte, 0, 256), &head{
		id: p.id, version: 1, status: statusPlaced, placedAt: p.placedAt, changedAt: now,
	}, o.totals.grand, o.currency, o.scale)

	p.event, err = outbox.Prepare(ctx, s.placed(p, ids))
	switch {
	case errors.Is(err, outbox.ErrTooLarge):
		return nil, problemOf(codeOrderTooLarge, "The order's event exceeds what a broker takes.").because(err)
	case err != nil:
		return nil, problemOf(codeInternal, "").because(err)
	}
	return p, nil
}

// fingerprintOrder tells a repeated request from another one under the same
// key. A time that the client left out must not count: it is ours and differs.
func fingerprintOrder(doc []byte, placedAt time.Time) [sha256.Size]byte {
	if placedAt.IsZero() {
		return sha256.Sum256(doc)
	}
	// The document is followed by the time; it ends in a brace, so no other
	// document can look the same.
	return sha256.Sum256(appendTime(append([]byte(nil), doc...), placedAt))
}

type ids struct {
	order uuid.UUID
	event uuid.UUID
}

// newIDs makes version 7 ids: they ascend with time, so new rows touch the
// right edge of every index instead of a random page.
func newIDs() (ids, error) {
	order, err := uuid.NewV7()
	if err != nil {
		return ids{}, fmt.Errorf("make order id: %w", err)
	}
	event, err := uuid.NewV7()
	if err != nil {
		return ids{}, fmt.Errorf("make event id: %w", err)
	}
	return ids{order, event}, nil
}

func (s *scratch) placed(p *prepared, ids ids) *schemas.OrderPlaced {
	o := p.order
	orderID := ids.order.String()
	lines := s.event.Lines[:0]
	if len(o.Lines) > cap(lines) {
		lines = make([]schemas.OrderLine, 0, len(o.Lines))
	}
	s.event = schemas.OrderPlaced{
		Meta: schemas.EventMeta{
			EventID: ids.event.String(), OrderID: orderID, OrderVersion: 1,
			OccurredAt: p.placedAt, RecordedAt: p.acceptedAt,
			CorrelationID: orderID, Producer: producer, Flow: schemas.FlowChoreography,
		},
		CustomerID: o.CustomerID,
		Channel:    o.Channel,
		Lines:      lines[:len(o.Lines)],
		Totals: schemas.Totals{
			Items: o.price(o.totals.items), Freight: o.price(o.totals.freight),
			Discount: o.price(o.totals.discount), Tax: o.price(o.totals.tax), Grand: o.price(o.totals.grand),
		},
		ShipTo: schemas.Address{
			Country: o.ShipTo.Country, Region: optional(&o.ShipTo.Region),
			City: optional(&o.ShipTo.City), PostalPrefix: optional(&o.ShipTo.PostalPrefix),
		},
		Payment: schemas.Payment{
			Method: schemas.PaymentMethod(o.Payment.Method), Installments: o.Payment.Installments,
		},
	}
	e := &s.event
	for i := range o.Lines {
		e.Lines[i] = eventLine(o, i)
	}
	if !o.PromisedBy.IsZero() {
		e.PromisedBy = &o.PromisedBy
	}
	if o.Source != (Source{}) {
		e.Source = &schemas.OrderSource{System: o.Source.System, Ref: o.Source.Ref}
	}
	return e
}

func eventLine(o *Order, i int) schemas.OrderLine {
	l := &o.Lines[i]
	e := schemas.OrderLine{
		LineNo: i + 1, SKU: l.SKU, Title: optional(&l.Title), Quantity: l.Quantity,
		UnitPrice: o.price(l.UnitPrice.minor), Freight: o.price(l.Freight.minor), SellerID: l.SellerID,
	}
	if l.WeightG != 0 {
		e.WeightG = &l.WeightG
	}
	if l.SizeCM != (Size{}) {
		e.Size = &schemas.Size{LengthCM: l.SizeCM.Length, WidthCM: l.SizeCM.Width, HeightCM: l.SizeCM.Height}
	}
	return e
}

func (o *Order) price(minor int64) schemas.Money {
	return schemas.Money{Minor: minor, Currency: o.currency, Scale: o.scale}
}

// optional leaves out a text that was left out.
func optional(s *string) *string {
	if *s == "" {
		return nil
	}
	return s
}
