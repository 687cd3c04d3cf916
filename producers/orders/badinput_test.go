package orders

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// badInput is an order with something wrong, and what the answer must name.
type badInput struct {
	name    string
	body    string
	status  int
	code    code
	pointer string
	fault   reason
}

// edit returns the sample order with text replaced.
func edit(t testing.TB, old, replacement string) string {
	t.Helper()
	if strings.Count(sample, old) == 0 {
		t.Fatalf("the sample has no %q", old)
	}
	return strings.Replace(sample, old, replacement, 1)
}

const firstLine = `"sku":"85123A","title":"WHITE HANGING HEART T-LIGHT HOLDER","quantity":6,"unit_price":{"amount":"2.55","currency":"GBP"},"seller_id":"uci"`

func badInputs(t testing.TB) []badInput {
	invalid := func(name, pointer string, fault reason, body string) badInput {
		return badInput{name, body, 422, codeInvalidOrder, pointer, fault}
	}
	field := func(name, pointer string, fault reason, old, replacement string) badInput {
		return invalid(name, pointer, fault, edit(t, old, replacement))
	}
	line := func(name, pointer string, fault reason, old, replacement string) badInput {
		return field(name, "/lines/0"+pointer, fault, firstLine, strings.Replace(firstLine, old, replacement, 1))
	}
	malformed := func(name, pointer, body string) badInput {
		return badInput{name, body, 400, codeMalformedJSON, pointer, reasonWrongType}
	}
	manyLines := strings.TrimSuffix(strings.Repeat("{"+firstLine+"},", maxLines+1), ",")
	return []badInput{
		malformed("broken JSON", "/customer_id", `{"customer_id":`),
		malformed("empty object left open", "", `{`),
		malformed("no JSON at all", "", `hello`),
		malformed("something after the value", "", sample+"{}"),
		malformed("name given twice", "/channel", edit(t, `"channel":"uci"`, `"channel":"uci","channel":"web"`)),
		malformed("text that is not UTF-8", "/channel", edit(t, `"uci"`, "\"\xff\"")),
		malformed("lone surrogate", "/channel", edit(t, `"uci"`, `"\ud800"`)),
		malformed("control character unescaped", "/channel", edit(t, `"uci"`, "\"a\x01\"")),

		invalid("array instead of an order", "", reasonWrongType, `[]`),
		invalid("nothing in it", "/customer_id", reasonMissing, `{}`),
		invalid("null", "/customer_id", reasonMissing, `null`),
		field("unknown field", "/colour", reasonUnknownField, `"channel"`, `"colour":"red","channel"`),
		field("case of a name", "/Channel", reasonUnknownField, `"channel"`, `"Channel"`),
		field("id of a bulk line", "/client_order_id", reasonUnknownField, `"channel"`, `"client_order_id":"x","channel"`),
		field("number instead of text", "/customer_id", reasonWrongType, `"17850"`, `17850`),
		field("customer too long", "/customer_id", reasonTooLong, `17850`, strings.Repeat("é", maxCustomerID+1)),
		field("channel missing", "/channel", reasonMissing, `"channel":"uci",`, ``),
		field("channel null", "/channel", reasonMissing, `"channel":"uci"`, `"channel":null`),
		field("NUL", "/channel", reasonInvalidText, `"uci"`, `"u\u0000ci"`),
		field("line break", "/customer_id", reasonInvalidText, `"17850"`, `"178\r\n50"`),
		field("empty order", "/lines", reasonEmptyOrder, sample[strings.Index(sample, `"lines":[`):strings.Index(sample, `"ship_to"`)], `"lines":[],`),
		field("too many lines", "/lines", reasonTooManyLines, "{"+firstLine+"}", manyLines),
		field("lines of the wrong type", "/lines", reasonWrongType, sample[strings.Index(sample, `"lines":[`):strings.Index(sample, `"ship_to"`)], `"lines":{},`),

		line("sku missing", "/sku", reasonMissing, `"sku":"85123A",`, ``),
		line("sku too long", "/sku", reasonTooLong, `85123A`, strings.Repeat("x", maxSKU+1)),
		line("title too long", "/title", reasonTooLong, `WHITE`, strings.Repeat("x", maxTitle)),
		line("seller missing", "/seller_id", reasonMissing, `"seller_id":"uci"`, `"seller_id":""`),
		line("quantity zero", "/quantity", reasonOutOfRange, `"quantity":6`, `"quantity":0`),
		line("quantity negative", "/quantity", reasonOutOfRange, `"quantity":6`, `"quantity":-6`),
		line("quantity missing", "/quantity", reasonOutOfRange, `"quantity":6,`, ``),
		line("quantity too large", "/quantity", reasonOutOfRange, `"quantity":6`, `"quantity":1000001`),
		line("quantity beyond 64 bits", "/quantity", reasonOutOfRange, `"quantity":6`, `"quantity":99999999999999999999`),
		line("quantity a fraction", "/quantity", reasonWrongType, `"quantity":6`, `"quantity":1.5`),
		line("quantity text", "/quantity", reasonWrongType, `"quantity":6`, `"quantity":"6"`),
		line("price a number", "/unit_price/amount", reasonWrongType, `"amount":"2.55"`, `"amount":2.55`),
		line("price missing", "/unit_price/currency", reasonMissing, `"unit_price":{"amount":"2.55","currency":"GBP"},`, ``),
		line("price negative", "/unit_price/amount", reasonInvalidAmount, `2.55`, `-2.55`),
		line("price with five decimals", "/unit_price/amount", reasonInvalidAmount, `2.55`, `2.55555`),
		line("price not a number", "/unit_price/amount", reasonInvalidAmount, `2.55`, `NaN`),
		line("currency unknown", "/unit_price/currency", reasonUnknownCurrency, `GBP`, `XYZ`),
		line("currency in small letters", "/unit_price/currency", reasonUnknownCurrency, `GBP`, `gbp`),
		line("freight without an amount", "/freight/amount", reasonMissing, `"sku"`, `"freight":{"currency":"GBP"},"sku"`),
		line("freight in another currency", "/freight/currency", reasonMixedCurrencies, `"sku"`, `"freight":{"amount":"1","currency":"EUR"},"sku"`),
		line("weight negative", "/weight_g", reasonOutOfRange, `"sku"`, `"weight_g":-1,"sku"`),
		line("size incomplete", "/size_cm/width", reasonOutOfRange, `"sku"`, `"size_cm":{"length":3,"height":3},"sku"`),
		line("size unknown field", "/size_cm/depth", reasonUnknownField, `"sku"`, `"size_cm":{"depth":3},"sku"`),
		line("total too large", "", reasonTotalOverflow, `"quantity":6,"unit_price":{"amount":"2.55"`, `"quantity":1000000,"unit_price":{"amount":"999999999999.9999"`),
		field("second line in another currency", "/lines/1/unit_price/currency", reasonMixedCurrencies, `"3.39","currency":"GBP"`, `"3.39","currency":"EUR"`),

		field("discount above the total", "/discount", reasonNegativeTotal, `"channel"`, `"discount":{"amount":"98.33","currency":"GBP"},"channel"`),
		field("tax in another currency", "/tax/currency", reasonMixedCurrencies, `"channel"`, `"tax":{"amount":"1","currency":"EUR"},"channel"`),
		field("placed long ago", "/placed_at", reasonOutOfRange, `"channel"`, `"placed_at":"1969-12-31T23:59:59Z","channel"`),
		field("placed in the future", "/placed_at", reasonOutOfRange, `"channel"`, `"placed_at":"2150-01-01T00:00:00Z","channel"`),
		field("placed at no time", "/placed_at", reasonWrongType, `"channel"`, `"placed_at":"yesterday","channel"`),
		field("placed without a zone", "/placed_at", reasonWrongType, `"channel"`, `"placed_at":"2010-12-01T08:26:00","channel"`),
		field("promised too late", "/promised_by", reasonOutOfRange, `"channel"`, `"promised_by":"9999-12-31T23:59:59Z","channel"`),
		field("country missing", "/ship_to/country", reasonMissing, `"country":"GB"`, ``),
		field("country a name", "/ship_to/country", reasonUnknownValue, `"GB"`, `"United Kingdom"`),
		field("postal prefix too long", "/ship_to/postal_prefix", reasonTooLong, `"country"`, `"postal_prefix":"12345678901234567","country"`),
		field("payment unknown", "/payment/method", reasonUnknownValue, `"CARD"`, `"CASH"`),
		field("payment missing", "/payment/method", reasonMissing, `"payment":{"method":"CARD","installments":1},`, ``),
		field("instalments too many", "/payment/installments", reasonOutOfRange, `"installments":1`, `"installments":100`),
		field("source without a reference", "/source/ref", reasonMissing, `,"ref":"536365"`, ``),
	}
}

