package importer

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// olist joins the tables of the Olist set. Its orders lie in no order of time,
// so the tables are read whole (some 100 MB for the full set of 99,441 orders)
// and let go with the source.
//
// Six of the nine tables make an order. Sellers, geolocation and reviews say
// nothing that an order holds, and are not opened.
type olist struct {
	zone       *time.Location
	customers  map[string]olistCustomer
	products   map[string]olistProduct
	categories map[string]string // English names
	items      map[string][]olistItem
	payments   map[string]*olistPayments
	orders     []olistOrder
	cancel     *item // of the order handed out last
	stray      tally
	at         atomic.Int64 // orders handed out
}

type olistCustomer struct{ person, zip, city, state string }

type olistProduct struct {
	category string
	weight   int64
	size     size
}

type olistItem struct {
	number          int64
	product, seller string
	price, freight  amount
	damaged         bool
}

type olistPayments struct {
	largest      amount
	method       string
	installments int64
	sum          amount
	n, zero      int
}

// olistOrder is a row of the orders table; a zero time did not happen.
type olistOrder struct {
	id, customer, status                             string
	purchased, approved, carried, arrived, estimated time.Time
	damaged                                          bool
}

func openOlist(dir string) (*olist, error) {
	zone, err := time.LoadLocation("America/Sao_Paulo")
	if err != nil {
		return nil, fmt.Errorf("read time zone: %w", err)
	}
	o := &olist{
		zone: zone, customers: map[string]olistCustomer{}, products: map[string]olistProduct{},
		categories: map[string]string{}, items: map[string][]olistItem{}, payments: map[string]*olistPayments{},
	}
	for _, read := range []func(string) error{
		o.readCategories, o.readProducts, o.readCustomers, o.readItems, o.readPayments, o.readOrders,
	} {
		if err := read(dir); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(o.orders, func(a, b olistOrder) int {
		return cmp.Or(a.purchased.Compare(b.purchased), cmp.Compare(a.id, b.id))
	})
	return o, nil
}

func (o *olist) progress() (done, total int64) { return o.at.Load(), int64(len(o.orders)) }

// Close has nothing to close: the tables were closed when they were read.
func (o *olist) Close() error { return nil }

// next returns the orders by purchase time, each followed by its cancellation if
// it was cancelled.
func (o *olist) next() (item, error) {
	if o.cancel != nil {
		it := *o.cancel
		o.cancel = nil
		return it, nil
	}
	i := o.at.Load()
	if i == int64(len(o.orders)) {
		if o.stray.lines > 0 {
			it := item{kind: kindNote, tally: o.stray}
			o.stray = tally{}
			return it, nil
		}
		return item{}, io.EOF
	}
	o.at.Add(1)
	row := o.orders[i]
	it := o.decide(row)
	if row.status == "canceled" {
		it.sale = newSaleKey([]byte(it.ref))
		o.cancel = &item{
			kind: kindCancellation, ref: it.ref, at: it.at, sale: it.sale, by: "OPS", why: "olist status canceled",
		}
	}
	return it, nil
}

// table calls row for every row of one table. A row that cannot be read is
// handed over as far as it goes, with bad set.
func (o *olist) table(dir, name string, columns []string, row func(cells []string, bad bool)) error {
	path := filepath.Join(dir, name+".csv.gz")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		path = filepath.Join(dir, name+".csv")
	}
	t, err := openTable(path, columns...)
	if err != nil {
		return err
	}
	defer t.Close()
	for {
		cells, err := t.next()
		var bad *rowError
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &bad):
			row(cells, true)
		case err != nil:
			return err
		default:
			row(cells, false)
		}
	}
}

// lost counts a row that belongs to no order that can be told.
func (o *olist) lost() {
	o.stray.lines++
	o.stray.dropped.add(Unreadable, 1)
}

func (o *olist) readCategories(dir string) error {
	columns := []string{"product_category_name", "product_category_name_english"}
	return o.table(dir, "product_category_name_translation", columns, func(c []string, bad bool) {
		if bad {
			o.lost()
			return
		}
		o.categories[strings.Clone(c[0])] = strings.Clone(c[1])
	})
}

