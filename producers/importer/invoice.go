package importer

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// carriage tells the stock codes of carriage: they become the order's freight.
func carriage(code string) bool {
	switch code {
	case "POST", "DOT", "C2":
		return true
	}
	return false
}

// notGoods tells the stock codes that name no article anybody could pick or ship:
// manual entries, discounts, samples, fees, bad debt, commission. Gift vouchers,
// PADS and the DCGS... codes are articles.
func notGoods(code string) bool {
	switch code {
	case "M", "m", "D", "S", "B", "BANK CHARGES", "AMAZONFEE", "CRUK":
		return true
	}
	return false
}

// customerID takes the number out of the spreadsheet's 17850.0.
func customerID(cell string) string { return strings.TrimSuffix(cell, ".0") }

// decide says what becomes of the invoice.
func (inv *invoice) decide() item {
	it := item{ref: "uci:" + inv.number, at: inv.at, tally: inv.seen()}
	switch {
	case strings.HasPrefix(inv.number, "C"):
		return inv.cancellation(it)
	case strings.HasPrefix(inv.number, "A"):
		it.reason = Adjustment
	case !digits(inv.number):
		it.reason = UnknownInvoiceKind
	default:
		return inv.sale(it)
	}
	return it
}

// cancellation names no sale. It means the one earlier sale of its customer that
// has the very same lines with the quantities positive; which one that is, and
// whether there is exactly one, the ledger knows.
func (inv *invoice) cancellation(it item) item {
	it.kind, it.by, it.why = kindCancellation, "CUSTOMER", "cancellation "+inv.number
	switch {
	case inv.damaged:
		it.reason = Unreadable
	case inv.customer == "":
		it.reason = NoCustomer
	default:
		it.sale = inv.key(-1)
	}
	return it
}

func (inv *invoice) sale(it item) item {
	country, mapped, known := countryCode(inv.country)
	switch {
	case inv.damaged:
		it.reason = Unreadable
	case inv.contradictory:
		it.reason = ContradictoryInvoice
	case len(inv.lines) > maxLines:
		it.reason = TooManyLines
	case !known:
		it.reason = UnknownCountry
	}
	if inv.customer != "" && !inv.damaged {
		it.sale = inv.key(1)
	}
	if it.reason != "" {
		return it
	}
	o, changes, reason := inv.order()
	if reason != "" {
		it.reason = reason
		return it
	}
	if mapped {
		changes.mapped.add(CountryMapped, 1)
	}
	o.ShipTo = address{Country: country, Region: DefaultRegion}
	it.order = o
	it.tally.addAll(changes)
	return it
}

// order turns the lines into an order, or says why there is none.
func (inv *invoice) order() (*order, tally, Reason) {
	var t tally
	o := &order{
		ClientOrderID: "uci:" + inv.number,
		CustomerID:    inv.customer,
		Channel:       FormatUCI,
		PlacedAt:      inv.at.UTC().Format(time.RFC3339),
		Payment:       payment{Method: DefaultPayment, Installments: 1},
		Source:        sourceRef{System: FormatUCI, Ref: inv.number},
		Lines:         make([]line, 0, len(inv.lines)),
	}
	var freight amount
	fits := true
	for _, l := range inv.lines {
		switch {
		case l.quantity <= 0:
			t.dropped.add(QuantityNotPositive, 1)
		case l.price <= 0:
			t.dropped.add(PriceNotPositive, 1)
		case carriage(l.code):
			t.mapped.add(CarriageLines, 1)
			freight, fits = freight.plus(l.quantity, l.price)
		case notGoods(l.code):
			t.dropped.add(NotGoods, 1)
		default:
			o.Lines = append(o.Lines, l.line())
		}
		if !fits {
			return nil, tally{}, Unreadable
		}
	}
	if len(o.Lines) == 0 {
		return nil, tally{}, inv.emptyBecause(t)
	}
	if freight > 0 {
		o.Lines[0].Freight = &money{Amount: freight, Currency: "GBP"}
	}
	if o.CustomerID == "" {
		o.CustomerID = "guest:" + inv.number
		t.mapped.add(GuestCustomer, 1)
	}
	t.mapped.add(DefaultsUsed, 1)
	return o, t, ""
}

func (l invoiceLine) line() line {
	return line{
		SKU: l.code, Title: l.title, Quantity: l.quantity,
		UnitPrice: money{Amount: l.price, Currency: "GBP"},
		SellerID:  DefaultSeller, WeightG: DefaultWeightG, Size: defaultSize,
	}
}

// emptyBecause names the reason why no line of goods was left.
func (inv *invoice) emptyBecause(t tally) Reason {
	switch {
	case t.dropped[QuantityNotPositive] == len(inv.lines):
		return StockWriteOff
	case t.dropped[NotGoods]+t.mapped[CarriageLines] > 0:
		return NoGoods
	default:
		return NothingPriced
	}
}

// key is made of the customer and the lines, whatever their order, with the
// quantities times sign.
func (inv *invoice) key(sign int64) saleKey {
	lines := slices.Clone(inv.lines)
	for i := range lines {
		lines[i].quantity *= sign
	}
	slices.SortFunc(lines, func(a, b invoiceLine) int {
		return cmp.Or(cmp.Compare(a.code, b.code), cmp.Compare(a.quantity, b.quantity), cmp.Compare(a.price, b.price))
	})
	text := fmt.Appendf(nil, "%q", inv.customer)
	for _, l := range lines {
		text = fmt.Appendf(text, " %q %d %d", l.code, l.quantity, l.price)
	}
	return newSaleKey(text)
}

// seen counts the oddities of the invoice that are taken as they are.
func (inv *invoice) seen() tally {
	t := tally{lines: inv.read}
	same, codes := map[invoiceLine]bool{}, map[string]bool{}
	duplicates, repeated := 0, 0
	for _, l := range inv.lines {
		if same[l] {
			duplicates++
		}
		if codes[l.code] {
			repeated = 1
		}
		same[l], codes[l.code] = true, true
		if l.price.fine() {
			t.seen.add(FinePriceLines, 1)
		}
		if l.price <= 0 {
			t.seen.add(LinesNotPriced, 1)
		}
	}
	t.seen.add(DuplicateLines, duplicates)
	t.seen.add(RepeatedCode, repeated)
	if inv.customer == "" && !inv.damaged {
		t.seen.add(LinesNoCustomer, inv.read)
	}
	if inv.spans {
		t.seen.add(SpansMinutes, 1)
	}
	if inv.interrupted {
		t.seen.add(Interrupted, 1)
	}
	return t
}
