package importer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// invoices is a file of n sales, one a minute, of one line each.
func invoices(n int) *strings.Reader {
	var b strings.Builder
	b.WriteString(strings.Join(uciColumns, ",") + "\n")
	at := time.Date(2010, 12, 1, 8, 0, 0, 0, time.UTC)
	for i := range n {
		fmt.Fprintf(&b, "%d,22423,CAKESTAND,1,%s,12.75,%d.0,France\n", 100001+i, at.Format(timeLayout), i)
		at = at.Add(time.Minute)
	}
	return strings.NewReader(b.String())
}

func uciConfig(api string, input io.Reader) Config {
	return Config{API: api, Format: FormatUCI, Input: input}
}

var ignoreDuration = cmpopts.IgnoreFields(Summary{}, "Duration")

// sums builds the expected summary of a file of plain sales.
func sums(read, accepted, replayed int) Summary {
	s := newSummary(FormatUCI)
	s.Lines, s.Read, s.Accepted, s.Replayed = read, read, accepted, replayed
	s.Mapped[DefaultsUsed] = read
	return s
}

func TestImportingAgainMakesNoSecondOrder(t *testing.T) {
	t.Parallel()
	api := newFakeOrders(t)
	url := api.serve()
	for i, want := range []Summary{sums(1200, 1200, 0), sums(1200, 0, 1200)} {
		got, err := Run(t.Context(), uciConfig(url, invoices(1200)), Deps{})
		if err != nil {
			t.Fatalf("run %d: %v", i, err)
		}
		if d := cmp.Diff(want, got, ignoreDuration); d != "" {
			t.Errorf("run %d (-want +got):\n%s", i, d)
		}
	}
	if len(api.orders) != 1200 {
		t.Errorf("the API has %d orders, want 1200", len(api.orders))
	}
}

func TestCancellationsSurviveImportingAgain(t *testing.T) {
	t.Parallel()
	const file = `InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
1,K1,,2,2011-01-04 10:00:00,1.0,7.0,France
C2,K1,,-2,2011-01-05 10:00:00,1.0,7.0,France
`
	api := newFakeOrders(t)
	url := api.serve()
	first, err := Run(t.Context(), uciConfig(url, strings.NewReader(file)), Deps{})
	if err != nil || first.Cancelled != 1 || first.CancelledBefore != 0 {
		t.Fatalf("first run: cancelled %d, before %d, error %v", first.Cancelled, first.CancelledBefore, err)
	}
	again, err := Run(t.Context(), uciConfig(url, strings.NewReader(file)), Deps{})
	if err != nil || again.Cancelled != 0 || again.CancelledBefore != 1 {
		t.Fatalf("second run: cancelled %d, before %d, error %v", again.Cancelled, again.CancelledBefore, err)
	}
	if o := api.orders["uci:1"]; o.version != 2 {
		t.Errorf("order at version %d, want 2: cancelled once", o.version)
	}
}

func TestRateIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, rate := range []float64{0.5, 8, 1000} {
			api := newFakeOrders(t)
			cfg := uciConfig("http://orders.test", invoices(100))
			cfg.Rate = rate
			start := time.Now()
			if _, err := Run(t.Context(), cfg, Deps{HTTP: api.client()}); err != nil {
				t.Fatal(err)
			}
			want := time.Duration(99 / rate * float64(time.Second))
			if took := time.Since(start); took < want || took > want+flushAfter {
				t.Errorf("%v a second: 100 orders took %s, want %s", rate, took, want)
			}
			sent := 0
			for i, n := range api.sizes {
				at := api.arrived[i].Sub(start).Seconds()
				if sent += n; float64(sent) > at*rate+1.001 {
					t.Errorf("%v a second: %d orders were there after %.3fs", rate, sent, at)
				}
			}
		}
	})
}

// Timers fire late, by about a millisecond.
func TestRateIsReachedWithLateTimers(t *testing.T) {
	t.Parallel()
	const rate, n = 5000, 10_000
	p := newPacer(Config{Rate: rate})
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now, lost := start, 10*time.Second
	for i := range n {
		if i == n/2 {
			now = now.Add(lost) // the API was away; that is not caught up with in a burst
		}
		if d := p.delay(now, item{order: &order{}}); d > 0 {
			now = now.Add(d + time.Millisecond)
		}
	}
	want := n*time.Second/rate + lost
	if took := now.Sub(start); took < want-2*slack || took > want+2*slack {
		t.Errorf("%d orders took %s, want %s", n, took, want)
	}
}

