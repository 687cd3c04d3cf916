package orders

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestRequestsThatAreNoOrdersAreRefusedAsProblems(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	k := []string{"Idempotency-Key", key(1)}
	// Fits a body, but makes too large an event.
	heavy := strings.Replace(firstLine, "WHITE HANGING HEART T-LIGHT HOLDER", strings.Repeat("🎁", 220), 1)
	huge := edit(t, "{"+firstLine+"}", strings.TrimSuffix(strings.Repeat("{"+heavy+"},", 1040), ","))
	with := func(header ...string) []string { return append(slices.Clone(k), header...) }
	for _, tc := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
		code                     code
	}{
		{"no key", "POST", "/v1/orders", sample, nil, 400, codeKeyMissing},
		{"short key", "POST", "/v1/orders", sample, []string{"Idempotency-Key", "short"}, 400, codeKeyInvalid},
		{"form", "POST", "/v1/orders", sample, with("Content-Type", "application/x-www-form-urlencoded"), 415, codeUnsupportedMedia},
		{"no type", "POST", "/v1/orders", sample, with("Content-Type", ""), 415, codeUnsupportedMedia},
		{"other charset", "POST", "/v1/orders", sample, with("Content-Type", "application/json; charset=latin1"), 415, codeUnsupportedMedia},
		{"compressed", "POST", "/v1/orders", sample, with("Content-Encoding", "gzip"), 415, codeUnsupportedMedia},
		{"empty", "POST", "/v1/orders", "", k, 400, codeMalformedJSON},
		{"too large", "POST", "/v1/orders", sample + strings.Repeat(" ", maxBody), k, 413, codeBodyTooLarge},
		{"event too large", "POST", "/v1/orders", huge, k, 422, codeOrderTooLarge},
		{"client id", "POST", "/v1/orders", sample, with("X-Client-Id", strings.Repeat("x", 65)), 400, codeInvalidParameter},
		{"stream as JSON", "POST", "/v1/orders:ingest", sample, nil, 415, codeUnsupportedMedia},
		{"stream in brotli", "POST", "/v1/orders:ingest", sample, []string{"Content-Type", "application/x-ndjson", "Content-Encoding", "br"}, 415, codeUnsupportedMedia},
		{"stream of a nameless client", "POST", "/v1/orders:ingest", sample, []string{"Content-Type", "application/x-ndjson", "X-Client-Id", "a b"}, 400, codeInvalidParameter},
		{"unknown path", "GET", "/v1/order", "", nil, 404, codeNotFound},
		{"root", "GET", "/", "", nil, 404, codeNotFound},
		{"wrong method", "DELETE", "/v1/orders", "", nil, 405, codeMethodNotAllowed},
		{"wrong method on an order", "PUT", "/v1/orders/0190a3b4-0000-7000-8000-000000000000", "", nil, 405, codeMethodNotAllowed},
		{"wrong method on a stream", "GET", "/v1/orders:ingest", "", nil, 405, codeMethodNotAllowed},
		{"limit zero", "GET", "/v1/orders?limit=0", "", nil, 400, codeInvalidParameter},
		{"limit too large", "GET", "/v1/orders?limit=201", "", nil, 400, codeInvalidParameter},
		{"limit a word", "GET", "/v1/orders?limit=ten", "", nil, 400, codeInvalidParameter},
		{"cursor invented", "GET", "/v1/orders?cursor=abc", "", nil, 400, codeInvalidParameter},
		{"unknown problem", "GET", "/problems/nonsense", "", nil, 404, codeNotFound},
	} {
		r := h.do(tc.method, tc.path, tc.body, tc.header...)
		p := problemIn(t, r)
		if r.status != tc.status || p.Code != tc.code || p.Status != tc.status || r.header.Get("Content-Type") != contentProblem {
			t.Errorf("%s: got %d %s, want %d %s", tc.name, r.status, r.body, tc.status, tc.code)
		}
		if (tc.status == 405) != (r.header.Get("Allow") != "") {
			t.Errorf("%s: Allow is %q", tc.name, r.header.Get("Allow"))
		}
	}
	if r := h.do("POST", "/v1/orders", sample, with("Content-Type", "application/json; charset=UTF-8")...); r.status != 201 {
		t.Errorf("charset named: got %d %s", r.status, r.body)
	}
}

