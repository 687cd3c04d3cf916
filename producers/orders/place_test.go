package orders

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"orderflow/schemas"
)

func TestAnAcceptedOrderIsStoredWithItsLinesAndItsEvent(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	const tp = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	body := edit(t, `"channel"`, `"placed_at":"2010-12-01T08:26:00+01:00","discount":{"amount":"8.321","currency":"GBP"},"tax":{"amount":"1","currency":"GBP"},"channel"`)
	r := h.do("POST", "/v1/orders", body, "Idempotency-Key", key(1), "Traceparent", tp)
	if r.status != http.StatusCreated {
		t.Fatalf("got %d %s", r.status, r.body)
	}
	id := orderIDIn(t, r.body)
	if got := r.header.Get("Location"); got != "/v1/orders/"+id {
		t.Errorf("Location: got %q", got)
	}
	if got := r.header.Get("ETag"); got != `"1"` {
		t.Errorf("ETag: got %q", got)
	}
	if n := h.count(`SELECT sum(unit_minor * quantity) FROM orders.order_lines WHERE order_id = $1`, id); n != 98320 {
		t.Errorf("lines add up to %d, want 98320 at scale 3", n)
	}

	var payload, headers []byte
	var version int64
	err := h.db.QueryRow(context.Background(), `SELECT payload, headers, aggregate_version FROM outbox.events
		WHERE aggregate_id = $1 AND topic = 'orders.events.v1' AND event_type = 'orderflow.orders.OrderPlaced'`, id).
		Scan(&payload, &headers, &version)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(headers, []byte(tp)) {
		t.Error("the event does not carry the request's trace context")
	}
	s, _ := schemas.ByFullName("orderflow.orders.OrderPlaced")
	e, err := s.DecodeBody(payload[schemas.FrameSize:])
	if err != nil {
		t.Fatal(err)
	}
	placed := e.(*schemas.OrderPlaced)
	if placed.Meta.OrderID != id || placed.Meta.OrderVersion != 1 || version != 1 {
		t.Errorf("the event tells of %s at version %d", placed.Meta.OrderID, placed.Meta.OrderVersion)
	}
	if got := placed.Meta.OccurredAt.UTC().Format("2006-01-02T15:04:05"); got != "2010-12-01T07:26:00" {
		t.Errorf("the event occurred at %s", got)
	}
	want := schemas.Totals{
		Items: schemas.Money{Minor: 98320, Currency: "GBP", Scale: 3}, Freight: schemas.Money{Currency: "GBP", Scale: 3},
		Discount: schemas.Money{Minor: 8321, Currency: "GBP", Scale: 3}, Tax: schemas.Money{Minor: 1000, Currency: "GBP", Scale: 3},
		Grand: schemas.Money{Minor: 90999, Currency: "GBP", Scale: 3},
	}
	if diff := cmp.Diff(want, placed.Totals); diff != "" {
		t.Errorf("totals (-want +got):\n%s", diff)
	}
	if len(placed.Lines) != 5 || placed.Lines[0].SKU != "85123A" || placed.Lines[4].LineNo != 5 {
		t.Errorf("the event's lines are %+v", placed.Lines)
	}
}

