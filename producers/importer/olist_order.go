package importer

import (
	"cmp"
	"slices"
	"time"
)

// decide says what becomes of one Olist order.
func (o *olist) decide(row olistOrder) item {
	it := item{ref: "olist:" + row.id, at: row.purchased, tally: tally{lines: 1}}
	it.tally.seen.addAll(row.seen())
	it.tally.seen.addAll(o.payments[row.id].seen())
	items := o.items[row.id]
	customer, known := o.customers[row.customer]
	it.tally.lines += len(items)
	switch {
	case row.damaged || slices.ContainsFunc(items, func(i olistItem) bool { return i.damaged }):
		it.reason = Unreadable
	case !known:
		it.reason = UnknownCustomer
	case len(items) == 0:
		it.reason = NoItems
	case len(items) > maxLines:
		it.reason = TooManyLines
	}
	if it.reason != "" {
		return it
	}
	lines, total, changes := o.lines(items)
	it.tally.addAll(changes)
	if len(lines) == 0 {
		it.reason = NothingPriced
		return it
	}
	it.order = &order{
		ClientOrderID: it.ref,
		CustomerID:    customer.person,
		Channel:       FormatOlist,
		PlacedAt:      row.purchased.UTC().Format(time.RFC3339),
		Lines:         lines,
		ShipTo: address{
			Country: "BR", Region: cmp.Or(customer.state, DefaultRegion), City: customer.city, PostalPrefix: customer.zip,
		},
		Payment: o.payment(row.id, total, &it.tally),
		Source:  sourceRef{System: FormatOlist, Ref: row.id},
	}
	if !row.estimated.IsZero() {
		it.order.PromisedBy = row.estimated.UTC().Format(time.RFC3339)
	}
	return it
}

// lines makes one line of each item, as Olist counts: two of a product are two
// items, each with its own freight. total is items and freight together.
func (o *olist) lines(items []olistItem) (lines []line, total amount, t tally) {
	slices.SortStableFunc(items, func(a, b olistItem) int { return cmp.Compare(a.number, b.number) })
	sellers := map[string]bool{}
	for _, i := range items {
		sellers[i.seller] = true
		if i.price <= 0 {
			t.dropped.add(PriceNotPositive, 1)
			continue
		}
		if i.price.fine() {
			t.seen.add(FinePriceLines, 1)
		}
		p := o.products[i.product]
		l := line{
			SKU: i.product, Title: o.categories[p.category], Quantity: 1,
			UnitPrice: money{Amount: i.price, Currency: "BRL"},
			SellerID:  i.seller, WeightG: p.weight, Size: p.size,
		}
		if i.freight > 0 {
			l.Freight = &money{Amount: i.freight, Currency: "BRL"}
		}
		if l.WeightG == 0 || l.Size.Length == 0 || l.Size.Width == 0 || l.Size.Height == 0 {
			t.mapped.add(DefaultParcel, 1)
			l.WeightG = cmp.Or(l.WeightG, DefaultWeightG)
			l.Size = size{
				Length: cmp.Or(l.Size.Length, DefaultLengthCM),
				Width:  cmp.Or(l.Size.Width, DefaultWidthCM),
				Height: cmp.Or(l.Size.Height, DefaultHeightCM),
			}
		}
		total += i.price + i.freight
		lines = append(lines, l)
	}
	if len(sellers) > 1 {
		t.seen.add(SeveralSellers, 1)
	}
	return lines, total, t
}

// payment is the largest payment of the order; an order has one method here.
func (o *olist) payment(id string, total amount, t *tally) payment {
	p := o.payments[id]
	if p == nil {
		t.mapped.add(PaymentUndefined, 1)
		return payment{Method: "UNKNOWN", Installments: 1}
	}
	if p.n > 1 {
		t.mapped.add(PaymentsMerged, 1)
	}
	if d := p.sum - total; max(d, -d) > 500 { // 0.05
		t.seen.add(PaymentDiffers, 1)
	}
	method, known := olistMethod(p.method)
	if !known {
		t.mapped.add(PaymentUndefined, 1)
	}
	return payment{Method: method, Installments: p.installments}
}

func olistMethod(s string) (method string, known bool) {
	switch s {
	case "credit_card":
		return "CARD", true
	case "boleto":
		return "BOLETO", true
	case "voucher":
		return "VOUCHER", true
	case "debit_card":
		return "DEBIT", true
	}
	return "UNKNOWN", false
}

func (p *olistPayments) seen() counts {
	var c counts
	if p != nil {
		c.add(ZeroPayments, p.zero)
	}
	if p != nil && p.n > 1 {
		c.add(SeveralPayments, 1)
	}
	return c
}

// seen counts what is odd about the order's own times. They are taken as they
// are: an order is placed at its purchase time, and what came after it is not
// part of placing it.
func (row olistOrder) seen() counts {
	var c counts
	happened := func(r Reason, yes bool) {
		if yes {
			c.add(r, 1)
		}
	}
	before := func(a, b time.Time) bool { return !a.IsZero() && !b.IsZero() && a.Before(b) }
	happened(CarrierBeforeOK, before(row.carried, row.approved))
	happened(DeliveredBefore, before(row.arrived, row.carried))
	happened(DeliveredNoTime, row.status == "delivered" && row.arrived.IsZero())
	happened(CancelledShipped, row.status == "canceled" && !row.carried.IsZero())
	happened(CancelledUnapproved, row.status == "canceled" && row.approved.IsZero())
	switch row.status {
	case "created", "approved", "processing", "invoiced", "shipped", "delivered", "unavailable", "canceled":
	default:
		happened(UnknownStatus, true)
	}
	return c
}