func TestAProblemNamesTheTraceAndIsExplained(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	r := h.do("POST", "/v1/orders", `{}`, "Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "Idempotency-Key", key(1))
	p := problemIn(t, r)
	if p.TraceID != "4bf92f3577b34da6a3ce929d0e0e4736" {
		t.Errorf("trace id: got %q", p.TraceID)
	}
	for c := range catalogue {
		if page := h.do("GET", "/problems/"+string(c), ""); page.status != 200 || !strings.Contains(page.body, catalogue[c].title) {
			t.Errorf("%s: got %d %s", c, page.status, page.body)
		}
	}
	if page := h.do("GET", p.Type, ""); page.status != 200 {
		t.Errorf("the problem's type: got %d", page.status)
	}
}

func TestABodyOfUnknownLengthIsBounded(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	chunked := struct{ *strings.Reader }{strings.NewReader(sample + strings.Repeat(" ", maxBody))}
	if r, err := h.send("POST", "/v1/orders", struct{ *onlyReader }{&onlyReader{chunked}}, "Idempotency-Key", key(1)); err != nil || r.status != 413 {
		t.Errorf("too large: got %d %v", r.status, err)
	}
	if r, err := h.send("POST", "/v1/orders", &onlyReader{strings.NewReader(sample)}, "Idempotency-Key", key(1)); err != nil || r.status != 201 {
		t.Errorf("chunked: got %d %v", r.status, err)
	}
}

// onlyReader hides the length of what it reads.
type onlyReader struct {
	r interface{ Read([]byte) (int, error) }
}

func (o *onlyReader) Read(p []byte) (int, error) { return o.r.Read(p) }

func TestPagesListEveryOrderOnceWhileOthersArrive(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	const n = 23
	var want []string
	for i := range n {
		want = append(want, orderIDIn(t, h.place(key(i)).body))
	}
	slices.Reverse(want) // the newest first
	var got []string
	path := "/v1/orders?limit=5"
	for pages := 0; path != ""; pages++ {
		if pages > n {
			t.Fatal("the pages have no end")
		}
		r := h.do("GET", path, "")
		var page struct {
			Items []struct {
				OrderID    string `json:"order_id"`
				LineCount  int    `json:"line_count"`
				GrandTotal Money  `json:"grand_total"`
			}
			NextCursor *string `json:"next_cursor"`
		}
		if err := json.Unmarshal([]byte(r.body), &page); err != nil {
			t.Fatal(err)
		}
		for _, item := range page.Items {
			got = append(got, item.OrderID)
			if item.LineCount != 5 || item.GrandTotal.Amount != "98.32" {
				t.Errorf("item: got %+v", item)
			}
		}
		path = ""
		if page.NextCursor != nil {
			path = "/v1/orders?limit=5&cursor=" + *page.NextCursor
			if link := fmt.Sprintf(`<%s>; rel="next"`, path); r.header.Get("Link") != link {
				t.Errorf("Link: got %q, want %q", r.header.Get("Link"), link)
			}
		} else if r.header.Get("Link") != "" {
			t.Error("the last page links to a next one")
		}
		h.place(key(1000 + pages)) // arrives while we read
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %d orders, want the %d that were there, newest first", len(got), len(want))
	}
	if r := h.do("GET", "/v1/orders", ""); strings.Count(r.body, `"order_id"`) < n {
		t.Errorf("default page: got %s", r.body)
	}
}

func TestEveryDeclaredAnswerOccurs(t *testing.T) {
	t.Parallel()
	p := newProxy(t, database(t))
	h := startOn(t, p.url, Config{Patience: time.Second})
	ndjson := []string{"Content-Type", "application/x-ndjson"}
	id := orderIDIn(t, h.place(key(1)).body)
	order, cancel := "/v1/orders/"+id, "/v1/orders/"+id+"/cancel"

	h.do("POST", "/v1/orders", sample)
	h.do("POST", "/v1/orders", sample+strings.Repeat(" ", maxBody), "Idempotency-Key", key(2))
	h.do("POST", "/v1/orders", sample, "Content-Type", "text/plain")
	h.do("POST", "/v1/orders", `{}`, "Idempotency-Key", key(2))
	h.do("GET", "/v1/orders", "")
	h.do("GET", "/v1/orders?limit=x", "")
	h.ingest(bulkLine("a"), `{}`)
	h.do("POST", "/v1/orders:ingest", "", append(ndjson, "X-Client-Id", "a b")...)
	h.do("POST", "/v1/orders:ingest", "")
	h.do("GET", order, "")
	h.do("GET", order, "", "If-None-Match", `"1"`)
	h.do("GET", "/v1/orders/unknown", "")
	h.do("POST", cancel, `{`)
	h.do("POST", cancel, `{}`)
	h.do("POST", cancel, cancelBody+strings.Repeat(" ", maxBody))
	h.do("POST", cancel, cancelBody, "Content-Type", "text/plain")
	h.do("POST", "/v1/orders/unknown/cancel", cancelBody)
	h.do("POST", cancel, cancelBody, "If-Match", `"9"`)
	h.do("POST", cancel, cancelBody, "If-Match", `"1"`)
	h.do("POST", cancel, cancelBody)
	h.do("GET", "/openapi.json", "")
	h.do("GET", "/docs", "")
	h.do("GET", "/problems/queue_full", "")
	h.do("GET", "/problems/unknown", "")
	other, err := h.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec(t.Context(), `INSERT INTO orders.idempotency_keys (client_id, key, fingerprint, order_id, response, created_at)
		VALUES ('held', $1, '', gen_random_uuid(), '', now())`, key(3)); err != nil {
		t.Fatal(err)
	}
	h.do("POST", "/v1/orders", sample, "Idempotency-Key", key(3), "X-Client-Id", "held")
	p.close()
	_ = other.Rollback(t.Context())
	h.place(key(4))
	h.do("GET", "/v1/orders", "")
	h.do("GET", order, "")
	h.do("POST", cancel, cancelBody)
	h.do("POST", "/v1/orders:ingest", bulkLine("b"), ndjson...)

	for path, methods := range h.contract.Paths {
		for method, op := range methods {
			for status := range op.Responses {
				// Nothing makes an internal error on purpose.
				if answer := method + " " + path + " " + status; !h.contract.seen[answer] && status != "500" {
					t.Errorf("%s is declared, but no request got it", answer)
				}
			}
		}
	}
}

func TestTheContractNamesEveryRouteAndLimit(t *testing.T) {
	t.Parallel()
	c := readContract(t)
	s := &Service{}
	routes := map[string]bool{}
	for _, r := range s.routes() {
		if r.methods == nil {
			continue
		}
		routes[r.pattern] = true
		for method := range r.methods {
			if _, declared := c.Paths[r.pattern][strings.ToLower(method)]; !declared {
				t.Errorf("%s %s is not in the contract", method, r.pattern)
			}
		}
	}
	for path := range c.Paths {
		if !routes[path] {
			t.Errorf("%s is in the contract, but not served", path)
		}
	}
	for where, want := range map[string]int{
		"PlaceOrder/properties/customer_id/maxLength": maxCustomerID, "PlaceOrder/properties/channel/maxLength": maxChannel,
		"PlaceOrder/properties/lines/maxItems": maxLines, "PlaceLine/properties/sku/maxLength": maxSKU,
		"PlaceLine/properties/title/maxLength": maxTitle, "PlaceLine/properties/seller_id/maxLength": maxSellerID,
		"PlaceLine/properties/quantity/maximum": maxQuantity, "PlaceLine/properties/weight_g/maximum": maxWeightG,
		"Size/properties/width/maximum": maxSizeCM, "Address/properties/region/maxLength": maxRegion,
		"Address/properties/city/maxLength": maxCity, "Address/properties/postal_prefix/maxLength": maxPostal,
		"Payment/properties/installments/maximum": maxInstallments, "Source/properties/system/maxLength": maxSystem,
		"Source/properties/ref/maxLength": maxRef, "Cancellation/properties/reason/maxLength": maxReason,
		"IngestOrder/properties/client_order_id/maxLength": maxClientOrderID, "Problem/properties/errors/maxItems": maxFaults,
	} {
		if got := contractValue(t, "components/schemas/"+where); got != float64(want) {
			t.Errorf("%s: the contract says %v, the code %d", where, got, want)
		}
	}
}

// contractValue reads one value of openapi.json.
func contractValue(t *testing.T, path string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(openAPIDocument, &v); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Split(path, "/") {
		v = v.(map[string]any)[name]
	}
	return v
}

func TestKeysExpireOnlyPastTheirRetention(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	h.place(key(1))
	h.place(key(2))
	if _, err := h.db.Exec(t.Context(), `UPDATE orders.idempotency_keys SET created_at = created_at - interval '25 hours' WHERE key = $1`, key(1)); err != nil {
		t.Fatal(err)
	}
	if n, err := h.service.expireSome(t.Context(), time.Now().Add(-24*time.Hour)); err != nil || n != 1 {
		t.Fatalf("expired %d, %v", n, err)
	}
	if r := h.place(key(2)); r.header.Get("Idempotency-Replayed") != "true" {
		t.Error("a key within its retention was forgotten")
	}
	if r := h.place(key(1)); r.header.Get("Idempotency-Replayed") != "" {
		t.Error("a key past its retention was remembered")
	}
}

func TestMetricsTellWhatBecameOfEachOrder(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	h.place(key(1))
	h.place(key(1))
	h.do("POST", "/v1/orders", `{}`, "Idempotency-Key", key(2))
	h.do("POST", "/v1/orders", sample)
	h.ingest(bulkLine("a"), bulkLine("a"), `{"client_order_id":"x"}`, `{`)
	m := h.service.metrics
	for _, tc := range []struct {
		name string
		got  float64
		want float64
	}{
		{"accepted singly", testutil.ToFloat64(m.accepted.WithLabelValues("single")), 1},
		{"accepted in bulk", testutil.ToFloat64(m.accepted.WithLabelValues("bulk")), 1},
		{"replayed singly", testutil.ToFloat64(m.replayed.WithLabelValues("single")), 1},
		{"replayed in bulk", testutil.ToFloat64(m.replayed.WithLabelValues("bulk")), 1},
		{"missing", testutil.ToFloat64(m.rejected.WithLabelValues("single", "missing")), 1},
		{"no key", testutil.ToFloat64(m.rejected.WithLabelValues("single", "idempotency_key_missing")), 1},
		{"missing in bulk", testutil.ToFloat64(m.rejected.WithLabelValues("bulk", "missing")), 1},
		{"malformed in bulk", testutil.ToFloat64(m.rejected.WithLabelValues("bulk", "malformed_json")), 1},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.name, tc.got, tc.want)
		}
	}
	if problems, err := testutil.GatherAndLint(h.registry); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
	families, err := h.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	for _, want := range []string{
		"orderflow_orders_request_duration_seconds", "orderflow_orders_batch_size",
		"orderflow_orders_commit_duration_seconds", "orderflow_orders_queue_depth",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not exposed", want)
		}
	}
}

func TestTheDocsPageLoadsNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	r := h.do("GET", "/docs", "")
	if r.status != http.StatusOK || !strings.Contains(r.body, "/openapi.json") {
		t.Fatalf("got %d", r.status)
	}
	for _, banned := range []string{"http://", "https://", "//cdn", "src="} {
		if strings.Contains(r.body, banned) {
			t.Errorf("the page holds %q", banned)
		}
	}
}