func TestAnOrderReadsAsItWasPlaced(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	body := edit(t, firstLine, firstLine+`,"weight_g":300,"size_cm":{"length":20,"width":15,"height":10},"freight":{"amount":"4.50","currency":"GBP"}`)
	body = strings.Replace(body, `{"country":"GB"}`, `{"country":"GB","region":"Greater \"London\"","city":null}`, 1)
	id := orderIDIn(t, h.do("POST", "/v1/orders", body, "Idempotency-Key", key(1)).body)

	r := h.do("GET", "/v1/orders/"+id, "")
	var got struct {
		Version int
		Status  string
		Lines   []map[string]any
		Totals  map[string]Money
		ShipTo  map[string]string `json:"ship_to"`
	}
	if err := json.Unmarshal([]byte(r.body), &got); err != nil {
		t.Fatal(err)
	}
	if got.Version != 1 || got.Status != "PLACED" || len(got.Lines) != 5 || got.ShipTo["region"] != `Greater "London"` {
		t.Errorf("got %+v", got)
	}
	if diff := cmp.Diff(map[string]any{
		"line_no": 1.0, "sku": "85123A", "title": "WHITE HANGING HEART T-LIGHT HOLDER", "quantity": 6.0, "seller_id": "uci",
		"unit_price": map[string]any{"amount": "2.55", "currency": "GBP"}, "freight": map[string]any{"amount": "4.50", "currency": "GBP"},
		"weight_g": 300.0, "size_cm": map[string]any{"length": 20.0, "width": 15.0, "height": 10.0},
	}, got.Lines[0]); diff != "" {
		t.Errorf("first line (-want +got):\n%s", diff)
	}
	if g := got.Totals["grand"].Amount; g != "102.82" {
		t.Errorf("grand total: got %s, want 102.82", g)
	}
	if r := h.do("GET", "/v1/orders/"+id, "", "If-None-Match", `"1"`); r.status != http.StatusNotModified {
		t.Errorf("unchanged: got %d, want 304", r.status)
	}
	if r := h.do("GET", "/v1/orders/"+id, "", "If-None-Match", `W/"7", "1"`); r.status != http.StatusNotModified {
		t.Errorf("one of two unchanged: got %d, want 304", r.status)
	}
	if r := h.do("GET", "/v1/orders/"+id, "", "If-None-Match", `"2"`); r.status != http.StatusOK {
		t.Errorf("changed: got %d, want 200", r.status)
	}
	for _, unknown := range []string{"0190a3b4-0000-7000-8000-000000000000", strings.ToUpper(id), "{" + id + "}", "x"} {
		r := h.do("GET", "/v1/orders/"+unknown, "")
		if p := problemIn(t, r); r.status != http.StatusNotFound || p.Code != codeOrderNotFound {
			t.Errorf("%s: got %d %s", unknown, r.status, p.Code)
		}
	}
}

func TestARepeatedRequestIsAnsweredFromWhatIsStored(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	first := h.place(key(1))
	id := orderIDIn(t, first.body)
	if r := h.do("POST", "/v1/orders/"+id+"/cancel", `{"by":"OPS","reason":"x"}`); r.status != http.StatusOK {
		t.Fatalf("cancel: got %d %s", r.status, r.body)
	}
	// The same order in other words, and the key quoted.
	again := strings.NewReplacer("\n", " ", `"2.55"`, `"2.550"`, `"installments":1`, `"installments":null`).Replace(sample)
	again = strings.Replace(again, `"channel":"uci",`, ``, 1)
	again = again[:len(again)-1] + `,"channel":"uci","promised_by":null}`
	r := h.do("POST", "/v1/orders", again, "Idempotency-Key", `"`+key(1)+`"`)
	if r.status != http.StatusCreated || r.body != first.body || r.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("got %d %v %s, want the first answer %s", r.status, r.header, r.body, first.body)
	}
	if r.header.Get("Location") != first.header.Get("Location") || r.header.Get("ETag") != `"1"` {
		t.Errorf("headers: got %v", r.header)
	}
	if first.header.Get("Idempotency-Replayed") != "" {
		t.Error("the first answer was called a replay")
	}
	if n := h.count(`SELECT count(*) FROM orders.orders`); n != 1 {
		t.Errorf("%d orders, want 1", n)
	}
}

func TestAKeyReusedForAnotherRequestIsRefused(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	id := orderIDIn(t, h.place(key(1)).body)
	other := edit(t, `"quantity":6`, `"quantity":7`)
	timed := edit(t, `"channel"`, `"placed_at":"2010-12-01T08:26:00Z","channel"`)
	for _, r := range []reply{
		h.do("POST", "/v1/orders", other, "Idempotency-Key", key(1)),
		h.do("POST", "/v1/orders", timed, "Idempotency-Key", key(1)),
		h.do("POST", "/v1/orders/"+id+"/cancel", `{"by":"OPS","reason":"x"}`, "Idempotency-Key", key(1)),
	} {
		if p := problemIn(t, r); r.status != http.StatusUnprocessableEntity || p.Code != codeKeyReused {
			t.Errorf("got %d %s", r.status, r.body)
		}
	}
	if r := h.do("POST", "/v1/orders", other, "Idempotency-Key", key(1), "X-Client-Id", "another"); r.status != http.StatusCreated {
		t.Errorf("another client's key: got %d %s", r.status, r.body)
	}
}

