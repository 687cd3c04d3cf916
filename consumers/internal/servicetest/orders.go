package servicetest

import (
	"time"

	"github.com/google/uuid"

	"orderflow/consumers"
	"orderflow/schemas"
)

// PlacedAt is when the orders of [Placed] were placed, a Wednesday.
func PlacedAt() time.Time { return time.Date(2026, 3, 4, 9, 30, 0, 0, time.UTC) }

// ID returns the id of the event of that kind that belongs to an order. It
// depends on nothing else, so that two tests of one story agree on ids.
func ID(order, kind string) string {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte(kind+"/"+order)).String()
}

// Placed is the event of an order by customer 17850 in Britain.
func Placed(order string, lines ...schemas.OrderLine) *schemas.OrderPlaced {
	var items int64
	for i := range lines {
		lines[i].LineNo = i + 1
		items += lines[i].UnitPrice.Minor * int64(lines[i].Quantity)
	}
	return &schemas.OrderPlaced{
		Meta:       meta(order, "placed", 1),
		CustomerID: "17850",
		Channel:    "web",
		Lines:      lines,
		Totals: schemas.Totals{
			Items: Money(items), Freight: Money(0), Discount: Money(0), Tax: Money(0), Grand: Money(items),
		},
		ShipTo:  schemas.Address{Country: "GB"},
		Payment: schemas.Payment{Method: schemas.PaymentMethodCard, Installments: 1},
		Source:  &schemas.OrderSource{System: "web", Ref: order},
	}
}

// Cancelled is the event of the buyer's change of mind.
func Cancelled(order string) *schemas.OrderCancelled {
	return &schemas.OrderCancelled{
		Meta:          meta(order, "cancelled", 2),
		By:            schemas.CancelledByCustomer,
		Reason:        "ordered by mistake",
		Compensations: []schemas.Compensation{},
	}
}

// Line is quantity pieces at 2.55 from seller.
func Line(seller, sku string, quantity int) schemas.OrderLine {
	title := "title of " + sku
	return schemas.OrderLine{
		SKU: sku, Title: &title, Quantity: quantity, UnitPrice: Money(255), Freight: Money(0), SellerID: seller,
	}
}

// Money is an amount in pence.
func Money(minor int64) schemas.Money { return schemas.Money{Minor: minor, Currency: "GBP", Scale: 2} }

// Batch makes events what a handler gets.
func Batch[E schemas.Event](events ...E) []consumers.Event[E] {
	batch := make([]consumers.Event[E], len(events))
	for i, e := range events {
		batch[i] = consumers.Event[E]{Value: e, Topic: e.EventSchema().Topic, Offset: int64(i), Timestamp: PlacedAt()}
	}
	return batch
}

func meta(order, kind string, version int64) schemas.EventMeta {
	return schemas.EventMeta{
		EventID:       ID(order, kind),
		OrderID:       order,
		OrderVersion:  version,
		OccurredAt:    PlacedAt(),
		RecordedAt:    PlacedAt(),
		CorrelationID: "correlation of " + order,
		Producer:      "orders",
		Flow:          schemas.FlowChoreography,
	}
}
