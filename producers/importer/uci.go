package importer

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
	_ "time/tzdata" // the files bear local times; machines without zone data read them too
)

// openInvoices is how many invoices are kept open while later ones have begun:
// in the full set one invoice (542806) is interrupted, by one other.
const openInvoices = 8

// maxQuantity and maxPrice are far above anything real and keep sums in range.
const (
	maxQuantity = 100_000_000
	maxPrice    = amount(100_000_000 * 10_000)
)

const timeLayout = "2006-01-02 15:04:05"

var uciColumns = []string{
	"InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country",
}

// The cells of a row, in the order of uciColumns.
const (
	cellInvoice = iota
	cellCode
	cellDescription
	cellQuantity
	cellDate
	cellPrice
	cellCustomer
	cellCountry
)

// uci gathers the lines of the UCI file into invoices and decides about each.
// It holds openInvoices invoices at a time.
type uci struct {
	table  *table
	zone   *time.Location
	open   []*invoice // in the order they began
	end    bool
	stray  tally // rows that belong to no invoice, not yet handed out
	latest *invoice
}

// invoice is what the file says under one invoice number.
type invoice struct {
	number, customer, country string
	at                        time.Time // of its earliest line
	lines                     []invoiceLine
	read                      int // lines, readable or not
	damaged, contradictory    bool
	spans, interrupted        bool
}

type invoiceLine struct {
	code, title string
	quantity    int64
	price       amount
	minute      int64 // Unix time; an exact duplicate has the same
}

// openUCI reads path, or input when there is no path.
func openUCI(path string, input io.Reader) (*uci, error) {
	zone, err := time.LoadLocation("Europe/London")
	if err != nil {
		return nil, fmt.Errorf("read time zone: %w", err)
	}
	u := &uci{zone: zone}
	if path != "" {
		u.table, err = openTable(path, uciColumns...)
	} else {
		u.table, err = newTable("input", input, uciColumns...)
	}
	if err != nil {
		return nil, err
	}
	return u, nil
}

func (u *uci) progress() (done, total int64) { return u.table.progress() }

// Close closes the file.
func (u *uci) Close() error { return u.table.Close() }

// next returns what becomes of the next invoice, in the order they began.
func (u *uci) next() (item, error) {
	for !u.end && len(u.open) <= openInvoices {
		cells, err := u.table.next()
		var bad *rowError
		switch {
		case errors.Is(err, io.EOF):
			u.end = true
		case errors.As(err, &bad):
			u.damaged(cells)
		case err != nil:
			return item{}, err
		default:
			u.add(cells)
		}
	}
	if len(u.open) == 0 {
		if u.stray.lines > 0 {
			it := item{kind: kindNote, tally: u.stray}
			u.stray = tally{}
			return it, nil
		}
		return item{}, io.EOF
	}
	it := u.open[0].decide()
	it.tally.addAll(u.stray)
	u.open, u.stray = u.open[1:], tally{}
	return it, nil
}

// damaged books a row that cannot be read to its invoice, if it names one.
func (u *uci) damaged(cells []string) {
	if cells[cellInvoice] == "" {
		u.stray.lines++
		u.stray.dropped.add(Unreadable, 1)
		return
	}
	inv := u.invoice(cells)
	inv.read++
	inv.damaged = true
}

func (u *uci) add(cells []string) {
	quantity, err1 := strconv.ParseInt(cells[cellQuantity], 10, 64)
	price, err2 := parseAmount(cells[cellPrice])
	at, err3 := time.ParseInLocation(timeLayout, cells[cellDate], u.zone)
	if err1 != nil || err2 != nil || err3 != nil || cells[cellInvoice] == "" || cells[cellCode] == "" ||
		max(quantity, -quantity) > maxQuantity || max(price, -price) > maxPrice {
		u.damaged(cells)
		return
	}
	inv := u.invoice(cells)
	inv.read++
	if inv.at.IsZero() {
		inv.at = at
	}
	inv.spans = inv.spans || !inv.at.Equal(at)
	if at.Before(inv.at) {
		inv.at = at
	}
	if len(inv.lines) > maxLines {
		return // one too many is enough to know
	}
	inv.lines = append(inv.lines, invoiceLine{
		code: cells[cellCode], title: cells[cellDescription], quantity: quantity, price: price, minute: at.Unix(),
	})
}

// invoice finds the open invoice a row belongs to, or opens it.
func (u *uci) invoice(cells []string) *invoice {
	customer := customerID(cells[cellCustomer])
	for i := len(u.open) - 1; i >= 0; i-- {
		inv := u.open[i]
		if inv.number != cells[cellInvoice] {
			continue
		}
		inv.interrupted = inv.interrupted || inv != u.latest
		inv.contradictory = inv.contradictory || inv.customer != customer || inv.country != cells[cellCountry]
		u.latest = inv
		return inv
	}
	u.latest = &invoice{number: cells[cellInvoice], customer: customer, country: cells[cellCountry]}
	u.open = append(u.open, u.latest)
	return u.latest
}
