package importer

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestOrdersSurviveACutConnection(t *testing.T) {
	t.Parallel()
	api := newFakeOrders(t)
	api.cutAfter = []int{0, 3, 9}
	got, err := Run(t.Context(), uciConfig(api.serve(), invoices(10)), Deps{})
	if err != nil {
		t.Fatal(err)
	}
	// Every line was committed in the first request, and that answer was lost.
	if d := cmp.Diff(sums(10, 0, 10), got, ignoreDuration); d != "" {
		t.Errorf("summary (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]int{10, 10, 7}, api.sizes); d != "" {
		t.Errorf("lines sent: only the unanswered are sent again (-want +got):\n%s", d)
	}
}

func TestOrdersSurviveAnAPIThatStopsInMidStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := newFakeOrders(t)
		api.endAfter = []int{0, 4}
		got, err := Run(t.Context(), uciConfig("http://orders.test", invoices(10)), Deps{HTTP: api.client()})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(sums(10, 10, 0), got, ignoreDuration); d != "" {
			t.Errorf("summary (-want +got):\n%s", d)
		}
		if d := cmp.Diff([]int{10, 10, 6}, api.sizes); d != "" {
			t.Errorf("lines sent (-want +got):\n%s", d)
		}
	})
}

func TestACancellationWaitsForAnOrderInUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := newFakeOrders(t)
		busy := 3
		api.harm = func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/cancel") || busy == 0 {
				return false
			}
			busy--
			w.Header().Set("Retry-After", "1")
			refuse(w, http.StatusConflict, "request_in_progress")
			return true
		}
		file := strings.Join(uciColumns, ",") + "\n1,K1,,2,2011-01-04 10:00:00,1.0,7.0,France\nC2,K1,,-2,2011-01-05 10:00:00,1.0,7.0,France\n"
		got, err := Run(t.Context(), uciConfig("http://orders.test", strings.NewReader(file)), Deps{HTTP: api.client()})
		if err != nil || got.Cancelled != 1 {
			t.Errorf("error %v, summary\n%s", err, got)
		}
	})
}

func TestImportWaitsOutAnUnavailableAPI(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := newFakeOrders(t)
		statuses := []int{503, 429, 500, 502, 504, 503}
		api.harm = func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n == 1 || n > 1+len(statuses) { // the first asks whether anybody is there
				return false
			}
			w.Header().Set("Retry-After", "7")
			refuse(w, statuses[n-2], "later")
			return true
		}
		start := time.Now()
		got, err := Run(t.Context(), uciConfig("http://orders.test", invoices(3)), Deps{HTTP: api.client()})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(sums(3, 3, 0), got, ignoreDuration); d != "" {
			t.Errorf("summary (-want +got):\n%s", d)
		}
		if took := time.Since(start); took < 6*7*time.Second || took > 6*8*time.Second {
			t.Errorf("took %s, want six times the Retry-After of 7s", took)
		}
	})
}

func TestFirstContactIsWaitedForBriefly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := newFakeOrders(t)
		api.down = func() bool { return true }
		start := time.Now()
		_, err := Run(t.Context(), uciConfig("http://orders.test", invoices(3)), Deps{HTTP: api.client()})
		if took := time.Since(start); err == nil || took != firstContact {
			t.Errorf("error %v after %s, want one after %s", err, took, firstContact)
		}
	})
}

func TestLinesThatMayPassAreSentAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := newFakeOrders(t)
		tries := map[string]int{}
		api.lineHarm = func(o apiOrder) (map[string]any, bool) {
			tries[o.ClientOrderID]++
			if o.Source.Ref == "100002" && tries[o.ClientOrderID] < 4 {
				return map[string]any{"status": []int{503, 409, 429}[tries[o.ClientOrderID]-1], "problem": map[string]any{}}, false
			}
			return nil, false
		}
		got, err := Run(t.Context(), uciConfig("http://orders.test", invoices(3)), Deps{HTTP: api.client()})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(sums(3, 3, 0), got, ignoreDuration); d != "" {
			t.Errorf("summary (-want +got):\n%s", d)
		}
		if d := cmp.Diff([]int{3, 1, 1, 1}, api.sizes); d != "" {
			t.Errorf("lines sent (-want +got):\n%s", d)
		}
	})
}

