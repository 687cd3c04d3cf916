package lag_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/internal/lag"
	"orderflow/internal/testenv"
)

// Both ways in which a group may divide its partitions are described by their
// own request; the classic one knows nothing of KIP-848 groups.
func TestLagIsRightForClassicAndConsumerGroups(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.topic("orders", 1)
	c.produce(records("orders", 0, 0, 10)...)
	for group, opts := range map[string][]kgo.Opt{
		"old": {kgo.Balancers(kgo.CooperativeStickyBalancer())},
		"new": {kgo.ServerSideBalancer()},
	} {
		cl := c.consume(group, "orders", opts...)
		c.must(cl.CommitRecords(c.ctx(), &kgo.Record{Topic: "orders", Offset: 3, LeaderEpoch: -1}))
	}
	l := c.collector(lag.Config{})
	s := c.until(l, "both groups stable", func(s lag.Snapshot) bool {
		return len(s.Groups) == 2 && s.Groups[0].State == "Stable" && s.Groups[1].State == "Stable"
	})
	want := []lag.Group{
		{Name: "new", Protocol: "consumer", State: "Stable", Members: 1, MembersKnown: true},
		{Name: "old", Protocol: "classic", State: "Stable", Members: 1, MembersKnown: true},
	}
	if diff := cmp.Diff(want, s.Groups); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	want2 := "new orders[0] lag=6 end=6 next=4\nold orders[0] lag=6 end=6 next=4\n"
	if diff := cmp.Diff(want2, lines(s)); diff != "" {
		t.Errorf("lag (-want +got):\n%s", diff)
	}
	if s.Cluster == "" {
		t.Error("got no cluster id")
	}
}

// A reader of committed records gets as far as the oldest open transaction and
// never sees what was aborted, so neither is lag.
func TestLagLeavesOutOpenAndAbortedTransactions(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.topic("orders", 1)
	c.transaction("commit", records("orders", 0, 0, 5)...)  // 0-4, marker at 5
	c.transaction("abort", records("orders", 0, 6, 3)...)   // 6-8, marker at 9
	c.transaction("commit", records("orders", 0, 10, 1)...) // 10, marker at 11
	c.transaction("abort", records("orders", 0, 12, 4)...)  // 12-15, marker at 16
	open := c.transaction("open", records("orders", 0, 17, 2)...)
	for group, offset := range map[string]int64{"begin": 0, "marker": 5, "aborted": 7, "end": 11, "stable": 17} {
		c.commit(group, "orders", 0, offset)
	}
	l := c.collector(lag.Config{})
	want := `aborted orders[0] lag=10 end=12 next=10
begin orders[0] lag=17 end=19 next=0
end orders[0] lag=0 end=8 seconds=0
marker orders[0] lag=12 end=14 next=10
stable orders[0] lag=0 end=2 seconds=0
`
	for range 2 { // the second time from memory
		if diff := cmp.Diff(want, lines(c.collect(l))); diff != "" {
			t.Errorf("lag with an open transaction (-want +got):\n%s", diff)
		}
	}
	c.must(open.EndTransaction(c.ctx(), kgo.TryCommit))
	want = `end orders[0] lag=9 end=9 next=17
stable orders[0] lag=3 end=3 next=17
`
	s := c.until(l, "the end of the transaction", func(s lag.Snapshot) bool { return s.Logs[0].Stable == 20 })
	if diff := cmp.Diff(want, lines(s, "end", "stable")); diff != "" {
		t.Errorf("lag after the commit (-want +got):\n%s", diff)
	}
}

func TestLagWithoutACommitCountsFromTheStartOfTheLog(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.topic("orders", 2)
	c.produce(append(records("orders", 0, 0, 5), records("orders", 1, 0, 7)...)...)
	c.consume("seller", "orders")
	l := c.collector(lag.Config{})
	member := func(s lag.Snapshot) bool { return len(s.Partitions) == 2 }
	s := c.until(l, "the member", member)
	want := "seller orders[0] lag=5 end=5 next=0\nseller orders[1] lag=7 end=7 next=0\n"
	if diff := cmp.Diff(want, lines(s)); diff != "" {
		t.Errorf("lag (-want +got):\n%s", diff)
	}
	if p := s.Partitions[0]; p.HasCommit() || p.Committed != lag.NoCommit {
		t.Errorf("got a commit at %d, want none", p.Committed)
	}
}