func TestSpeedKeepsTheTrueGaps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := newFakeOrders(t)
		cfg := uciConfig("http://orders.test", invoices(5)) // a minute apart
		cfg.Speed = 6
		start := time.Now()
		if _, err := Run(t.Context(), cfg, Deps{HTTP: api.client()}); err != nil {
			t.Fatal(err)
		}
		var got []time.Duration
		for _, at := range api.arrived {
			got = append(got, at.Sub(start))
		}
		want := []time.Duration{0, 10 * time.Second, 20 * time.Second, 30 * time.Second, 40 * time.Second}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("requests came after (-want +got):\n%s", d)
		}
	})
}

func TestLimitCountsOrdersOffered(t *testing.T) {
	t.Parallel()
	api := newFakeOrders(t)
	cfg := uciConfig(api.serve(), invoices(2000))
	cfg.Limit = 700
	got, err := Run(t.Context(), cfg, Deps{})
	if err != nil || got.Accepted != 700 || len(api.orders) != 700 {
		t.Errorf("accepted %d, the API has %d, error %v; want 700", got.Accepted, len(api.orders), err)
	}
}

func TestRequestsStayBounded(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(strings.Join(uciColumns, ",") + "\n")
	for i := range 25 {
		for range 1000 { // 25 orders of some 190 kB
			fmt.Fprintf(&b, "%d,22423,CAKESTAND,1,2010-12-01 08:00:00,12.75,1.0,France\n", 100001+i)
		}
	}
	api := newFakeOrders(t)
	largest := int64(0)
	api.harm = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		largest = max(largest, r.ContentLength)
		return false
	}
	if _, err := Run(t.Context(), uciConfig(api.serve(), strings.NewReader(b.String())), Deps{}); err != nil {
		t.Fatal(err)
	}
	if largest > batchBytes || largest < batchBytes/2 {
		t.Errorf("the largest request has %d bytes, want up to %d", largest, batchBytes)
	}
	api.sizes = nil
	if _, err := Run(t.Context(), uciConfig(api.serve(), invoices(batchOrders*2+1)), Deps{}); err != nil {
		t.Fatal(err)
	}
	if slices.Sort(api.sizes); !slices.Equal(api.sizes, []int{1, batchOrders, batchOrders}) {
		t.Errorf("requests of %v orders", api.sizes)
	}
}

func TestTooManyLinesAreTurnedAway(t *testing.T) {
	t.Parallel()
	row := "1,22423,CAKESTAND,1,2010-12-01 08:00:00,12.75,1.0,France\n"
	api := newFakeOrders(t)
	file := strings.Join(uciColumns, ",") + "\n" + strings.Repeat(row, maxLines+7)
	got, err := Run(t.Context(), uciConfig(api.serve(), strings.NewReader(file)), Deps{})
	if err != nil || got.Rejected[TooManyLines] != 1 || got.Lines != maxLines+7 {
		t.Errorf("error %v, summary\n%s", err, got)
	}
}

func TestRefusalCodesStayBounded(t *testing.T) {
	t.Parallel()
	api := newFakeOrders(t)
	n := 0
	api.lineHarm = func(apiOrder) (map[string]any, bool) {
		n++
		return map[string]any{"status": 422, "problem": map[string]any{"code": fmt.Sprint("code", n)}}, false
	}
	var log bytes.Buffer
	got, err := Run(t.Context(), uciConfig(api.serve(), invoices(50)), Deps{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Rejected) != refusalCodes+1 || got.Rejected[RefusedOther] != 50-refusalCodes {
		t.Errorf("rejected %v", got.Rejected)
	}
	if n := strings.Count(log.String(), "refused"); n < refusalsLogged || strings.Count(log.String(), "\n") != refusalsLogged {
		t.Errorf("logged %s, want %d refusals", log.String(), refusalsLogged)
	}
}

func TestProgressEndsWithTheSummary(t *testing.T) {
	t.Parallel()
	api := newFakeOrders(t)
	var calls []Progress
	input := invoices(2000)
	size := int64(input.Len())
	cfg := uciConfig(api.serve(), input)
	cfg.Rate = 5000
	got, err := Run(t.Context(), cfg, Deps{Progress: func(p Progress) { calls = append(calls, p) }})
	if err != nil {
		t.Fatal(err)
	}
	last := calls[len(calls)-1]
	if !last.Finished || last.Done != last.Total || last.Total != size || last.Unit != "bytes" {
		t.Errorf("last progress %d of %d %s, finished %v", last.Done, last.Total, last.Unit, last.Finished)
	}
	if d := cmp.Diff(got, last.Summary, ignoreDuration); d != "" {
		t.Errorf("last progress against summary:\n%s", d)
	}
	for i := 1; i < len(calls); i++ {
		if calls[i].Done < calls[i-1].Done || calls[i].Summary.Placed() < calls[i-1].Summary.Placed() {
			t.Errorf("progress went backwards at call %d", i)
		}
	}
	if len(calls) < 2 {
		t.Errorf("%d calls in %s", len(calls), got.Duration)
	}
}

func TestProgressIsLoggedWithoutATerminal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := newFakeOrders(t)
		cfg := uciConfig("http://orders.test", invoices(100))
		cfg.Rate, cfg.Limit = 5, 90
		var log bytes.Buffer
		_, err := Run(t.Context(), cfg, Deps{HTTP: api.client(), Log: slog.New(slog.NewTextHandler(&log, nil)), Terminal: &log})
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(log.String(), "msg=importing"); n != 3 { // 18 s, a line each 5
			t.Errorf("%d lines of progress in:\n%s", n, log.String())
		}
		if !strings.Contains(log.String(), "total=90 unit=orders") {
			t.Errorf("no way to go in:\n%s", log.String())
		}
	})
}

