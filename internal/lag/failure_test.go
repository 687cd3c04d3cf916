package lag_test

import (
	"context"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"orderflow/internal/kafka"
	"orderflow/internal/lag"
	"orderflow/internal/testenv"
)

// faulty is a broker that answers as told. A real one cannot be told to.
func faulty(t *testing.T) (*cluster, *kfake.Cluster) {
	t.Helper()
	broker := testenv.FakeKafka(t)
	return clusterAt(t, broker.Addrs()), broker.Cluster()
}

// The figures of the failure tests while nothing fails.
const (
	seller0  = "seller orders[0] lag=2 end=2 next=1\n"
	seller1  = "seller orders[1] lag=3 end=3 next=0\n"
	tracker0 = "tracker orders[0] lag=1 end=1 next=2\n"
	tracker1 = "tracker orders[1] lag=0 end=0 seconds=0\n"
)

// failure is a fault and what is to be seen of it.
type failure struct {
	fault kfake.Fault
	want  string // the figures that stay
	err   string
	more  int    // errors beside err
	code  string // labels of the count of requests
}

func (f failure) run(t *testing.T) {
	t.Helper()
	c, k := faulty(t)
	c.topic("orders", 2)
	c.produce(append(records("orders", 0, 0, 3), records("orders", 1, 0, 3)...)...)
	c.commit("seller", "orders", 0, 1)
	c.commit("seller", "orders", 1, 0)
	c.commit("tracker", "orders", 0, 2)
	c.commit("tracker", "orders", 1, 3)
	l, reg := c.measured(lag.Config{})

	f.fault.Count = -1
	broken := k.Fault(f.fault)
	s, err := l.Collect(c.ctx())
	if err == nil || !strings.Contains(err.Error(), f.err) || s.Complete {
		t.Errorf("got error %v, complete %v, want an incomplete cycle with %q", err, s.Complete, f.err)
	}
	if len(s.Errors) != 1+f.more {
		t.Errorf("got %d errors %v, want %d", len(s.Errors), s.Errors, 1+f.more)
	}
	if diff := cmp.Diff(f.want, shortened(lines(s))); diff != "" {
		t.Errorf("lag (-want +got):\n%s", diff)
	}
	series := scrape(t, reg)
	if up := series["orderflow_lag_collector_up{cluster=test}"]; up != 0 {
		t.Errorf("got up %v, want 0", up)
	}
	if series["orderflow_lag_collector_requests_total{"+f.code+"}"] == 0 {
		t.Errorf("got requests %v, want some with %s", pick(series, "orderflow_lag_collector_requests_total"), f.code)
	}

	broken.Remove()
	whole := lines(c.collect(l))
	if diff := cmp.Diff(seller0+seller1+tracker0+tracker1, whole); diff != "" {
		t.Errorf("lag afterwards (-want +got):\n%s", diff)
	}
}

// A failure takes away the figures that it concerns and no others, says what
// failed, and makes the cycle incomplete.
func TestAFailureTakesAwayOnlyWhatItConcerns(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]failure{
		"list groups": {
			fault: kfake.Fault{Keys: []kmsg.Key{kmsg.ListGroups}, TopLevel: true, Err: kerr.ClusterAuthorizationFailed},
			err:   "list groups of broker 0: CLUSTER_AUTHORIZATION_FAILED",
			code:  "api=ListGroups,cluster=test,code=CLUSTER_AUTHORIZATION_FAILED",
		},
		"describe a group": {
			fault: kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeGroups}, Group: "seller", Err: kerr.GroupAuthorizationFailed},
			want:  seller0 + seller1 + tracker0 + tracker1,
			err:   "describe group seller: GROUP_AUTHORIZATION_FAILED",
			code:  "api=DescribeGroups,cluster=test,code=GROUP_AUTHORIZATION_FAILED",
		},
		"a group's commits": {
			fault: kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, Group: "seller", Err: kerr.GroupAuthorizationFailed},
			want:  tracker0 + tracker1,
			err:   "fetch offsets of group seller: GROUP_AUTHORIZATION_FAILED",
			code:  "api=OffsetFetch,cluster=test,code=GROUP_AUTHORIZATION_FAILED",
		},
		"a group's coordinator": {
			fault: kfake.Fault{Keys: []kmsg.Key{kmsg.FindCoordinator}, Group: "seller", Err: kerr.GroupAuthorizationFailed},
			want:  tracker0 + tracker1,
			err:   "fetch offsets: GROUP_AUTHORIZATION_FAILED",
			more:  1, // it cannot be described either
			code:  "api=OffsetFetch,cluster=test,code=GROUP_AUTHORIZATION_FAILED",
		},
		"the topic": {
			fault: kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "orders", Err: kerr.TopicAuthorizationFailed},
			want: "seller orders[0] unknown: read topic: TOPIC_AUTHORIZATION_FAILED\n" +
				"seller orders[1] unknown: read topic: TOPIC_AUTHORIZATION_FAILED\n" +
				"tracker orders[0] unknown: read topic: TOPIC_AUTHORIZATION_FAILED\n" +
				"tracker orders[1] unknown: read topic: TOPIC_AUTHORIZATION_FAILED\n",
			err:  "read topic orders: TOPIC_AUTHORIZATION_FAILED",
			code: "api=Metadata,cluster=test,code=TOPIC_AUTHORIZATION_FAILED",
		},
		"the bounds of a partition": {
			fault: kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "orders", Partitions: []int32{1}, Err: kerr.UnknownServerError},
			want: seller0 + "seller orders[1] unknown: list offsets: UNKNOWN_SERVER_ERROR\n" +
				tracker0 + "tracker orders[1] unknown: list offsets: UNKNOWN_SERVER_ERROR\n",
			err:  "list offsets of orders[1]: UNKNOWN_SERVER_ERROR",
			code: "api=ListOffsets,cluster=test,code=UNKNOWN_SERVER_ERROR",
		},
		"a timestamp": {
			fault: kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "orders", Partitions: []int32{0}, Err: kerr.TopicAuthorizationFailed},
			want: "seller orders[0] lag=2 end=2 seconds unknown: read timestamp: TOPIC_AUTHORIZATION_FAILED\n" + seller1 +
				"tracker orders[0] lag=1 end=1 seconds unknown: read timestamp: TOPIC_AUTHORIZATION_FAILED\n" + tracker1,
			err:  "read timestamp in orders[0] and 1 more: TOPIC_AUTHORIZATION_FAILED",
			code: "api=Fetch,cluster=test,code=TOPIC_AUTHORIZATION_FAILED",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.run(t)
		})
	}
}

