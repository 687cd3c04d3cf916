package orders

import (
	"math/big"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/currency"
	"pgregory.net/rapid"
)

func TestAmountsAreReadExactlyOrRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		text  string
		minor int64
		scale int
		ok    bool
	}{
		{"0", 0, 0, true},
		{"2.55", 255, 2, true},
		{"2.50", 25, 1, true},
		{"0.001", 1, 3, true},
		{"0.0001", 1, 4, true},
		{"0.00010", 0, 0, false},
		{"999999999999.9999", 9999999999999999, 4, true},
		{"1000000000000", 0, 0, false},
		{"", 0, 0, false},
		{".5", 0, 0, false},
		{"5.", 0, 0, false},
		{"-1", 0, 0, false},
		{"+1", 0, 0, false},
		{"1e3", 0, 0, false},
		{"1,5", 0, 0, false},
		{" 1", 0, 0, false},
		{"1.2.3", 0, 0, false},
		{"٣", 0, 0, false},
		{"NaN", 0, 0, false},
	} {
		m := Money{Amount: tc.text}
		if ok := m.parse(); ok != tc.ok || ok && (m.minor != tc.minor || m.scale != tc.scale) {
			t.Errorf("parse(%q): got %d at scale %d, %v; want %d at %d, %v", tc.text, m.minor, m.scale, ok, tc.minor, tc.scale, tc.ok)
		}
	}
}

func TestAmountsSurviveBeingReadAndWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`(0|[1-9][0-9]{0,11})(\.[0-9]{1,4})?`).Draw(t, "amount")
		m := Money{Amount: text}
		if !m.parse() {
			t.Fatalf("%q is refused", text)
		}
		m.rescale(rapid.IntRange(m.scale, maxScale).Draw(t, "scale"))
		want, _ := new(big.Rat).SetString(text)
		got, ok := new(big.Rat).SetString(string(appendAmount(nil, m.minor, m.scale)))
		if !ok || got.Cmp(want) != 0 {
			t.Fatalf("%q came out as %s", text, appendAmount(nil, m.minor, m.scale))
		}
	})
}

func TestTotalsAreExactOrRefused(t *testing.T) {
	t.Parallel()
	amount := rapid.StringMatching(`[0-9]{1,12}(\.[0-9]{1,4})?`)
	rapid.Check(t, func(t *rapid.T) {
		o := Order{Lines: make([]Line, rapid.IntRange(1, 4).Draw(t, "lines"))}
		price := func(name string) Money { return Money{Amount: amount.Draw(t, name), Currency: "GBP"} }
		items, freight := new(big.Rat), new(big.Rat)
		for i := range o.Lines {
			l := &o.Lines[i]
			*l = Line{Quantity: rapid.IntRange(1, maxQuantity).Draw(t, "quantity"), UnitPrice: price("price"), Freight: price("freight")}
			items.Add(items, new(big.Rat).Mul(rat(l.UnitPrice.Amount), big.NewRat(int64(l.Quantity), 1)))
			freight.Add(freight, rat(l.Freight.Amount))
		}
		o.Tax = price("tax")
		o.Discount = price("discount")
		sum := new(big.Rat).Add(items, freight)
		sum.Add(sum, rat(o.Tax.Amount))
		grand := new(big.Rat).Sub(sum, rat(o.Discount.Amount))

		var f faults
		o.money(&f)
		countable := new(big.Rat).Mul(sum, rat("10000")).Cmp(new(big.Rat).SetInt64(1<<63-1)) <= 0
		switch {
		case len(f) == 0:
			for _, c := range []struct {
				got  int64
				want *big.Rat
			}{{o.totals.items, items}, {o.totals.freight, freight}, {o.totals.grand, grand}} {
				if got := rat(string(appendAmount(nil, c.got, o.scale))); got.Cmp(c.want) != 0 {
					t.Fatalf("got %v, want %v", got, c.want)
				}
			}
		case f[0].Code == reasonNegativeTotal && grand.Sign() >= 0:
			t.Fatalf("a total of %v was called negative", grand)
		case f[0].Code == reasonTotalOverflow && countable:
			t.Fatalf("a total of %v was called too large", sum)
		}
	})
}

func rat(s string) *big.Rat {
	r, _ := new(big.Rat).SetString(s)
	return r
}

func TestCurrenciesAreCodesOfISO4217(t *testing.T) {
	t.Parallel()
	newer := strings.Fields("MRU SLE UYW VED VES XCG ZWG") // than the library's table
	for code, decimals := range currencies {
		if _, err := currency.ParseISO(code); err != nil && !slices.Contains(newer, code) {
			t.Errorf("%s: %v", code, err)
		}
		if decimals < 0 || decimals > maxScale {
			t.Errorf("%s has %d decimals", code, decimals)
		}
	}
	for _, code := range []string{"EUR", "USD", "GBP", "BRL", "JPY"} {
		if _, known := currencies[code]; !known {
			t.Errorf("%s is missing", code)
		}
	}
	for _, code := range []string{"", "eur", "XXX", "XAU", "ABC", "EURO"} {
		if _, known := currencies[code]; known {
			t.Errorf("%q is taken for a currency", code)
		}
	}
}

func FuzzMoney(f *testing.F) {
	for _, s := range []string{"2.55", "0", "999999999999.9999", "1e5", "-1", "00.10", "0.00000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m := Money{Amount: text}
		if !m.parse() {
			return
		}
		m.rescale(maxScale)
		want, ok := new(big.Rat).SetString(text)
		if !ok {
			t.Fatalf("%q is no number, yet was read as %d", text, m.minor)
		}
		if got := rat(string(appendAmount(nil, m.minor, maxScale))); got.Cmp(want) != 0 {
			t.Fatalf("%q came out as %v", text, got)
		}
	})
}
