package importer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// modelInvoice is an invoice as a test thinks of it.
type modelInvoice struct {
	number   string
	customer string
	lines    []string // code,quantity,price
}

func drawInvoices(t *rapid.T) []modelInvoice {
	line := rapid.Custom(func(t *rapid.T) string {
		return fmt.Sprintf("%s,%d,%s",
			rapid.SampledFrom([]string{"K1", "K2", "POST", "M"}).Draw(t, "code"),
			rapid.IntRange(1, 2).Draw(t, "quantity"),
			rapid.SampledFrom([]string{"1.0", "2.5", "0.0"}).Draw(t, "price"))
	})
	n := rapid.IntRange(1, 25).Draw(t, "invoices")
	var all []modelInvoice
	for i := range n {
		inv := modelInvoice{
			number:   fmt.Sprint(1000 + i),
			customer: rapid.SampledFrom([]string{"", "1.0", "2.0"}).Draw(t, "customer"),
			lines:    rapid.SliceOfN(line, 1, 2).Draw(t, "lines"),
		}
		if rapid.Bool().Draw(t, "cancels") {
			inv.number = "C" + inv.number
		}
		all = append(all, inv)
	}
	return all
}

func (inv modelInvoice) cancels() bool { return inv.number[0] == 'C' }

func (inv modelInvoice) placeable() bool {
	return slices.ContainsFunc(inv.lines, func(l string) bool {
		return strings.HasPrefix(l, "K") && !strings.HasSuffix(l, ",0.0")
	})
}

func (inv modelInvoice) equals(other modelInvoice) bool {
	a, b := slices.Sorted(slices.Values(inv.lines)), slices.Sorted(slices.Values(other.lines))
	return inv.customer != "" && inv.customer == other.customer && slices.Equal(a, b)
}

func file(all []modelInvoice) io.Reader {
	var b strings.Builder
	b.WriteString(strings.Join(uciColumns, ",") + "\n")
	for _, inv := range all {
		for _, l := range inv.lines {
			f := strings.Split(l, ",")
			if inv.cancels() {
				f[1] = "-" + f[1]
			}
			fmt.Fprintf(&b, "%s,%s,,%s,2011-01-04 10:00:00,%s,%s,France\n", inv.number, f[0], f[1], f[2], inv.customer)
		}
	}
	return strings.NewReader(b.String())
}

// Against a model that looks at every earlier sale, the way the rule is worded.
func TestExactlyTheOneEqualEarlierSaleIsCancelled(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		all := drawInvoices(rt)
		var wantPlaced, wantCancelled []string
		wantIgnored := map[Reason]int{}
		for i, inv := range all {
			if !inv.cancels() {
				if inv.placeable() {
					wantPlaced = append(wantPlaced, "uci:"+inv.number)
				}
				continue
			}
			var equal []modelInvoice
			for _, sale := range all[:i] {
				if !sale.cancels() && inv.equals(sale) {
					equal = append(equal, sale)
				}
			}
			switch {
			case inv.customer == "":
				wantIgnored[NoCustomer]++
			case len(equal) == 0:
				wantIgnored[NoEqualSale]++
			case len(equal) > 1:
				wantIgnored[SeveralEqual]++
			case !equal[0].placeable():
				wantIgnored[SaleNotPlaced]++
			case slices.Contains(wantCancelled, "uci:"+equal[0].number):
				wantIgnored[AlreadyCancelled]++
			default:
				wantCancelled = append(wantCancelled, "uci:"+equal[0].number)
			}
		}
		api := newFakeOrders(t)
		got, err := Run(t.Context(), uciConfig("http://orders.test", file(all)), Deps{HTTP: api.client()})
		if err != nil {
			rt.Fatal(err)
		}
		cancelled := api.cancelled()
		slices.Sort(cancelled)
		slices.Sort(wantCancelled)
		if d := cmp.Diff(wantCancelled, cancelled); d != "" {
			rt.Errorf("cancelled (-want +got):\n%s", d)
		}
		if d := cmp.Diff(wantIgnored, got.CancellationsIgnored); d != "" {
			rt.Errorf("ignored (-want +got):\n%s", d)
		}
		if len(api.orders) != len(wantPlaced) || got.Accepted != len(wantPlaced) {
			rt.Errorf("placed %d, accepted %d, want %d", len(api.orders), got.Accepted, len(wantPlaced))
		}
		if got.Placed()+total(got.Rejected) != got.Read ||
			got.Cancelled+got.CancelledBefore+total(got.CancellationsIgnored) != got.Cancellations ||
			got.Read+got.Cancellations != len(all) {
			rt.Errorf("does not add up:\n%s", got)
		}
	})
}

func TestAmountsAreExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := amount(rapid.Int64Range(-1<<62, 1<<62).Draw(t, "amount"))
		back, err := parseAmount(a.String())
		if err != nil || back != a {
			t.Fatalf("%d is written %s and read %d, %v", a, a, back, err)
		}
		want, _ := new(big.Rat).SetString(a.String())
		if got := big.NewRat(int64(a), 10000); got.Cmp(want) != 0 {
			t.Fatalf("%d is written %s", a, a)
		}
	})
	for s, want := range map[string]string{
		"2.55": "2.55", "3": "3.00", "99.9": "99.90", "0.001": "0.001", "-11062.06": "-11062.06", "1.50000": "1.50", "0": "0.00",
	} {
		if a, err := parseAmount(s); err != nil || a.String() != want {
			t.Errorf("%q read as %s, %v, want %s", s, a, err, want)
		}
	}
	for _, s := range []string{"", "-", ".5", "1e3", "1,5", "+1", "0.00001", "1.2.3", " 1", "NaN", "99999999999999999999", "--1"} {
		if a, err := parseAmount(s); err == nil {
			t.Errorf("%q read as %s", s, a)
		}
	}
}

func TestFreightNeverOverflows(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		sum := rapid.Int64Range(0, 1<<63-1).Draw(t, "sum")
		quantity := rapid.Int64Range(1, maxQuantity).Draw(t, "quantity")
		price := rapid.Int64Range(1, int64(maxPrice)).Draw(t, "price")
		got, ok := amount(sum).plus(quantity, amount(price))
		want := new(big.Int).Mul(big.NewInt(quantity), big.NewInt(price))
		want.Add(want, big.NewInt(sum))
		if ok != want.IsInt64() || ok && int64(got) != want.Int64() {
			t.Fatalf("%d + %d x %d = %d, %v", sum, quantity, price, got, ok)
		}
	})
}

func TestASummaryDoesNotChangeAfterwards(t *testing.T) {
	t.Parallel()
	l := newLedger(Config{}, nil)
	var seen counts
	seen.add(RepeatedCode, 1)
	all := func() {
		l.offered(item{order: &order{}, tally: tally{seen: seen, mapped: seen, dropped: seen}})
		l.turnedAway(item{reason: NoGoods})
		l.cancellation(item{kind: kindCancellation, reason: NoCustomer})
	}
	all()
	before := l.summary()
	want := fmt.Sprintf("%+v", before)
	all()
	if got := fmt.Sprintf("%+v", before); got != want {
		t.Errorf("was %s, is %s", want, got)
	}
	if now := l.summary(); now.Read != 4 || now.Seen[RepeatedCode] != 2 {
		t.Errorf("the books do not go on:\n%s", now)
	}
}

func TestOldSalesAreForgottenNotHoarded(t *testing.T) {
	t.Parallel()
	l := newLedger(Config{}, nil)
	key := func(i int) saleKey { return newSaleKey(fmt.Append(nil, i)) }
	for i := range rememberedSales + 10 {
		l.offered(item{sale: key(i), order: &order{}})
	}
	if len(l.sales) != rememberedSales || len(l.oldest) != rememberedSales {
		t.Errorf("%d sales and %d keys remembered, want %d", len(l.sales), len(l.oldest), rememberedSales)
	}
	l.cancellation(item{kind: kindCancellation, sale: key(9)})
	l.cancellation(item{kind: kindCancellation, sale: key(10)})
	if got := l.summary().CancellationsIgnored[NoEqualSale]; got != 1 {
		t.Errorf("%d of the two cancellations found no sale, want that of the forgotten one", got)
	}
}