func TestRetentionAndTruncationShowAsLostAndAhead(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.topic("orders", 2)
	c.produce(append(records("orders", 0, 0, 10), records("orders", 1, 0, 5)...)...)
	c.commit("seller", "orders", 0, 2)
	c.commit("seller", "orders", 1, 8)
	c.deleteRecords("orders", 0, 6)
	s := c.collect(c.collector(lag.Config{}))
	want := "seller orders[0] lag=4 end=4 lost=4 ahead=0 next=6\nseller orders[1] lag=0 end=0 lost=0 ahead=3 seconds=0\n"
	if diff := cmp.Diff(want, lines(s)); diff != "" {
		t.Errorf("lag (-want +got):\n%s", diff)
	}
}

func TestDeletedTopicsAndGroupsVanish(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for _, topic := range []string{"orders", "sellers"} {
		c.topic(topic, 1)
		c.produce(records(topic, 0, 0, 3)...)
		c.commit("seller", topic, 0, 1)
		c.commit("tracker", topic, 0, 1)
	}
	l := c.collector(lag.Config{})
	if got := len(c.collect(l).Partitions); got != 4 {
		t.Fatalf("got %d partitions before, want 4", got)
	}
	_, err := c.adm.DeleteTopic(c.ctx(), "sellers")
	c.must(err)
	_, err = c.adm.DeleteGroup(c.ctx(), "tracker")
	c.must(err)
	s := c.until(l, "the deletions", func(s lag.Snapshot) bool { return len(s.Partitions) == 1 })
	if _, there := groupOf(s, "tracker"); there {
		t.Error("got the deleted group")
	}
	if diff := cmp.Diff("seller orders[0] lag=2 end=2 next=1\n", lines(s)); diff != "" {
		t.Errorf("lag (-want +got):\n%s", diff)
	}
}

// A topic made anew has other records at the same offsets.
func TestATopicMadeAnewIsReadAnew(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.topic("orders", 1)
	c.produce(records("orders", 0, 0, 3)...)
	c.commit("seller", "orders", 0, 1)
	l := c.collector(lag.Config{})
	c.collect(l)
	_, err := c.adm.DeleteTopic(c.ctx(), "orders")
	c.must(err)
	c.until(l, "the deletion", func(s lag.Snapshot) bool { return len(s.Partitions) == 0 })
	c.topic("orders", 1)
	c.produce(records("orders", 0, 100, 3)...)
	c.commit("seller", "orders", 0, 1)
	s := c.until(l, "the new topic", func(s lag.Snapshot) bool { return len(s.Partitions) == 1 && s.Partitions[0].End == 3 })
	if diff := cmp.Diff("seller orders[0] lag=2 end=2 next=101\n", lines(s)); diff != "" {
		t.Errorf("lag (-want +got):\n%s", diff)
	}
}

func TestOnlyNamedGroupsAreWatched(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.topic("orders", 1)
	for _, group := range []string{"seller", "seller@2", "tracker", "other"} {
		c.commit(group, "orders", 0, 0)
	}
	s := c.collect(c.collector(lag.Config{Groups: []string{"seller*", "other"}}))
	var got []string
	for _, g := range s.Groups {
		got = append(got, g.Name)
	}
	if diff := cmp.Diff([]string{"other", "seller", "seller@2"}, got); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
}

// Batches larger than a partition's share of a request come all the same.
func TestTimestampsAreReadFromLargeBatches(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	const partitions = 8
	c.topic("orders", partitions)
	var all []*kgo.Record
	for p := range int32(partitions) {
		part := records("orders", p, 0, 3)
		for _, r := range part {
			r.Value = []byte(strings.Repeat("x", 100<<10))
		}
		all = append(all, part...)
		c.commit("seller", "orders", p, 1)
	}
	cl := c.client(kgo.ProducerBatchCompression(kgo.NoCompression()))
	c.must(cl.ProduceSync(c.ctx(), all...).FirstErr())
	s := c.collect(c.collector(lag.Config{}))
	for _, p := range s.Partitions {
		if !p.SecondsKnown || p.LagRecords != 2 {
			t.Errorf("partition %d: lag %d, seconds known %v (%s)", p.Partition, p.LagRecords, p.SecondsKnown, p.Problem)
		}
	}
	if len(s.Partitions) != partitions {
		t.Errorf("got %d partitions, want %d", len(s.Partitions), partitions)
	}
}