func (o *olist) readProducts(dir string) error {
	columns := []string{
		"product_id", "product_category_name", "product_weight_g",
		"product_length_cm", "product_width_cm", "product_height_cm",
	}
	return o.table(dir, "olist_products_dataset", columns, func(c []string, bad bool) {
		if bad || c[0] == "" {
			o.lost() // its items get the default parcel
			return
		}
		o.products[strings.Clone(c[0])] = olistProduct{
			category: strings.Clone(c[1]), weight: measure(c[2]),
			size: size{Length: measure(c[3]), Width: measure(c[4]), Height: measure(c[5])},
		}
	})
}

// measure reads grams or centimetres; what is no whole positive number is zero,
// that is, unknown.
func measure(s string) int64 {
	n, err := strconv.ParseInt(strings.TrimSuffix(s, ".0"), 10, 32)
	if err != nil {
		return 0
	}
	return max(n, 0)
}

func (o *olist) readCustomers(dir string) error {
	columns := []string{
		"customer_id", "customer_unique_id", "customer_zip_code_prefix", "customer_city", "customer_state",
	}
	return o.table(dir, "olist_customers_dataset", columns, func(c []string, bad bool) {
		if bad || c[0] == "" || c[1] == "" {
			o.lost() // its order has an unknown customer
			return
		}
		o.customers[strings.Clone(c[0])] = olistCustomer{
			person: strings.Clone(c[1]), zip: zipPrefix(c[2]), city: strings.Clone(c[3]), state: strings.Clone(c[4]),
		}
	})
}

// zipPrefix gives back the leading zeros that spreadsheets take away.
func zipPrefix(s string) string {
	if s == "" || len(s) >= 5 || !digits(s) {
		return strings.Clone(s)
	}
	return strings.Repeat("0", 5-len(s)) + s
}

func (o *olist) readItems(dir string) error {
	columns := []string{"order_id", "order_item_id", "product_id", "seller_id", "price", "freight_value"}
	return o.table(dir, "olist_order_items_dataset", columns, func(c []string, bad bool) {
		if c[0] == "" {
			o.lost()
			return
		}
		number, err1 := strconv.ParseInt(c[1], 10, 32)
		price, err2 := parseAmount(c[4])
		freight, err3 := parseAmount(c[5])
		it := olistItem{
			number: number, product: strings.Clone(c[2]), seller: strings.Clone(c[3]), price: price, freight: freight,
		}
		it.damaged = bad || err1 != nil || err2 != nil || err3 != nil || it.product == "" || it.seller == "" ||
			freight < 0 || max(price, -price) > maxPrice || freight > maxPrice
		o.items[c[0]] = append(o.items[c[0]], it)
	})
}

func (o *olist) readPayments(dir string) error {
	columns := []string{"order_id", "payment_type", "payment_installments", "payment_value"}
	return o.table(dir, "olist_order_payments_dataset", columns, func(c []string, bad bool) {
		installments, err1 := strconv.ParseInt(c[2], 10, 16)
		value, err2 := parseAmount(c[3])
		if bad || err1 != nil || err2 != nil || c[0] == "" || value < 0 || value > maxPrice {
			o.lost() // the order's other payments stand, or none
			return
		}
		p := o.payments[c[0]]
		if p == nil {
			p = &olistPayments{largest: -1}
			o.payments[strings.Clone(c[0])] = p
		}
		p.n++
		p.sum += value
		if value == 0 {
			p.zero++
		}
		if value > p.largest {
			p.largest, p.method, p.installments = value, strings.Clone(c[1]), max(installments, 1)
		}
	})
}

func (o *olist) readOrders(dir string) error {
	columns := []string{
		"order_id", "customer_id", "order_status", "order_purchase_timestamp", "order_approved_at",
		"order_delivered_carrier_date", "order_delivered_customer_date", "order_estimated_delivery_date",
	}
	return o.table(dir, "olist_orders_dataset", columns, func(c []string, bad bool) {
		if c[0] == "" {
			o.lost()
			return
		}
		row := olistOrder{
			id: strings.Clone(c[0]), customer: strings.Clone(c[1]), status: strings.Clone(c[2]), damaged: bad || c[3] == "",
		}
		for i, at := range []*time.Time{&row.purchased, &row.approved, &row.carried, &row.arrived, &row.estimated} {
			if c[3+i] == "" {
				continue
			}
			t, err := time.ParseInLocation(timeLayout, c[3+i], o.zone)
			row.damaged = row.damaged || err != nil
			*at = t
		}
		o.orders = append(o.orders, row)
	})
}
