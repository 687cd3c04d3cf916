package orders

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"orderflow/schemas"
)

const cancelBody = `{"by":"CUSTOMER","reason":"changed my mind"}`

func (h *harness) cancelled(id string, header ...string) reply {
	h.t.Helper()
	return h.do("POST", "/v1/orders/"+id+"/cancel", cancelBody, header...)
}

func TestACancelledOrderSaysSoAndTellsIt(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	id := orderIDIn(t, h.place(key(1)).body)
	r := h.cancelled(id, "If-Match", `"1"`)
	if r.status != http.StatusOK || r.header.Get("ETag") != `"2"` || !strings.Contains(r.body, `"status":"CANCELLED"`) {
		t.Fatalf("got %d %v %s", r.status, r.header, r.body)
	}
	if r := h.do("GET", "/v1/orders/"+id, ""); !strings.Contains(r.body, `"cancelled":{"by":"CUSTOMER","reason":"changed my mind"}`) {
		t.Errorf("read: got %s", r.body)
	}
	var payload []byte
	if err := h.db.QueryRow(context.Background(), `SELECT payload FROM outbox.events WHERE aggregate_id = $1 AND aggregate_version = 2`, id).
		Scan(&payload); err != nil {
		t.Fatal(err)
	}
	s, _ := schemas.ByFullName("orderflow.orders.OrderCancelled")
	e, err := s.DecodeBody(payload[schemas.FrameSize:])
	if err != nil {
		t.Fatal(err)
	}
	if c := e.(*schemas.OrderCancelled); c.By != schemas.CancelledByCustomer || c.Reason != "changed my mind" || c.Meta.OrderID != id {
		t.Errorf("the event is %+v", c)
	}
}

func TestACancellationIsRefusedWithItsReason(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	id := orderIDIn(t, h.place(key(1)).body)
	refused := func(name string, r reply, status int, want code) {
		t.Helper()
		if p := problemIn(t, r); r.status != status || p.Code != want {
			t.Errorf("%s: got %d %s, want %d %s", name, r.status, p.Code, status, want)
		}
	}
	refused("another version", h.cancelled(id, "If-Match", `"2"`), 412, codeVersionMismatch)
	refused("a weak tag", h.cancelled(id, "If-Match", `W/"1"`), 412, codeVersionMismatch)
	refused("no such order", h.cancelled("0190a3b4-0000-7000-8000-000000000000"), 404, codeOrderNotFound)
	path := "/v1/orders/" + id + "/cancel"
	tooLong := strings.Repeat("x", maxReason+1)
	for body, pointer := range map[string]string{
		`{"by":"CUSTOMER"}`:                       "/reason",
		`{"by":"NOBODY","reason":"x"}`:            "/by",
		`{"reason":"x"}`:                          "/by",
		`{"by":"OPS","reason":"a\u0000b"}`:        "/reason",
		`{"by":"OPS","reason":"x","force":true}`:  "/force",
		`{"by":"OPS","reason":"` + tooLong + `"}`: "/reason",
	} {
		r := h.do("POST", path, body)
		if p := problemIn(t, r); r.status != 422 || p.Errors[0].Pointer != pointer {
			t.Errorf("%s: got %d %s", body, r.status, r.body)
		}
	}
	refused("broken JSON", h.do("POST", path, `{`), 400, codeMalformedJSON)
	if r := h.cancelled(id, "If-Match", `"7", "1"`); r.status != http.StatusOK {
		t.Errorf("one of two versions: got %d %s", r.status, r.body)
	}
	refused("cancelled already", h.cancelled(id), 409, codeNotCancellable)
	refused("cancelled already, old version", h.cancelled(id, "If-Match", `"1"`), 412, codeVersionMismatch)
	if n := h.count(`SELECT count(*) FROM outbox.events`); n != 2 {
		t.Errorf("%d events, want 2", n)
	}
}

func TestARepeatedCancellationIsAnsweredFromWhatIsStored(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	id := orderIDIn(t, h.place(key(1)).body)
	first := h.cancelled(id, "If-Match", `"1"`, "Idempotency-Key", key(2))
	again := h.cancelled(id, "If-Match", `"1"`, "Idempotency-Key", key(2))
	if first.status != http.StatusOK || again.status != http.StatusOK || again.body != first.body || again.header.Get("Idempotency-Replayed") != "true" || again.header.Get("ETag") != `"2"` {
		t.Errorf("got %d %s, then %d %v %s", first.status, first.body, again.status, again.header, again.body)
	}
	if p := problemIn(t, h.cancelled(id, "Idempotency-Key", key(1))); p.Code != codeKeyReused {
		t.Errorf("the order's own key: got %s", p.Code)
	}
	refusedOnce := orderIDIn(t, h.place(key(3)).body)
	if r := h.cancelled(refusedOnce, "If-Match", `"9"`, "Idempotency-Key", key(4)); r.status != http.StatusPreconditionFailed {
		t.Errorf("got %d", r.status)
	}
	if r := h.cancelled(refusedOnce, "If-Match", `"1"`, "Idempotency-Key", key(4)); r.status != http.StatusOK || r.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("a refusal used up the key: got %d %s", r.status, r.body)
	}
}

// TestParallelCancellationsMakeOneAndTheEventsStayInOrder runs cancellations of
// the same orders through two instances while new orders are placed. Whatever
// happens, each order's events are versions 1, 2 in the order of the outbox.
func TestParallelCancellationsMakeOneAndTheEventsStayInOrder(t *testing.T) {
	t.Parallel()
	url := database(t)
	instances := []*harness{startOn(t, url, Config{}), startOn(t, url, Config{})}
	const orders, attempts = 12, 6
	var done atomic.Int64
	var wg sync.WaitGroup
	for o := range orders {
		wg.Go(func() {
			r, err := instances[o%2].send("POST", "/v1/orders", strings.NewReader(sample), "Idempotency-Key", key(o))
			if err != nil || r.status != http.StatusCreated {
				t.Errorf("place: %d %v", r.status, err)
				return
			}
			path := "/v1/orders/" + orderIDIn(t, r.body) + "/cancel"
			var races sync.WaitGroup
			for a := range attempts {
				races.Go(func() {
					var header []string
					if a%2 == 0 {
						header = []string{"Idempotency-Key", fmt.Sprintf("cancel-race-%d-%d-", o, a) + key(0)}
					}
					switch r, err := instances[a%2].send("POST", path, strings.NewReader(cancelBody), header...); {
					case err != nil:
						t.Error(err)
					case r.status == http.StatusOK:
						done.Add(1)
					case r.status != http.StatusConflict:
						t.Errorf("cancel: got %d %s", r.status, r.body)
					}
				})
			}
			races.Wait()
		})
	}
	wg.Wait()
	if done.Load() != orders {
		t.Errorf("%d cancellations were accepted, want %d", done.Load(), orders)
	}
	broken := instances[0].count(`SELECT count(*) FROM (
		SELECT array_agg(aggregate_version ORDER BY seq) = ARRAY[1, 2]::bigint[] AS ok FROM outbox.events GROUP BY aggregate_id) x WHERE NOT ok`)
	if broken != 0 {
		t.Errorf("the events of %d orders are out of order or not two", broken)
	}
	if n := instances[0].count(`SELECT count(*) FROM orders.orders o
		WHERE version <> (SELECT max(aggregate_version) FROM outbox.events e WHERE e.aggregate_id = o.order_id::text)`); n != 0 {
		t.Errorf("%d orders and their events differ in version", n)
	}
}
