package consumers

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"orderflow/internal/kafka"
	"orderflow/internal/testenv"
	"orderflow/schemas"
)

func TestAWrongDeclarationIsRefusedWithEveryProblem(t *testing.T) {
	t.Parallel()
	h := OnBatch(record[*schemas.OrderPlaced])
	err := Consumer{Group: "No Good", Handlers: []Handler{h, h}}.Run(t.Context(), Deps{})
	if err == nil {
		t.Fatal("it ran")
	}
	for _, part := range []string{"No Good", "two handlers of orderflow.orders.OrderPlaced", "brokers"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	if err := (Consumer{Group: "g"}).Validate(); err == nil || !strings.Contains(err.Error(), "no handlers") {
		t.Errorf("a consumer without handlers: %v", err)
	}
	if err := (Consumer{Group: "g", Handlers: []Handler{h}}).Run(t.Context(), Deps{Kafka: kafka.Config{Brokers: []string{"127.0.0.1:1"}}}); err == nil {
		t.Error("it ran without a database")
	}
}

func TestAGroupReadsTheTopicsOfItsHandlers(t *testing.T) {
	t.Parallel()
	c := Consumer{Handlers: []Handler{
		OnBatch(func(context.Context, pgx.Tx, []Event[*schemas.SellerAccepted]) error { return nil }),
		OnBatch(record[*schemas.OrderPlaced]), OnBatch(record[*schemas.OrderCancelled]),
	}}
	if got := strings.Join(c.Topics(), " "); got != "orders.events.v1 sellers.events.v1" {
		t.Errorf("topics %q", got)
	}
}

func TestTheWorkerOfAServiceLivesAndEndsWithRun(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	var alive atomic.Int64
	m := b.run(func(c *Consumer, _ *Deps) {
		c.Worker = func(ctx context.Context, w WorkerDeps) error {
			alive.Add(1)
			defer alive.Add(-1)
			<-ctx.Done()
			return w.DB.Ping(context.Background())
		}
	})
	testenv.Wait(t, waitLong, "the worker to live", func() bool { return alive.Load() == 1 })
	m.stop()
	if alive.Load() != 0 {
		t.Error("the worker outlived Run")
	}
}

func TestTheErrorOfAWorkerEndsRun(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	broken := errors.New("no mail server")
	m := b.run(func(c *Consumer, _ *Deps) {
		c.Worker = func(context.Context, WorkerDeps) error { return broken }
	})
	m.stopped = true
	if err := <-m.done; !errors.Is(err, broken) {
		t.Errorf("run ended with %v, want the worker's error", err)
	}
}

// A registry that is away is waited for: nothing becomes a dead letter.
func TestARegistryThatIsAwayMakesEventsWait(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	var away atomic.Bool
	away.Store(true)
	u := must(url.Parse(testenv.Registry(t)))(t)
	behind := httputil.NewSingleHostReverseProxy(u)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if away.Load() {
			http.Error(w, "away", http.StatusServiceUnavailable)
			return
		}
		behind.ServeHTTP(w, r)
	}))
	defer front.Close()
	b.registry = must(schemas.NewRegistry(u.String()))(t)
	b.write(placedOrders(0, 10))
	m := b.run(func(_ *Consumer, d *Deps) { d.Decoder = schemas.NewDecoder(must(schemas.NewRegistry(front.URL))(t)) })
	m.waitMetric(3, "orderflow_consumer_retries_total", "cause", "infrastructure")
	if n := len(b.effects()) + len(b.holds()); n != 0 {
		t.Errorf("%d effects and holds while the registry is away", n)
	}
	away.Store(false)
	b.waitApplied(10)
	b.checkOnceInOrder(all)
}

// increase() of a series that first appears with 1 is 0, so an alert would
// miss the first.
func TestCountersThatAlertsWatchBeginWithZero(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	m := newMetrics(reg, "ledger")
	m.zeroTopic(ordersTopic)
	m.zeroSource(ordersTopic, testSource)
	families := must(reg.Gather())(t)
	there := map[string]bool{}
	for _, f := range families {
		there[f.GetName()] = true
		for _, s := range f.GetMetric() {
			if c := s.GetCounter(); c != nil && c.GetValue() != 0 {
				t.Errorf("%s begins with %v", f.GetName(), c.GetValue())
			}
			if s.GetLabel()[0].GetName() == "" {
				t.Errorf("%s has no labels", f.GetName())
			}
		}
	}
	for _, name := range []string{
		"orderflow_consumer_records_total", "orderflow_consumer_fence_rejections_total", "orderflow_consumer_rebalances_total",
		"orderflow_consumer_sequence_gaps_total", "orderflow_consumer_sequence_duplicates_total",
		"orderflow_consumer_commit_unknown_total", "orderflow_dead_letters_total", "orderflow_hold_records",
	} {
		if !there[name] {
			t.Errorf("%s does not exist before the first event", name)
		}
	}
	newMetrics(reg, "ledger") // a second run in one process
	newMetrics(reg, "seller") // another group beside it
}

func TestAgesAndPositionsShowInTheMetrics(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	b.write(placedOrders(0, 10))
	m := b.run()
	b.waitApplied(10)
	m.waitMetric(10, "orderflow_event_age_at_effect_seconds", "group", testGroup, "topic", ordersTopic)
	m.waitMetric(10, "orderflow_consumer_records_total", "result", "applied")
	m.waitMetric(11, "orderflow_consumer_position_offset", "partition", "0") // the marker counts
	m.stop()
	if got := m.metric("orderflow_consumer_position_offset"); got != 0 {
		t.Errorf("a position of %v is shown for a partition that is no longer ours", got)
	}
}