// Where the commits of a group with members cannot be read, it must not seem to
// have none and so to be behind by the whole log.
func TestUnreadCommitsAreNotTakenForNone(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*kfake.Cluster){
		"refused": func(k *kfake.Cluster) {
			k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, Group: "seller", Err: kerr.GroupAuthorizationFailed, Count: -1})
		},
		"cut off": func(k *kfake.Cluster) {
			k.ControlKey(int16(kmsg.OffsetFetch), func(kmsg.Request) (kmsg.Response, error, bool) {
				k.KeepControl()
				return nil, errors.New("cut"), true
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, k := faulty(t)
			c.topic("orders", 1)
			c.produce(records("orders", 0, 0, 3)...)
			c.consume("seller", "orders")
			fail(k)
			s, err := c.collector(lag.Config{}).Collect(c.ctx())
			if err == nil || len(s.Groups) != 1 || len(s.Partitions) != 0 {
				t.Errorf("got groups %v, %s, error %v, want the group without figures", s.Groups, lines(s), err)
			}
			for _, total := range s.Totals() {
				if total.RecordsKnown || total.SecondsKnown {
					t.Errorf("got %+v, want unknown", total)
				}
			}
		})
	}
}

// A cluster that was never reached is one failure, not one per question.
func TestAClusterNeverReachedIsOneFailure(t *testing.T) {
	t.Parallel()
	l := lag.New(lag.Config{Kafka: kafka.Config{Brokers: []string{"127.0.0.1:1"}}}, slog.New(slog.DiscardHandler), nil)
	t.Cleanup(l.Close)
	s, err := l.Collect(t.Context())
	if err == nil || len(s.Errors) != 1 || s.Complete || s.At.IsZero() {
		t.Errorf("got %+v, error %v, want an incomplete snapshot with one error", s, err)
	}
	_, err = lag.New(lag.Config{}, slog.New(slog.DiscardHandler), nil).Collect(t.Context())
	if err == nil || !strings.Contains(err.Error(), "brokers") {
		t.Errorf("without brokers: got error %v, want one that asks for them", err)
	}
}

// A partition that gives nothing although there should be something, as when
// its log was cut meanwhile, is left to the next cycle.
func TestAPartitionThatGivesNothingWaitsForTheNextCycle(t *testing.T) {
	t.Parallel()
	c, k := faulty(t)
	c.topic("orders", 2)
	c.produce(append(records("orders", 0, 0, 3), records("orders", 1, 0, 3)...)...)
	c.commit("seller", "orders", 0, 1)
	c.commit("seller", "orders", 1, 1)
	var empty atomic.Bool
	empty.Store(true)
	k.ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		return r.ResponseKind(), nil, empty.Load()
	})
	l := c.collector(lag.Config{})
	want := "seller orders[0] lag=2 end=2 seconds unknown: read timestamp: the broker returned no record\n" +
		"seller orders[1] lag=2 end=2 seconds unknown: read timestamp: the broker returned no record\n"
	if diff := cmp.Diff(want, lines(c.collect(l))); diff != "" {
		t.Errorf("nothing returned (-want +got):\n%s", diff)
	}
	empty.Store(false)
	want = "seller orders[0] lag=2 end=2 next=1\nseller orders[1] lag=2 end=2 next=1\n"
	if diff := cmp.Diff(want, lines(c.collect(l))); diff != "" {
		t.Errorf("records returned (-want +got):\n%s", diff)
	}
}

