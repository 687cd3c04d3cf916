package lag_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/internal/embedded"
	"orderflow/internal/kafka"
	"orderflow/internal/lag"
	"orderflow/internal/testenv"
)

// scrape renders the series of a registry as name{labels} -> value.
func scrape(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			value := m.GetGauge().GetValue()
			if m.GetCounter() != nil {
				value = m.GetCounter().GetValue()
			}
			series[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = value
		}
	}
	return series
}

// pick returns the series whose names begin with one of the prefixes.
func pick(series map[string]float64, prefixes ...string) map[string]float64 {
	some := map[string]float64{}
	for name, value := range series {
		for _, prefix := range prefixes {
			if strings.HasPrefix(name, prefix) {
				some[name] = value
			}
		}
	}
	return some
}

func (c *cluster) measured(cfg lag.Config) (*lag.Collector, *prometheus.Registry) {
	c.t.Helper()
	reg := prometheus.NewPedanticRegistry()
	cfg.Kafka, cfg.Cluster = kafka.Config{Brokers: c.brokers}, "test"
	if cfg.Timeout == 0 {
		cfg.Timeout = patience
	}
	l := lag.New(cfg, testenv.Logger(c.t), reg)
	c.t.Cleanup(l.Close)
	return l, reg
}

func TestMetricsShowWhatTheCycleFound(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.topic("orders", 3)
	c.produce(append(append(records("orders", 0, 0, 10), records("orders", 1, 0, 4)...), records("orders", 2, 0, 3)...)...)
	c.transaction("open", records("orders", 0, 10, 2)...)
	c.commit("seller", "orders", 0, 7)
	c.commit("seller", "orders", 1, 4)
	c.deleteRecords("orders", 0, 2)
	l, reg := c.measured(lag.Config{})
	c.collect(l)
	series := scrape(t, reg)

	at := func(part string) string { return "{cluster=test,group=seller,partition=" + part + ",topic=orders}" }
	of := func(part string) string { return "{cluster=test,partition=" + part + ",topic=orders}" }
	state := func(s string) string {
		return "orderflow_consumer_group_state{cluster=test,group=seller,protocol=classic,state=" + s + "}"
	}
	want := map[string]float64{
		"orderflow_consumer_group_lag_records" + at("0"):                                          3,
		"orderflow_consumer_group_lag_records" + at("1"):                                          0,
		"orderflow_consumer_group_lag_records" + at("2"):                                          3,
		"orderflow_consumer_group_lag_hwm_records" + at("0"):                                      5,
		"orderflow_consumer_group_lag_hwm_records" + at("1"):                                      0,
		"orderflow_consumer_group_lag_hwm_records" + at("2"):                                      3,
		"orderflow_consumer_group_committed_offset" + at("0"):                                     7,
		"orderflow_consumer_group_committed_offset" + at("1"):                                     4,
		"orderflow_consumer_group_lost_records" + at("0"):                                         0,
		"orderflow_consumer_group_lost_records" + at("1"):                                         0,
		"orderflow_consumer_group_lost_records" + at("2"):                                         0,
		"orderflow_consumer_group_ahead_records" + at("0"):                                        0,
		"orderflow_consumer_group_ahead_records" + at("1"):                                        0,
		"orderflow_consumer_group_ahead_records" + at("2"):                                        0,
		"orderflow_consumer_group_retention_headroom_ratio" + at("0"):                             0.5,
		"orderflow_consumer_group_retention_headroom_ratio" + at("1"):                             1,
		"orderflow_consumer_group_uncommitted_partitions{cluster=test,group=seller,topic=orders}": 1,
		"orderflow_consumer_group_members{cluster=test,group=seller,protocol=classic}":            0,
		state("Stable"): 0, state("Empty"): 1, state("PreparingRebalance"): 0, state("CompletingRebalance"): 0,
		state("Assigning"): 0, state("Reconciling"): 0, state("Unknown"): 0,
		"orderflow_topic_start_offset" + of("0"): 2, "orderflow_topic_stable_offset" + of("0"): 10, "orderflow_topic_end_offset" + of("0"): 12,
		"orderflow_topic_start_offset" + of("1"): 0, "orderflow_topic_stable_offset" + of("1"): 4, "orderflow_topic_end_offset" + of("1"): 4,
		"orderflow_topic_start_offset" + of("2"): 0, "orderflow_topic_stable_offset" + of("2"): 3, "orderflow_topic_end_offset" + of("2"): 3,
		"orderflow_lag_collector_up{cluster=test}": 1,
	}
	got := scrape(t, reg)
	for name := range pick(got, "orderflow_lag_collector_requests", "orderflow_lag_collector_cycle", "orderflow_lag_collector_last",
		"orderflow_consumer_group_lag_seconds", "orderflow_consumer_group_last_progress") {
		delete(got, name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
	age := series["orderflow_consumer_group_lag_seconds"+at("0")]
	if want := time.Since(epoch.Add(7 * time.Second)).Seconds(); age < want-60 || age > want {
		t.Errorf("got an age of %v s, want nearly %v", age, want)
	}
	if got, ok := series["orderflow_consumer_group_lag_seconds"+at("1")]; !ok || got != 0 {
		t.Errorf("got %v (there: %v) for a partition that was read to its end, want 0", got, ok)
	}
	now := float64(time.Now().Unix())
	for _, name := range []string{"orderflow_lag_collector_last_success_timestamp_seconds{cluster=test}", "orderflow_consumer_group_last_progress_timestamp_seconds" + at("0")} {
		if got := series[name]; got < now-60 || got > now+1 {
			t.Errorf("%s: got %v, want about %v", name, got, now)
		}
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}

// Unknown is not 0: when the brokers are away the series go, and they come
// back with them.
func TestABrokerThatIsAwayDropsTheSeries(t *testing.T) {
	t.Parallel()
	cfg := embedded.BrokerConfig{DataDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	broker, err := embedded.StartBroker(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop := func() {
		if err := broker.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { stop() })
	c := clusterAt(t, broker.Addrs())
	c.topic("orders", 1)
	c.produce(records("orders", 0, 0, 3)...)
	c.commit("seller", "orders", 0, 1)
	l, reg := c.measured(lag.Config{})
	c.collect(l)
	ours := []string{"orderflow_consumer_group", "orderflow_topic"}
	success := "orderflow_lag_collector_last_success_timestamp_seconds{cluster=test}"
	there := scrape(t, reg)
	before := pick(there, ours...)
	if len(before) == 0 {
		t.Fatal("got no series while the broker is there")
	}

	stop()
	if s, err := l.Collect(c.ctx()); err == nil || s.Complete || len(s.Errors) != 1 {
		t.Errorf("broker away: got complete=%v err=%v, want one error", s.Complete, err)
	}
	away := scrape(t, reg)
	if left := pick(away, ours...); len(left) > 0 {
		t.Errorf("broker away: got series %v, want none", left)
	}
	if up := away["orderflow_lag_collector_up{cluster=test}"]; up != 0 {
		t.Errorf("broker away: got up %v, want 0", up)
	}
	if away[success] != there[success] {
		t.Errorf("broker away: got last success %v, want it to stay %v", away[success], there[success])
	}

	again, err := embedded.StartBroker(t.Context(), cfg)
	if err != nil {
		stop = func() {}
		t.Fatal(err)
	}
	broker = again
	c.until(l, "the broker", func(s lag.Snapshot) bool { return s.Complete })
	after := scrape(t, reg)
	if up := after["orderflow_lag_collector_up{cluster=test}"]; up != 1 || after[success] <= away[success] {
		t.Errorf("broker back: got up %v, last success %v, want 1 and later than %v", up, after[success], away[success])
	}
	for name := range before {
		if _, there := after[name]; !there {
			t.Errorf("broker back: %s is missing", name)
		}
	}
}

func TestMetricsNeverAskKafka(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	l, reg := c.measured(lag.Config{})
	asked := "orderflow_lag_collector_requests_total"
	if got := scrape(t, reg); len(pick(got, asked)) > 0 || got["orderflow_lag_collector_up{cluster=test}"] != 0 {
		t.Errorf("before the first cycle: got %v, want nothing asked and up 0", got)
	}
	c.collect(l)
	before := pick(scrape(t, reg), asked)
	for range 3 {
		if diff := cmp.Diff(before, pick(scrape(t, reg), asked)); diff != "" {
			t.Errorf("a scrape asked Kafka (-before +after):\n%s", diff)
		}
	}
}

// A loop that has ended must not leave figures behind that look alive.
func TestFiguresOfAnEndedLoopGrowStaleAndGo(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.topic("orders", 1)
	c.commit("seller", "orders", 0, 0)
	l, reg := c.measured(lag.Config{Interval: 10 * time.Millisecond, Timeout: 300 * time.Millisecond})
	ctx, stop := context.WithCancel(c.ctx())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	there := func() bool { return len(pick(scrape(t, reg), "orderflow_consumer_group_lag_records")) > 0 }
	testenv.Wait(t, patience, "the first figures", there)
	stop()
	c.must(<-done)
	testenv.Wait(t, patience, "the figures to go", func() bool { return !there() })
	if up := scrape(t, reg)["orderflow_lag_collector_up{cluster=test}"]; up != 0 {
		t.Errorf("got up %v, want 0", up)
	}
}

// A cycle costs eight requests to one
// broker, however many groups and partitions there are, and one more for what
// has to be dated.
func TestACycleCostsFewRequests(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for _, topic := range []string{"orders", "sellers"} {
		c.topic(topic, 12)
		c.produce(records(topic, 0, 0, 1)...)
		for _, group := range []string{"notification", "seller", "logistics"} {
			c.commit(group, topic, 0, 1)
		}
	}
	cl := c.consume("new", "orders", kgo.ServerSideBalancer())
	c.must(cl.CommitRecords(c.ctx(), &kgo.Record{Topic: "orders", Offset: 0, LeaderEpoch: -1}))
	l, reg := c.measured(lag.Config{})
	const asked = "orderflow_lag_collector_requests_total"
	c.collect(l)
	before := pick(scrape(t, reg), asked)
	c.collect(l)
	got := map[string]float64{}
	for name, n := range pick(scrape(t, reg), asked) {
		if more := n - before[name]; more > 0 {
			got[strings.TrimPrefix(name, asked)] = more
		}
	}
	want := map[string]float64{
		"{api=ListGroups,cluster=test,code=NONE}": 1, "{api=DescribeGroups,cluster=test,code=NONE}": 1,
		"{api=ConsumerGroupDescribe,cluster=test,code=NONE}": 1, "{api=OffsetFetch,cluster=test,code=NONE}": 1,
		"{api=Metadata,cluster=test,code=NONE}": 1, "{api=ListOffsets,cluster=test,code=NONE}": 3,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests of a cycle (-want +got):\n%s", diff)
	}
}