func TestBarShowsWhatWasPlaced(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	tell, end := drawBar(t.Context(), &out)
	s := sums(10, 7, 0)
	s.Rejected[NoGoods] = 3
	tell(Progress{Done: 50, Total: 100, Summary: sums(5, 5, 0)})
	tell(Progress{Done: 100, Total: 100, Summary: s, Finished: true})
	end()
	if got := out.String(); !strings.Contains(got, "7 placed, 3 rejected") || !strings.Contains(got, "100 %") {
		t.Errorf("bar %q", got)
	}
}

func TestSummaryIsPrintedAndEncoded(t *testing.T) {
	t.Parallel()
	s := sums(10, 7, 1)
	s.Rejected[NoGoods] = 2
	s.Duration = 2 * time.Second
	for _, want := range []string{"accepted", "no_goods", "in 2s, 4 orders a second"} {
		if !strings.Contains(s.String(), want) {
			t.Errorf("no %q in\n%s", want, s)
		}
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back Summary
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s, back); d != "" {
		t.Errorf("after JSON (-want +got):\n%s", d)
	}
	if !bytes.Contains(b, []byte(`"rejected":{"no_goods":2}`)) {
		t.Errorf("json %s", b)
	}
}

func TestFormatFollowsFromThePath(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{t.TempDir(): FormatOlist, "x.csv": FormatUCI, "": FormatUCI} {
		c := Config{API: "http://127.0.0.1:8080", Path: path}
		if path == "" {
			c.Input = Sample()
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%q: %v", path, err)
		}
		if got := c.withDefaults().Format; got != want {
			t.Errorf("%q is taken for %s, want %s", path, got, want)
		}
	}
}

func TestValidateNamesEveryProblem(t *testing.T) {
	t.Parallel()
	good := Config{API: "http://127.0.0.1:8080", Format: FormatUCI, Path: "x.csv", Rate: 3}
	if err := good.Validate(); err != nil {
		t.Errorf("good: %v", err)
	}
	bad := Config{API: "localhost:8080", Format: "xls", Rate: 1, Speed: 1, Limit: -1, Patience: -1}
	err := bad.Validate()
	for _, want := range []string{"api:", "format:", "path:", "give one of them", "limit:", "patience:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	two := Config{API: good.API, Format: FormatOlist, Input: Sample()}
	if err := two.Validate(); err == nil || !strings.Contains(err.Error(), "input:") {
		t.Errorf("a stream of olist: %v", err)
	}
	if _, err := Run(t.Context(), bad, Deps{}); err == nil {
		t.Error("Run took it")
	}
	for _, c := range []Config{
		two,
		{API: good.API, Format: FormatUCI, Path: "x", Input: Sample()},
		{API: good.API, Format: FormatUCI, Path: "x", Rate: -1},
		{API: good.API, Format: FormatUCI, Path: t.TempDir()},
		{API: good.API, Format: FormatUCI, Path: "/does/not/exist.csv"},
		{API: good.API, Format: FormatOlist, Path: t.TempDir()},
	} {
		if _, err := Run(t.Context(), c, Deps{}); err == nil {
			t.Errorf("Run took %+v", c)
		}
	}
}