func TestAPIThatIsNotThereIsNamed(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port nobody listens on, once closed
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	l.Close()
	cfg := uciConfig(url, invoices(1))
	cfg.Patience = 300 * time.Millisecond
	var log bytes.Buffer
	_, err = Run(t.Context(), cfg, Deps{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{url, "connection refused", "import again"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
	if !strings.Contains(log.String(), "wait for the orders api") {
		t.Errorf("the log does not say that it waits: %q", log.String())
	}
}

func TestAnAPIThatIsAnotherEndsTheImportAtOnce(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"/v1/orders", "/v1/orders:ingest"} {
		api := newFakeOrders(t)
		api.harm = func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == at {
				refuse(w, http.StatusNotFound, "not_found")
			}
			return r.URL.Path == at
		}
		_, err := Run(t.Context(), uciConfig(api.serve(), invoices(1)), Deps{})
		if err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("404 at %s: error %v", at, err)
		}
		if n := len(api.requests); n > 2 {
			t.Errorf("404 at %s: asked %d times", at, n)
		}
	}
}

func TestAnImportThatLostItsAPIIsContinuedByTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := newFakeOrders(t)
		var down atomic.Bool
		api.down = down.Load
		api.lineHarm = func(apiOrder) (map[string]any, bool) {
			down.Store(len(api.orders) >= 1200)
			return nil, false
		}
		cfg := uciConfig("http://orders.test", invoices(3000))
		cfg.Patience = 30 * time.Second
		start := time.Now()
		got, err := Run(t.Context(), cfg, Deps{HTTP: api.client()})
		if err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Fatalf("error %v, want the refused connection", err)
		}
		if took := time.Since(start); took != cfg.Patience {
			t.Errorf("gave up after %s, want the patience of %s", took, cfg.Patience)
		}
		if got.Accepted < 1200 || got.Accepted >= 3000 {
			t.Errorf("accepted %d before the end, want some and not all", got.Accepted)
		}
		api.lineHarm, cfg.Input = nil, invoices(3000)
		down.Store(false)
		again, err := Run(t.Context(), cfg, Deps{HTTP: api.client()})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(sums(3000, 3000-got.Accepted, got.Accepted), again, ignoreDuration); d != "" {
			t.Errorf("second summary (-want +got):\n%s", d)
		}
	})
}

func TestImportEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	api := newFakeOrders(t)
	api.lineHarm = func(apiOrder) (map[string]any, bool) {
		if len(api.orders) == 700 {
			cancel()
		}
		return nil, false
	}
	got, err := Run(ctx, uciConfig(api.serve(), invoices(5000)), Deps{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	if got.Accepted >= 5000 {
		t.Errorf("accepted all %d", got.Accepted)
	}
}

func TestAnImportEndedInItsLastRequestDoesNotCallItselfDone(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	api := newFakeOrders(t)
	api.lineHarm = func(apiOrder) (map[string]any, bool) {
		cancel()
		return nil, false
	}
	api.cutAfter = []int{1}
	if got, err := Run(ctx, uciConfig(api.serve(), invoices(3)), Deps{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled; summary\n%s", err, got)
	}
}

func TestNoConnectionIsLeftOpen(t *testing.T) {
	t.Parallel()
	var open atomic.Int64
	s := httptest.NewUnstartedServer(newFakeOrders(t))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	s.Start()
	defer s.Close()
	if _, err := Run(t.Context(), uciConfig(s.URL, invoices(1200)), Deps{}); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		if open.Load() == 0 {
			return
		}
		<-tick.C
	}
	t.Errorf("%d connections are still open", open.Load())
}