// drain takes everything a source has and checks what every item must hold.
func drain(t *testing.T, src source) {
	for {
		it, err := src.next()
		if err != nil {
			return // io.EOF or an error that names the place
		}
		switch {
		case it.kind == kindOrder && (it.order == nil) == (it.reason == ""):
			t.Fatalf("order %q: order %v, reason %q", it.ref, it.order, it.reason)
		case it.order != nil && (len(it.order.Lines) == 0 || len(it.order.Lines) > maxLines):
			t.Fatalf("order %q has %d lines", it.ref, len(it.order.Lines))
		case it.kind == kindCancellation && it.reason == "" && it.sale == (saleKey{}):
			t.Fatalf("cancellation %q means nothing and has no reason", it.ref)
		}
	}
}

func FuzzUCI(f *testing.F) {
	head := strings.Join(uciColumns, ",") + "\n"
	f.Add([]byte(head + "536365,85123A,LANTERN,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\nC536365,85123A,,-6,2010-12-01 08:26:00,2.55,17850.0,EIRE\n"))
	f.Add([]byte(head + "1,\"a\nb\",\"c\"\"\",\xa3,,,\n\x00"))
	f.Add([]byte("\ufeff" + head + "1,POST,,100000000,2010-12-01 08:26:00,99999999.9999,,France"))
	f.Add([]byte("\x1f\x8b\x08\x00"))
	f.Add(sample[:2000])
	f.Fuzz(func(t *testing.T, data []byte) {
		src, err := openUCI("", bytes.NewReader(data))
		if err == nil {
			drain(t, src)
		}
	})
}

func FuzzOlist(f *testing.F) {
	f.Add("o1,c1,canceled,2017-07-09 21:57:05,,,,", "o1,1,p1,s1,,99.9,1.0", "o1,1,boleto,1,100.9", "c1,u1,1310,sao paulo,SP", "p1,x,1,1,1,225,16,10,14")
	f.Add("o1,c1,delivered,,,,,\"", "o1", ",,,,", "\xff,\x00", "p1")
	f.Fuzz(func(t *testing.T, orders, items, payments, customers, products string) {
		dir := t.TempDir()
		for name, rows := range map[string]string{
			"olist_orders_dataset": orders, "olist_order_items_dataset": items, "olist_order_payments_dataset": payments,
			"olist_customers_dataset": customers, "olist_products_dataset": products, "product_category_name_translation": "a,b",
		} {
			if err := os.WriteFile(filepath.Join(dir, name+".csv"), []byte(olistHeaders[name]+"\n"+rows), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		src, err := openOlist(dir)
		if err == nil {
			drain(t, src)
		}
	})
}

func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"line":1,"status":201,"order_id":"a","version":1}` + "\n" + `{"line":2,"status":422,"problem":{"code":"x"}}` + "\n" + `{"summary":{}}`))
	f.Add([]byte(`{"line":1,"status":201,"order_id":"a"}` + "\n" + `{"line":1,"status":201,"order_id":"b"}`))
	f.Add([]byte("{\"line\":-1}\n\n{}\n[]"))
	f.Add([]byte(`{"line":1,"status":201,"order_id":"a"}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		orders := []pending{{ref: "1"}, {ref: "2"}}
		times := map[string]int{}
		c := &client{}
		have, err := c.answers(bytes.NewReader(data), orders, func(p pending, _ answer) { times[p.ref]++ })
		if times["1"] > 1 || times["2"] > 1 || have[0] != (times["1"] == 1) || have[1] != (times["2"] == 1) {
			t.Errorf("answered %v, have %v", times, have)
		}
		if err == nil && !bytes.Contains(data, []byte("summary")) {
			t.Error("took an answer without a summary for whole")
		}
	})
}

func TestAQuoteNeverClosedDoesNotSwallowTheFile(t *testing.T) {
	t.Parallel()
	endless := io.MultiReader(strings.NewReader(strings.Join(uciColumns, ",")+"\n1,\""), zeros{})
	src, err := openUCI("", endless)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = src.next(); err == nil || errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "never closed") {
		t.Errorf("error %v", err)
	}
}

// zeros is an endless file of one digit.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}