// What the budget leaves out of one cycle comes first in the next.
func TestTimestampReadsAreBoundedAndTakeTurns(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) *cluster{"one broker": newCluster, "three brokers": threeBrokers} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t)
			c.topic("orders", 5)
			for p := range int32(5) {
				c.produce(records("orders", p, 0, 10)...)
			}
			l := c.collector(lag.Config{MaxLookups: 2})
			sure := map[int32]bool{}
			for round := range int64(3) {
				for p := range int32(5) {
					c.commit("seller", "orders", p, 1+round) // every offset is new, so memory is no help
				}
				known := 0
				for _, p := range c.collect(l).Partitions {
					if p.SecondsKnown {
						known++
						sure[p.Partition] = true
					} else if p.Problem == "" {
						t.Errorf("partition %d: no word on why the seconds are unknown", p.Partition)
					}
				}
				if known != 2 {
					t.Errorf("round %d: got %d timestamps, want 2", round, known)
				}
			}
			if len(sure) != 5 {
				t.Errorf("got timestamps of %d partitions in 3 rounds, want 5", len(sure))
			}
		})
	}
}

func TestLagIsRightWhenLeadersAndCoordinatorsAreSpread(t *testing.T) {
	t.Parallel()
	c := threeBrokers(t)
	c.topic("orders", 6)
	groups := []string{"ledger", "logistics", "notification", "seller", "tracker"}
	var want strings.Builder
	for p := range int32(6) {
		c.produce(records("orders", p, 0, 10)...)
	}
	for _, group := range groups {
		for p := range int32(6) {
			c.commit(group, "orders", p, int64(p))
		}
	}
	slices.Sort(groups)
	for _, group := range groups {
		for p := range 6 {
			fmt.Fprintf(&want, "%s orders[%d] lag=%d end=%d next=%d\n", group, p, 10-p, 10-p, p)
		}
	}
	if diff := cmp.Diff(want.String(), lines(c.collect(c.collector(lag.Config{})))); diff != "" {
		t.Errorf("lag (-want +got):\n%s", diff)
	}
}

// big makes records that are each larger than a partition's share of a
// request, to be produced without compression.
func big(topic string, partition int32, n int) []*kgo.Record {
	all := records(topic, partition, 0, n)
	for _, r := range all {
		r.Value = []byte(strings.Repeat("x", 20<<10))
	}
	return all
}

// abortBig leaves three batches of two big records and a marker each behind.
func (c *cluster) abortBig(topic string, partition int32) {
	c.t.Helper()
	cl := c.client(kgo.TransactionalID("relay"), kgo.ProducerBatchCompression(kgo.NoCompression()))
	for range 3 {
		c.must(cl.BeginTransaction())
		c.must(cl.ProduceSync(c.ctx(), big(topic, partition, 2)...).FirstErr())
		c.must(cl.EndTransaction(c.ctx(), kgo.TryAbort))
	}
}

// A stretch of aborted records longer than a cycle's budget is passed over in
// several cycles, and meanwhile the seconds are unknown.
func TestALongAbortedStretchIsPassedOverInSeveralCycles(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.topic("orders", 1)
	c.abortBig("orders", 0)
	c.commit("seller", "orders", 0, 0)
	l := c.collector(lag.Config{MaxLookups: 1})
	if s := c.collect(l); s.Partitions[0].SecondsKnown || s.Partitions[0].LagRecords != 9 {
		t.Errorf("after one read got %s, want a lag of 9 and the seconds unknown", lines(s))
	}
	s := c.until(l, "the end of the stretch", func(s lag.Snapshot) bool { return s.Partitions[0].SecondsKnown })
	if diff := cmp.Diff("seller orders[0] lag=0 end=9 seconds=0\n", lines(s)); diff != "" {
		t.Errorf("lag (-want +got):\n%s", diff)
	}
}

