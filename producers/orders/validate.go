package orders

import (
	"strconv"
	"time"
)

// Bounds of the times in an order. An order may come from history, and a clock
// may be ahead of ours, but not by more than a day.
const maxClockLead = 24 * time.Hour

// Validate checks everything that the database or the event's schema could
// refuse, and computes the totals. It returns what is wrong, up to 20 faults.
func (o *Order) validate(now time.Time) faults {
	var f faults
	f.required(o.CustomerID, maxCustomerID, at("/customer_id"))
	f.required(o.Channel, maxChannel, at("/channel"))
	f.during(o.PlacedAt, now.Add(maxClockLead), at("/placed_at"))
	f.during(o.PromisedBy, endOfTimes(), at("/promised_by"))
	f.address(&o.ShipTo)
	f.payment(&o.Payment)
	if o.Source != (Source{}) {
		f.required(o.Source.System, maxSystem, at("/source/system"))
		f.required(o.Source.Ref, maxRef, at("/source/ref"))
	}
	switch {
	case len(o.Lines) == 0:
		f.add(at("/lines"), reasonEmptyOrder, "must hold at least one line")
	case len(o.Lines) > maxLines:
		f.add(at("/lines"), reasonTooManyLines, "must hold at most "+strconv.Itoa(maxLines)+" lines")
	default:
		for i := range o.Lines {
			f.line(&o.Lines[i], i)
		}
		o.money(&f)
	}
	return f
}

func firstOfTimes() time.Time { return time.Unix(0, 0) }
func endOfTimes() time.Time   { return time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC) }

func (f *faults) during(t, until time.Time, where place) {
	if t.IsZero() || !t.Before(firstOfTimes()) && !t.After(until) {
		return
	}
	f.add(where, reasonOutOfRange, "must lie between "+firstOfTimes().UTC().Format(time.RFC3339)+
		" and "+until.UTC().Format(time.RFC3339))
}

func (f *faults) address(a *Address) {
	c := a.Country
	switch {
	case c == "":
		f.add(at("/ship_to/country"), reasonMissing, "is required")
	case len(c) != 2 || c[0] < 'A' || c[0] > 'Z' || c[1] < 'A' || c[1] > 'Z':
		f.add(at("/ship_to/country"), reasonUnknownValue, "must be two capital letters, as in ISO 3166-1")
	}
	f.optional(a.Region, maxRegion, at("/ship_to/region"))
	f.optional(a.City, maxCity, at("/ship_to/city"))
	f.optional(a.PostalPrefix, maxPostal, at("/ship_to/postal_prefix"))
}

func (f *faults) payment(p *Payment) {
	switch p.Method {
	case "CARD", "BOLETO", "VOUCHER", "DEBIT", "INVOICE", "UNKNOWN":
	case "":
		f.add(at("/payment/method"), reasonMissing, "is required")
	default:
		f.add(at("/payment/method"), reasonUnknownValue, "must be CARD, BOLETO, VOUCHER, DEBIT, INVOICE or UNKNOWN")
	}
	if p.Installments == 0 {
		p.Installments = 1
	}
	f.within(p.Installments, 1, maxInstallments, at("/payment/installments"))
}

func (f *faults) line(l *Line, i int) {
	here := place{line: i}
	f.required(l.SKU, maxSKU, here.in("/sku"))
	f.optional(l.Title, maxTitle, here.in("/title"))
	f.within(l.Quantity, 1, maxQuantity, here.in("/quantity"))
	f.required(l.SellerID, maxSellerID, here.in("/seller_id"))
	f.within(l.WeightG, 0, maxWeightG, here.in("/weight_g"))
	if l.SizeCM != (Size{}) {
		f.within(l.SizeCM.Length, 1, maxSizeCM, here.in("/size_cm/length"))
		f.within(l.SizeCM.Width, 1, maxSizeCM, here.in("/size_cm/width"))
		f.within(l.SizeCM.Height, 1, maxSizeCM, here.in("/size_cm/height"))
	}
}

// money reads every amount, brings them to one scale and adds them up. It adds
// up only what is free of faults.
func (o *Order) money(f *faults) {
	before := len(*f)
	o.currency = o.Lines[0].UnitPrice.Currency
	decimals, known := currencies[o.currency]
	if !known {
		o.currency = "" // named once, at the first line
	}
	o.scale = decimals
	for i := range o.Lines {
		l := &o.Lines[i]
		o.amount(f, &l.UnitPrice, place{i, "/unit_price"})
		if !l.Freight.absent() {
			o.amount(f, &l.Freight, place{i, "/freight"})
		}
	}
	if !o.Discount.absent() {
		o.amount(f, &o.Discount, at("/discount"))
	}
	if !o.Tax.absent() {
		o.amount(f, &o.Tax, at("/tax"))
	}
	if len(*f) > before {
		return
	}
	for i := range o.Lines {
		o.Lines[i].UnitPrice.rescale(o.scale)
		o.Lines[i].Freight.rescale(o.scale)
	}
	o.Discount.rescale(o.scale)
	o.Tax.rescale(o.scale)
	o.addUp(f)
}

// amount reads one amount and raises the order's scale to what it needs.
func (o *Order) amount(f *faults, m *Money, where place) {
	if m.Currency != o.currency || o.currency == "" {
		f.currency(m.Currency, o.currency, where.in("/currency"))
	}
	switch {
	case m.Amount == "":
		f.add(where.in("/amount"), reasonMissing, "is required")
	case !m.parse():
		f.add(where.in("/amount"), reasonInvalidAmount,
			"must be a decimal string of up to 12 digits and 4 decimals, not negative")
	}
	o.scale = max(o.scale, m.scale)
}

// currency names what is wrong with a currency that is not the order's. An
// order's own is unknown ("") if the first line's was no currency.
func (f *faults) currency(given, order string, where place) {
	switch _, known := currencies[given]; {
	case given == "":
		f.add(where, reasonMissing, "is required")
	case !known:
		f.add(where, reasonUnknownCurrency, "must be a currency code of ISO 4217")
	case order != "":
		f.add(where, reasonMixedCurrencies, "must be "+order+" as in the first line")
	}
}

func (o *Order) addUp(f *faults) {
	t := totals{discount: o.Discount.minor, tax: o.Tax.minor}
	for i := range o.Lines {
		l := &o.Lines[i]
		price, fits := times(l.UnitPrice.minor, int64(l.Quantity))
		if fits {
			t.items, fits = plus(t.items, price)
		}
		if fits {
			t.freight, fits = plus(t.freight, l.Freight.minor)
		}
		if !fits {
			f.add(place{line: i}, reasonTotalOverflow, "takes the order's total beyond what can be counted")
			return
		}
	}
	sum, fits := plus(t.items, t.freight)
	if fits {
		sum, fits = plus(sum, t.tax)
	}
	if !fits {
		f.add(at("/lines"), reasonTotalOverflow, "take the order's total beyond what can be counted")
		return
	}
	if t.discount > sum {
		f.add(at("/discount"), reasonNegativeTotal, "must not exceed the order's total")
		return
	}
	t.grand = sum - t.discount
	o.totals = t
}