// A topic that is gone while commits to it are left is an answer, whichever
// question is the first to meet it.
func TestATopicThatIsGoneIsNoFailure(t *testing.T) {
	t.Parallel()
	for _, key := range []kmsg.Key{kmsg.Metadata, kmsg.ListOffsets} {
		t.Run(key.Name(), func(t *testing.T) {
			t.Parallel()
			c, k := faulty(t)
			for _, topic := range []string{"orders", "sellers"} {
				c.topic(topic, 1)
				c.commit("seller", topic, 0, 0)
			}
			k.Fault(kfake.Fault{
				Keys: []kmsg.Key{key}, Topic: "sellers", Err: kerr.UnknownTopicOrPartition, Count: -1,
			})
			if diff := cmp.Diff("seller orders[0] lag=0 end=0 seconds=0\n", lines(c.collect(c.collector(lag.Config{})))); diff != "" {
				t.Errorf("lag (-want +got):\n%s", diff)
			}
		})
	}
}

// A group that ends between two questions is gone; nothing has failed.
func TestAGroupThatEndsDuringACycleIsGone(t *testing.T) {
	t.Parallel()
	for _, key := range []kmsg.Key{kmsg.DescribeGroups, kmsg.OffsetFetch} {
		t.Run(key.Name(), func(t *testing.T) {
			t.Parallel()
			c, k := faulty(t)
			c.topic("orders", 1)
			c.commit("seller", "orders", 0, 0)
			c.commit("tracker", "orders", 0, 0)
			k.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Group: "tracker", Err: kerr.GroupIDNotFound})
			s := c.collect(c.collector(lag.Config{}))
			if _, there := groupOf(s, "tracker"); there || len(s.Groups) != 1 {
				t.Errorf("got groups %v, want seller alone", s.Groups)
			}
		})
	}
}

// shortened cuts the explanations off the protocol's codes.
func shortened(lines string) string {
	var b strings.Builder
	for line := range strings.Lines(lines) {
		if at := strings.Index(line, "unknown: "); at >= 0 {
			parts := strings.SplitN(strings.TrimSuffix(line[at:], "\n"), ": ", 4)
			line = line[:at] + strings.Join(parts[:min(3, len(parts))], ": ") + "\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

// Compaction leaves holes: the record that a group reads next may lie far
// behind its commit.
func TestCompactedOffsetsArePassedOver(t *testing.T) {
	t.Parallel()
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	c := clusterAt(t, k.ListenAddrs())
	configs := map[string]*string{"cleanup.policy": kadm.StringPtr("compact"), "retention.ms": kadm.StringPtr("-1")}
	_, err = c.adm.CreateTopic(c.ctx(), 1, 1, configs, "stock")
	c.must(err)
	for i, key := range []string{"z", "a", "b", "a", "b", "a", "b", "c"} { // offsets 1 to 4 go
		r := records("stock", 0, i, 1)[0]
		r.Key = []byte(key)
		c.produce(r)
	}
	k.Compact()
	c.commit("seller", "stock", 0, 1)
	if diff := cmp.Diff("seller stock[0] lag=7 end=7 next=5\n", lines(c.collect(c.collector(lag.Config{})))); diff != "" {
		t.Errorf("lag (-want +got):\n%s", diff)
	}
}

// What fails again and again is logged when it begins and when it ends; a
// cycle that the program's end cut short has not failed.
func TestAFailureIsLoggedWhenItBeginsAndEnds(t *testing.T) {
	t.Parallel()
	c, k := faulty(t)
	c.topic("orders", 1)
	c.commit("seller", "orders", 0, 0)
	broken := k.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.OffsetFetch}, Group: "seller", Err: kerr.GroupAuthorizationFailed, Count: -1,
	})
	var out logged
	l := lag.New(lag.Config{Kafka: kafka.Config{Brokers: c.brokers}, Interval: 5 * time.Millisecond},
		slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})), nil)
	ctx, stop := context.WithCancel(c.ctx())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	cycles := func(n int, complete bool) {
		var last time.Time
		testenv.Wait(t, patience, "cycles", func() bool {
			if s := l.Snapshot(); s.Complete == complete && s.At.After(last) {
				last = s.At
				n--
			}
			return n <= 0
		})
	}
	cycles(3, false)
	broken.Remove()
	cycles(3, true)
	stop()
	c.must(<-done)
	for range 10 {
		c.must(l.Run(ctx)) // ended before it begins
	}
	want := "WARN read consumer lag\nINFO read consumer lag again\n"
	if diff := cmp.Diff(want, out.brief()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// logged keeps what is logged.
type logged struct {
	mu   sync.Mutex
	text strings.Builder // protected by mu
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// brief renders the level and the message of every line.
func (l *logged) brief() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return regexp.MustCompile(`(?m)^.*level=(\S+) msg="([^"]*)".*$`).ReplaceAllString(l.text.String(), "$1 $2")
}