// A partition that needs many reads waits for those that need one.
func TestALongAbortedStretchDoesNotHoldUpOtherPartitions(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.topic("orders", 2)
	c.abortBig("orders", 0)
	cl := c.client(kgo.ProducerBatchCompression(kgo.NoCompression()))
	c.must(cl.ProduceSync(c.ctx(), big("orders", 1, 2)...).FirstErr())
	c.commit("seller", "orders", 0, 0)
	c.commit("seller", "orders", 1, 0)
	s := c.collect(c.collector(lag.Config{MaxLookups: 2}))
	if s.Partitions[0].SecondsKnown || !s.Partitions[1].SecondsKnown {
		t.Errorf("got %s, want the seconds of partition 1 alone", lines(s))
	}
}

func TestProgressIsDatedWhenTheCommitMovesOrNothingIsLeft(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.topic("orders", 1)
	c.produce(records("orders", 0, 0, 3)...)
	c.commit("seller", "orders", 0, 1)
	l := c.collector(lag.Config{})
	first := c.collect(l)
	if got := c.collect(l).Partitions[0].LastProgress; !got.Equal(first.At) {
		t.Errorf("standing still: got progress at %v, want the first sight %v", got, first.At)
	}
	c.commit("seller", "orders", 0, 2)
	if s := c.collect(l); !s.Partitions[0].LastProgress.Equal(s.At) {
		t.Errorf("moved: got progress at %v, want %v", s.Partitions[0].LastProgress, s.At)
	}
	c.commit("seller", "orders", 0, 3)
	c.collect(l)
	if s := c.collect(l); !s.Partitions[0].LastProgress.Equal(s.At) {
		t.Errorf("read everything: got progress at %v, want %v", s.Partitions[0].LastProgress, s.At)
	}
}

// Commits are read before the ends of the logs: in the other order a group that
// keeps up would seem to be ahead of its log.
func TestAGroupThatKeepsUpIsNeverAheadOfItsLog(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.topic("orders", 1)
	c.commit("seller", "orders", 0, 0)
	ctx, stop := context.WithCancel(c.ctx())
	done := make(chan error, 1)
	producer, committer := c.client(), kadm.NewClient(c.client())
	go func() {
		for end := int64(1); ctx.Err() == nil; end++ {
			if err := producer.ProduceSync(c.ctx(), records("orders", 0, int(end), 1)...).FirstErr(); err != nil {
				done <- err
				return
			}
			var offsets kadm.Offsets
			offsets.AddOffset("orders", 0, end, -1)
			if err := committer.CommitAllOffsets(c.ctx(), "seller", offsets); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	l := c.collector(lag.Config{})
	var last int64
	for moved := 0; moved < 30; {
		p := c.collect(l).Partitions[0]
		if p.AheadRecords > 0 {
			t.Errorf("committed %d, end %d: got ahead by %d", p.Committed, p.End, p.AheadRecords)
			break
		}
		if p.Committed != last {
			last = p.Committed
			moved++
		}
	}
	stop()
	c.must(<-done)
}

func TestASnapshotBelongsToItsHolder(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.topic("orders", 1)
	c.commit("seller", "orders", 0, 0)
	l := c.collector(lag.Config{})
	c.collect(l).Partitions[0].Topic = "scribbled"
	l.Snapshot().Groups[0].Name = "scribbled"
	if s := l.Snapshot(); s.Partitions[0].Topic != "orders" || s.Groups[0].Name != "seller" {
		t.Errorf("got %+v, want what the cycle found", s)
	}
}

func TestRunEndsWithItsContextAndKeepsTheLatestSnapshot(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.topic("orders", 1)
	c.commit("seller", "orders", 0, 0)
	l := c.collector(lag.Config{Interval: 10 * time.Millisecond})
	ctx, stop := context.WithCancel(c.ctx())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	var first time.Time
	testenv.Wait(t, patience, "a second cycle", func() bool {
		s := l.Snapshot()
		if first.IsZero() && s.Complete {
			first = s.At
		}
		return s.Complete && s.At.After(first)
	})
	stop()
	select {
	case err := <-done:
		c.must(err)
	case <-time.After(patience):
		t.Fatal("Run did not return")
	}
	if s := l.Snapshot(); len(s.Partitions) != 1 {
		t.Errorf("got %d partitions after the end, want the latest snapshot", len(s.Partitions))
	}
}
