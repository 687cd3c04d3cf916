package lag_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/internal/kafka"
	"orderflow/internal/lag"
	"orderflow/internal/testenv"
)

const patience = 30 * time.Second

// epoch is the timestamp of the first record of every test topic; the record
// after it is a second younger, and so on.
var epoch = time.UnixMilli(1_700_000_000_000)

// cluster is a broker with the tools to bring about a state.
type cluster struct {
	t       *testing.T
	brokers []string
	adm     *kadm.Client
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	return clusterAt(t, testenv.Kafka(t))
}

// threeBrokers spreads leaders and coordinators over several brokers, which the
// test environment's one broker cannot.
func threeBrokers(t *testing.T) *cluster {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(3))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return clusterAt(t, k.ListenAddrs())
}

func clusterAt(t *testing.T, brokers []string) *cluster {
	t.Helper()
	c := &cluster{t: t, brokers: brokers}
	c.adm = kadm.NewClient(c.client())
	return c
}

func (c *cluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	c.t.Cleanup(cancel)
	return ctx
}

func (c *cluster) client(opts ...kgo.Opt) *kgo.Client {
	c.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(c.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MetadataMinAge(100 * time.Millisecond), kgo.UnknownTopicRetries(-1),
	}, opts...)...)
	c.must(err)
	c.t.Cleanup(cl.CloseAllowingRebalance)
	return cl
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) topic(name string, partitions int32) {
	c.t.Helper()
	_, err := c.adm.CreateTopic(c.ctx(), partitions, 1, nil, name)
	c.must(err)
	testenv.Wait(c.t, patience, "topic "+name, func() bool {
		found, err := c.adm.ListTopics(c.ctx(), name)
		return err == nil && found[name].Err == nil && len(found[name].Partitions) == int(partitions)
	})
}

// records makes n records whose timestamps go on from first.
func records(topic string, partition int32, first, n int) []*kgo.Record {
	all := make([]*kgo.Record, n)
	for i := range all {
		all[i] = &kgo.Record{
			Topic: topic, Partition: partition, Value: []byte("v"),
			Timestamp: epoch.Add(time.Duration(first+i) * time.Second),
		}
	}
	return all
}

func (c *cluster) produce(all ...*kgo.Record) {
	c.t.Helper()
	c.must(c.client().ProduceSync(c.ctx(), all...).FirstErr())
}

// transaction produces within a transaction of its own producer and ends it
// unless how is "open".
func (c *cluster) transaction(how string, all ...*kgo.Record) *kgo.Client {
	c.t.Helper()
	cl := c.client(kgo.TransactionalID(fmt.Sprintf("%s-%p", how, all[0])))
	c.must(cl.BeginTransaction())
	c.must(cl.ProduceSync(c.ctx(), all...).FirstErr())
	if how != "open" {
		c.must(cl.EndTransaction(c.ctx(), how == "commit"))
	}
	return cl
}

// commit stores an offset for a group that has no member.
func (c *cluster) commit(group, topic string, partition int32, offset int64) {
	c.t.Helper()
	var offsets kadm.Offsets
	offsets.AddOffset(topic, partition, offset, -1)
	// By a client of its own, since another may still know a deleted topic.
	c.must(kadm.NewClient(c.client()).CommitAllOffsets(c.ctx(), group, offsets))
}

// consume starts a member of a group and returns when it has been given
// something to read.
func (c *cluster) consume(group, topic string, opts ...kgo.Opt) *kgo.Client {
	c.t.Helper()
	cl := c.client(append([]kgo.Opt{
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
	}, opts...)...)
	c.must(cl.PollFetches(c.ctx()).Err())
	return cl
}

func (c *cluster) collector(cfg lag.Config) *lag.Collector {
	c.t.Helper()
	cfg.Kafka = kafka.Config{Brokers: c.brokers}
	if cfg.Timeout == 0 {
		cfg.Timeout = patience
	}
	l := lag.New(cfg, testenv.Logger(c.t), nil)
	c.t.Cleanup(l.Close)
	return l
}

func (c *cluster) collect(l *lag.Collector) lag.Snapshot {
	c.t.Helper()
	s, err := l.Collect(c.ctx())
	c.must(err)
	if !s.Complete {
		c.t.Fatal("got an incomplete snapshot without an error")
	}
	return s
}

// until collects until the snapshot shows what is wanted. Brokers apply
// deletions and membership changes a little later than they acknowledge them.
func (c *cluster) until(l *lag.Collector, what string, shows func(lag.Snapshot) bool) lag.Snapshot {
	c.t.Helper()
	var s lag.Snapshot
	testenv.Wait(c.t, patience, what, func() bool {
		var err error
		s, err = l.Collect(c.ctx())
		return err == nil && shows(s)
	})
	return s
}

// lines renders the partitions of a snapshot, without those of other groups.
func lines(s lag.Snapshot, groups ...string) string {
	var b strings.Builder
	for _, p := range s.Partitions {
		if len(groups) > 0 && !slices.Contains(groups, p.Group) {
			continue
		}
		fmt.Fprintf(&b, "%s %s[%d]", p.Group, p.Topic, p.Partition)
		if !p.Known {
			fmt.Fprintf(&b, " unknown: %s\n", p.Problem)
			continue
		}
		fmt.Fprintf(&b, " lag=%d end=%d", p.LagRecords, p.LagEndRecords)
		if p.LostRecords > 0 || p.AheadRecords > 0 {
			fmt.Fprintf(&b, " lost=%d ahead=%d", p.LostRecords, p.AheadRecords)
		}
		switch {
		case !p.SecondsKnown:
			fmt.Fprintf(&b, " seconds unknown: %s", p.Problem)
		case p.LagSeconds == 0:
			b.WriteString(" seconds=0")
		default:
			next := s.At.Add(-time.Duration(p.LagSeconds * float64(time.Second)))
			fmt.Fprintf(&b, " next=%d", next.Round(time.Millisecond).Sub(epoch).Milliseconds()/1000)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func groupOf(s lag.Snapshot, name string) (lag.Group, bool) {
	for _, g := range s.Groups {
		if g.Name == name {
			return g, true
		}
	}
	return lag.Group{}, false
}

func (c *cluster) deleteRecords(topic string, partition int32, before int64) {
	c.t.Helper()
	var offsets kadm.Offsets
	offsets.AddOffset(topic, partition, before, -1)
	deleted, err := c.adm.DeleteRecords(c.ctx(), offsets)
	c.must(err)
	c.must(deleted.Error())
}
