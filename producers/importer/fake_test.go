package importer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeOrders behaves like the Orders API as far as an import can tell, and can be
// made to misbehave.
type fakeOrders struct {
	t *testing.T

	mu       sync.Mutex // protects all below
	orders   map[string]*fakeOrder
	byID     map[string]*fakeOrder
	requests []string // method and path of every request
	sizes    []int    // lines of each ingest
	arrived  []time.Time
	// Each is asked at every request and may do the request's harm itself by
	// returning true.
	harm func(n int, w http.ResponseWriter, r *http.Request) bool
	// lineHarm replaces the answer to one line; what it returns is sent.
	lineHarm func(o apiOrder) (answer map[string]any, commit bool)
	// cutAfter drops the connection after so many answers of the next ingests,
	// having committed all lines.
	cutAfter []int
	// endAfter ends the stream after so many answers of the next ingests with the
	// problem of an API that stops, having handled no more.
	endAfter []int
	// down makes client's connections fail. It takes its own locks.
	down func() bool
}

type fakeOrder struct {
	id      string
	body    string
	order   apiOrder
	version int
	status  string
	cancels []apiCancel
}

// apiOrder is the contract of one ingest line, written down a second time.
type apiOrder struct {
	ClientOrderID string `json:"client_order_id"`
	CustomerID    string `json:"customer_id"`
	Channel       string `json:"channel"`
	PlacedAt      string `json:"placed_at"`
	Lines         []struct {
		SKU       string    `json:"sku"`
		Title     string    `json:"title"`
		Quantity  int       `json:"quantity"`
		UnitPrice apiMoney  `json:"unit_price"`
		Freight   *apiMoney `json:"freight"`
		SellerID  string    `json:"seller_id"`
		WeightG   int       `json:"weight_g"`
		SizeCM    struct {
			Length int `json:"length"`
			Width  int `json:"width"`
			Height int `json:"height"`
		} `json:"size_cm"`
	} `json:"lines"`
	Discount *apiMoney `json:"discount"`
	Tax      *apiMoney `json:"tax"`
	ShipTo   struct {
		Country      string `json:"country"`
		Region       string `json:"region"`
		City         string `json:"city"`
		PostalPrefix string `json:"postal_prefix"`
	} `json:"ship_to"`
	Payment struct {
		Method       string `json:"method"`
		Installments int    `json:"installments"`
	} `json:"payment"`
	PromisedBy string `json:"promised_by"`
	Source     struct {
		System string `json:"system"`
		Ref    string `json:"ref"`
	} `json:"source"`
}

type apiMoney struct {
	Amount   string `json:"amount"`
	Currency string `json:"currency"`
}

type apiCancel struct {
	Reason string `json:"reason"`
	By     string `json:"by"`
}

func newFakeOrders(t *testing.T) *fakeOrders {
	return &fakeOrders{t: t, orders: map[string]*fakeOrder{}, byID: map[string]*fakeOrder{}}
}

// serve starts the fake on a port of its own.
func (f *fakeOrders) serve() string {
	s := httptest.NewServer(f)
	f.t.Cleanup(s.Close)
	return s.URL
}

