package importer

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// The stories under testdata hold the treatment of every oddity: the rows of a
// file, and what a whole import makes of them.
func TestStoriesOfOdditiesEndAsDecided(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/uci", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			head := strings.Join(uciColumns, ",") + "\n"
			if d.HasArg("header") {
				head = ""
			}
			input := strings.NewReader(head + unescape(d.Input) + "\n")
			return story(t, d, Config{Format: FormatUCI, Input: input})
		})
	})
	datadriven.Walk(t, "testdata/olist", func(t *testing.T, path string) {
		dir := t.TempDir()
		for name, header := range olistHeaders {
			writeTable(t, dir, name, header)
		}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd != "import" { // olist_items_dataset and the like: the rows of a table
				writeTable(t, dir, d.Cmd, olistHeaders[d.Cmd]+"\n"+unescape(d.Input))
				return ""
			}
			return story(t, d, Config{Format: FormatOlist, Path: dir})
		})
	})
}

func TestOlistOrdersComeByTimeEachBeforeItsCancellation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, header := range olistHeaders {
		writeTable(t, dir, name, header)
	}
	writeTable(t, dir, "olist_orders_dataset", olistHeaders["olist_orders_dataset"]+`
a,c,canceled,2017-07-09 21:57:05,,,,
b,c,created,2017-07-09 21:57:04,,,,
d,c,canceled,2017-07-01 00:00:00,,,,`)
	src, err := openOlist(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for it, err := src.next(); err == nil; it, err = src.next() {
		got = append(got, fmt.Sprint(it.ref, it.kind == kindCancellation))
	}
	want := []string{"olist:dfalse", "olist:dtrue", "olist:bfalse", "olist:afalse", "olist:atrue"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

var olistHeaders = map[string]string{
	"olist_orders_dataset":              "order_id,customer_id,order_status,order_purchase_timestamp,order_approved_at,order_delivered_carrier_date,order_delivered_customer_date,order_estimated_delivery_date",
	"olist_order_items_dataset":         "order_id,order_item_id,product_id,seller_id,shipping_limit_date,price,freight_value",
	"olist_order_payments_dataset":      "order_id,payment_sequential,payment_type,payment_installments,payment_value",
	"olist_customers_dataset":           "customer_id,customer_unique_id,customer_zip_code_prefix,customer_city,customer_state",
	"olist_products_dataset":            "product_id,product_category_name,product_name_lenght,product_description_lenght,product_photos_qty,product_weight_g,product_length_cm,product_height_cm,product_width_cm",
	"product_category_name_translation": "\ufeffproduct_category_name,product_category_name_english",
}

func writeTable(t *testing.T, dir, name, text string) {
	if err := os.WriteFile(filepath.Join(dir, name+".csv"), []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// unescape writes bytes that a story cannot hold.
func unescape(s string) string {
	return strings.NewReplacer(`\xa3`, "\xa3", `\x00`, "\x00", `\r`, "\r").Replace(s)
}

// story imports into an API of its own and says what that has then. The argument
// refuse names orders the API refuses, moved those another party changes first,
// shipped those it does not cancel.
func story(t *testing.T, d *datadriven.TestData, cfg Config) string {
	api := newFakeOrders(t)
	listed := func(arg, ref string) bool {
		for _, a := range d.CmdArgs {
			if a.Key == arg && slices.Contains(a.Vals, ref) {
				return true
			}
		}
		return false
	}
	api.lineHarm = func(o apiOrder) (map[string]any, bool) {
		ref := o.Source.Ref
		switch {
		case listed("refuse", ref):
			return map[string]any{"status": 422, "problem": map[string]any{
				"code": "invalid_order", "errors": []any{map[string]any{"code": "too_long", "pointer": "/x", "detail": "y"}},
			}}, false
		case listed("moved", ref), listed("shipped", ref), listed("cancelled", ref):
			n := api.place(o, "")
			n.version = 2
			if listed("shipped", ref) {
				n.status = "SHIPPED"
			}
			if listed("cancelled", ref) {
				n.status = "CANCELLED"
			}
			return map[string]any{"status": 201, "order_id": n.id, "version": 1}, false
		}
		return nil, false
	}
	cfg.API = "http://orders.test"
	sum, err := Run(t.Context(), cfg, Deps{HTTP: api.client()})
	var b strings.Builder
	for _, ref := range slices.Sorted(maps.Keys(api.orders)) {
		tellOrder(&b, api.orders[ref])
	}
	tellSummary(&b, sum)
	if err != nil {
		fmt.Fprintf(&b, "error: %v\n", err)
	}
	return b.String()
}

func tellOrder(b *strings.Builder, f *fakeOrder) {
	o := f.order
	fmt.Fprintf(b, "%s %s, customer %s, placed %s, to %s, paid by %s in %d\n", o.ClientOrderID, strings.ToLower(f.status),
		o.CustomerID, o.PlacedAt, strings.Join([]string{o.ShipTo.Country, o.ShipTo.Region, o.ShipTo.City, o.ShipTo.PostalPrefix}, "/"),
		o.Payment.Method, o.Payment.Installments)
	if o.PromisedBy != "" {
		fmt.Fprintf(b, "  promised by %s\n", o.PromisedBy)
	}
	for _, l := range o.Lines {
		fmt.Fprintf(b, "  %d x %s %q at %s %s from %s, %d g, %dx%dx%d cm", l.Quantity, l.SKU, l.Title, l.UnitPrice.Amount,
			l.UnitPrice.Currency, l.SellerID, l.WeightG, l.SizeCM.Length, l.SizeCM.Width, l.SizeCM.Height)
		if l.Freight != nil {
			fmt.Fprintf(b, ", freight %s", l.Freight.Amount)
		}
		b.WriteString("\n")
	}
	for _, c := range f.cancels {
		fmt.Fprintf(b, "  cancelled by %s: %s\n", c.By, c.Reason)
	}
}

// tellSummary tells what is not zero.
func tellSummary(b *strings.Builder, s Summary) {
	fmt.Fprintf(b, "%d lines, %d orders: %d accepted", s.Lines, s.Read, s.Accepted)
	tellCounts(b, ", rejected", s.Rejected)
	if s.Cancellations > 0 {
		fmt.Fprintf(b, "; %d cancellations: %d cancelled, %d before", s.Cancellations, s.Cancelled, s.CancelledBefore)
		tellCounts(b, ", ignored", s.CancellationsIgnored)
	}
	b.WriteString("\n")
	tellCounts(b, "dropped", s.LinesDropped)
	tellCounts(b, "mapped", s.Mapped)
	tellCounts(b, "seen", s.Seen)
	if s.Placed()+total(s.Rejected) != s.Read || s.Cancelled+s.CancelledBefore+total(s.CancellationsIgnored) != s.Cancellations {
		b.WriteString("DOES NOT ADD UP\n")
	}
}

func tellCounts(b *strings.Builder, name string, m map[Reason]int) {
	if len(m) == 0 {
		return
	}
	b.WriteString(name)
	for _, r := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(b, " %s=%d", r, m[r])
	}
	if name[0] != ',' {
		b.WriteString("\n")
	}
}