func TestKeysAreReadQuotedAndBare(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("k", maxKey)
	for _, tc := range []struct {
		header []string
		key    string // "" if refused
	}{
		{[]string{"0123456789abcdef"}, "0123456789abcdef"},
		{[]string{`"0123456789abcdef"`}, "0123456789abcdef"},
		{[]string{` "0123456789 bcdef" `}, "0123456789 bcdef"},
		{[]string{`"0123456789\"\\cdef"`}, `0123456789"\cdef`},
		{[]string{long}, long},
		{[]string{long + "k"}, ""},
		{[]string{"0123456789abcde"}, ""},
		{[]string{`"0123456789abcde"`}, ""},
		{[]string{""}, ""},
		{[]string{`"0123456789abcdef`}, ""},
		{[]string{`"0123456789abcdef"x`}, ""},
		{[]string{`"0123456789abcdef\`}, ""},
		{[]string{`"0123456789abcd\ef"`}, ""},
		{[]string{`0123456789abcdef;p=1`}, ""},
		{[]string{"0123456789abcde\u00e9"}, ""},
		{[]string{"0123456789abcdef", "0123456789abcdef"}, ""},
	} {
		r := &http.Request{Header: http.Header{"Idempotency-Key": tc.header}}
		k, present, err := keyHeader(r)
		if !present || (err == nil) != (tc.key != "") || k.key != tc.key {
			t.Errorf("%q: got %q %v", tc.header, k.key, err)
		}
	}
	if _, present, err := keyHeader(&http.Request{Header: http.Header{}}); present || err != nil {
		t.Errorf("no header: got %v %v", present, err)
	}
}

func Test200ParallelIdenticalRequestsMakeOneOrder(t *testing.T) {
	t.Parallel()
	databaseURL := database(t)
	// Two instances, so that some meet in a batch, some in the database.
	instances := []*harness{startOn(t, databaseURL, Config{Writers: 2}), startOn(t, databaseURL, Config{})}
	var wg sync.WaitGroup
	answers := make([]reply, 200)
	errs := make([]error, len(answers))
	for i := range answers {
		wg.Go(func() {
			answers[i], errs[i] = instances[i%2].send("POST", "/v1/orders", strings.NewReader(sample), "Idempotency-Key", key(1))
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	fresh, ids := 0, map[string]bool{}
	for _, r := range answers {
		if r.status != http.StatusCreated {
			t.Fatalf("got %d %s", r.status, r.body)
		}
		if r.header.Get("Idempotency-Replayed") == "" {
			fresh++
		}
		ids[r.body] = true
	}
	if fresh != 1 || len(ids) != 1 {
		t.Errorf("%d answers were not replays, %d different ones; want 1 and 1", fresh, len(ids))
	}
	h := instances[0]
	if n, e := h.count(`SELECT count(*) FROM orders.orders`), h.count(`SELECT count(*) FROM outbox.events`); n != 1 || e != 1 {
		t.Errorf("%d orders and %d events, want 1 and 1", n, e)
	}
}

func TestConcurrentRequestsEachGetTheirOwnAnswer(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	const clients, each = 32, 20
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]string{} // order id -> reference
	for c := range clients {
		wg.Go(func() {
			for i := range each {
				ref := fmt.Sprintf("%d-%d", c, i)
				body := strings.Replace(sample, "536365", ref, 1)
				r, err := h.send("POST", "/v1/orders", strings.NewReader(body), "Idempotency-Key", "own-answer-key-"+ref)
				if err != nil || r.status != http.StatusCreated {
					t.Errorf("%s: %d %v", ref, r.status, err)
					return
				}
				mu.Lock()
				seen[orderIDIn(t, r.body)] = ref
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != clients*each {
		t.Fatalf("%d different orders, want %d", len(seen), clients*each)
	}
	for id, ref := range seen {
		if n := h.count(`SELECT count(*) FROM orders.orders WHERE order_id = $1 AND position($2 IN convert_from(doc, 'UTF8')) > 0`,
			id, `"ref":"`+ref+`"`); n != 1 {
			t.Errorf("order %s is not that of %s", id, ref)
		}
	}
	if n := h.count(`SELECT count(DISTINCT xid) FROM outbox.events`); n >= clients*each {
		t.Errorf("%d orders took %d transactions: none shared one", clients*each, n)
	}
}