// client calls the fake without a network, for tests on a virtual clock.
func (f *fakeOrders) client() *http.Client {
	return &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		if f.down != nil && f.down() {
			return nil, errors.New("connection refused")
		}
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		return w.Result(), r.Context().Err()
	})}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (f *fakeOrders) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r.Method+" "+r.URL.Path)
	if f.harm != nil && f.harm(len(f.requests), w, r) {
		return
	}
	id := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/v1/orders/"), "/cancel")
	switch {
	case r.Method == http.MethodGet && r.URL.Path == "/v1/orders":
		fmt.Fprint(w, `{"items":[],"next_cursor":null}`)
	case r.Method == http.MethodPost && r.URL.Path == "/v1/orders:ingest":
		f.ingest(w, r)
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/cancel"):
		f.cancel(w, r, f.byID[id])
	case r.Method == http.MethodGet && f.byID[id] != nil:
		o := f.byID[id]
		w.Header().Set("ETag", fmt.Sprintf("%q", fmt.Sprint(o.version)))
		fmt.Fprintf(w, `{"order_id":%q,"status":%q}`, o.id, o.status)
	default:
		refuse(w, http.StatusNotFound, "not_found")
	}
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"title":%q,"status":%d,"code":%q,"detail":"because %s"}`, http.StatusText(status), status, code, code)
}

func (f *fakeOrders) ingest(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client went away
	}
	if got := r.Header.Get("Content-Type"); got != "application/x-ndjson" {
		f.t.Errorf("content type %q", got)
	}
	f.arrived = append(f.arrived, time.Now())
	lines := bytes.Split(bytes.TrimSuffix(body, []byte("\n")), []byte("\n"))
	f.sizes = append(f.sizes, len(lines))
	cut := -1
	if len(f.cutAfter) > 0 {
		cut, f.cutAfter = f.cutAfter[0], f.cutAfter[1:]
	}
	end := -1
	if len(f.endAfter) > 0 {
		end, f.endAfter = f.endAfter[0], f.endAfter[1:]
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	var out bytes.Buffer
	for i, text := range lines {
		if i == end {
			out.WriteString(`{"problem":{"title":"Shutting down","status":503,"code":"shutting_down"}}` + "\n")
			w.Write(out.Bytes())
			return
		}
		a := f.line(text)
		a["line"] = i + 1
		if cut >= 0 && i >= cut {
			continue
		}
		b, _ := json.Marshal(a)
		out.Write(append(b, '\n'))
	}
	if cut < 0 {
		out.WriteString(`{"summary":{"accepted":0,"replayed":0,"rejected":0}}` + "\n")
	}
	w.Write(out.Bytes())
	if cut >= 0 {
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func (f *fakeOrders) line(text []byte) map[string]any {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var o apiOrder
	if err := d.Decode(&o); err != nil {
		f.t.Errorf("the API cannot read %s: %v", text, err)
	}
	if len(o.Lines) == 0 || len(text) > 256<<10 {
		f.t.Errorf("%s: %d lines, %d bytes", o.ClientOrderID, len(o.Lines), len(text))
	}
	if f.lineHarm != nil {
		if a, commit := f.lineHarm(o); a != nil {
			if commit {
				f.place(o, string(text))
			}
			return a
		}
	}
	if old := f.orders[o.ClientOrderID]; old != nil {
		if old.body != string(text) {
			return map[string]any{"status": 422, "problem": map[string]any{"code": "idempotency_key_reused"}}
		}
		return map[string]any{"status": 200, "replayed": true, "order_id": old.id, "version": 1}
	}
	return map[string]any{"status": 201, "order_id": f.place(o, string(text)).id, "version": 1}
}

func (f *fakeOrders) place(o apiOrder, body string) *fakeOrder {
	n := &fakeOrder{id: fmt.Sprintf("order-%d", len(f.orders)+1), body: body, order: o, version: 1, status: "PLACED"}
	f.orders[o.ClientOrderID], f.byID[n.id] = n, n
	return n
}

func (f *fakeOrders) cancel(w http.ResponseWriter, r *http.Request, o *fakeOrder) {
	var c apiCancel
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		f.t.Errorf("the API cannot read a cancellation: %v", err)
	}
	switch {
	case o == nil:
		refuse(w, http.StatusNotFound, "order_not_found")
	case r.Header.Get("If-Match") != fmt.Sprintf("%q", fmt.Sprint(o.version)):
		refuse(w, http.StatusPreconditionFailed, "version_mismatch")
	case o.status != "PLACED":
		refuse(w, http.StatusConflict, "order_not_cancellable")
	default:
		o.version, o.status, o.cancels = o.version+1, "CANCELLED", append(o.cancels, c)
		fmt.Fprintf(w, `{"order_id":%q,"status":"CANCELLED","version":%d}`, o.id, o.version)
	}
}

func (f *fakeOrders) cancelled() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var refs []string
	for ref, o := range f.orders {
		if o.status == "CANCELLED" {
			refs = append(refs, ref)
		}
	}
	return refs
}