func TestBadInputIsRefusedAndNamesThePlace(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	for i, tc := range badInputs(t) {
		r := h.do("POST", "/v1/orders", tc.body, "Idempotency-Key", key(i))
		p := problemIn(t, r)
		if r.status != tc.status || p.Code != tc.code {
			t.Errorf("%s: got %d %s, want %d %s", tc.name, r.status, p.Code, tc.status, tc.code)
			continue
		}
		if len(p.Errors) == 0 || p.Errors[0].Pointer != tc.pointer || p.Errors[0].Code != tc.fault || p.Errors[0].Detail == "" {
			t.Errorf("%s: got %+v, want %s at %q", tc.name, p.Errors, tc.fault, tc.pointer)
		}
	}
	if n := h.count(`SELECT count(*) FROM orders.orders`) + h.count(`SELECT count(*) FROM outbox.events`); n != 0 {
		t.Errorf("%d rows were written", n)
	}
}

func TestBadLinesDoNotTakeTheOthersWithThem(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	var lines []string
	var want []badInput // by line; a zero one is a good order
	for i, tc := range badInputs(t) {
		if strings.ContainsAny(tc.body, "\r") || tc.name == "id of a bulk line" || tc.name == "too many lines" {
			continue // not the same in a stream
		}
		body := strings.ReplaceAll(tc.body, "\n", " ")
		if strings.HasPrefix(body, `{"`) {
			body = fmt.Sprintf(`{"client_order_id":"bad-%d",`, i) + body[1:]
		}
		lines = append(lines, body, bulkLine(fmt.Sprintf("good-%d", i)))
		want = append(want, tc, badInput{})
	}
	got := h.ingest(lines...)
	if len(got) != len(want)+1 {
		t.Fatalf("got %d lines of results for %d", len(got), len(want))
	}
	for i, w := range want {
		var result struct {
			Line, Status int
			Problem      problem
		}
		if err := json.Unmarshal([]byte(got[i]), &result); err != nil {
			t.Fatal(err)
		}
		status := w.status
		if status == 0 {
			status = 201
		}
		if result.Line != i+1 || result.Status != status || result.Problem.Code != w.code {
			t.Errorf("line %d, %s: got %s", i+1, w.name, got[i])
		}
	}
	if n := h.count(`SELECT count(*) FROM orders.orders`); n != len(want)/2 {
		t.Errorf("%d orders were written, want %d", n, len(want)/2)
	}
}

func TestManyFaultsAreListedUpToABound(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	body := `{"lines":[` + strings.TrimSuffix(strings.Repeat(`{},`, 30), ",") + `]}`
	p := problemIn(t, h.do("POST", "/v1/orders", body, "Idempotency-Key", key(1)))
	if len(p.Errors) != maxFaults {
		t.Errorf("got %d faults, want %d", len(p.Errors), maxFaults)
	}
}

func TestNamesInAPointerAreCutAndCleaned(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	body := `{"` + strings.Repeat("ü", 5000) + `":1}`
	p := problemIn(t, h.do("POST", "/v1/orders", body, "Idempotency-Key", key(1)))
	if len(p.Errors) != 1 || len(p.Errors[0].Pointer) > 250 {
		t.Errorf("got %+v", p.Errors)
	}
}
