package consumers

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"

	"orderflow/internal/testenv"
)

func TestAClaimDecidesWhetherTheRowFitsTheLog(t *testing.T) {
	t.Parallel()
	a, z := uuid.New(), uuid.New()
	log := bounds{topicID: a, start: 10, end: 50, epochEnd: -1}
	for _, c := range []struct {
		name   string
		claim  claim
		change func(*bounds)
		reason string
	}{
		{"in the middle", claim{topicID: a, next: 30}, nil, ""},
		{"at the start", claim{topicID: a, next: 10}, nil, ""},
		{"at the end", claim{topicID: a, next: 50}, nil, ""},
		{"below the start", claim{topicID: a, next: 9}, nil, stopBelowLogStart},
		{"above the end", claim{topicID: a, next: 51}, nil, stopAboveLogEnd},
		{"another topic of that name", claim{topicID: z, next: 30}, nil, stopTopicRecreated},
		{"a broker without topic ids", claim{topicID: z, next: 30}, func(b *bounds) { b.topicID = uuid.Nil }, ""},
		{"a row without a topic id", claim{next: 30}, nil, ""},
		{"an epoch that ended later", claim{topicID: a, next: 30, epoch: 3}, func(b *bounds) { b.epochEnd = 30 }, ""},
		{"an epoch that ended before", claim{topicID: a, next: 30, epoch: 3}, func(b *bounds) { b.epochEnd = 29 }, stopTruncated},
	} {
		b := log
		if c.change != nil {
			c.change(&b)
		}
		stop := c.claim.decide(b)
		if got := reasonOf(stop); got != c.reason {
			t.Errorf("%s: got %q, want %q", c.name, got, c.reason)
		}
		if stop != nil && !strings.Contains(stop.Error(), "position ") {
			t.Errorf("%s: %q does not name the position", c.name, stop)
		}
	}
}

func reasonOf(stop *stopError) string {
	if stop == nil {
		return ""
	}
	return stop.reason
}

func TestEventsThatExpiredUnreadStopThePartition(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	b.write(placedOrders(0, 20))
	b.run().stopAfter(20)
	b.write(placedOrders(20, 20))
	b.deleteBefore(31)
	m := b.run()
	m.waitMetric(1, "orderflow_consumer_partition_stopped", "reason", stopBelowLogStart)
	// An operator accepts the loss and moves the position.
	b.exec("UPDATE consumer_position SET fence = fence + 1, next_offset = 31")
	b.exec("UPDATE consumer_source SET n = 30")
	b.waitApplied(30)
}

func TestEventsThatExpireWhileTheGroupIsBehindStopThePartition(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	b.write(placedOrders(0, 20))
	gate := newGate()
	m := b.run(withFaults(&faults{begin: func(*partition) { gate.pass() }}))
	gate.awaitArrival(t)
	// The position goes back below what is about to expire, as after a
	// restored database, and the fetch position with it.
	b.write(placedOrders(20, 20))
	b.deleteBefore(31)
	b.exec("UPDATE consumer_position SET fence = fence + 1")
	gate.open()
	m.waitMetric(1, "orderflow_consumer_partition_stopped", "reason", stopBelowLogStart)
	if n := len(b.effects()); n != 0 {
		t.Errorf("%d effects, want none", n)
	}
}

func TestAPositionAboveTheLogStopsThePartition(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	b.write(placedOrders(0, 20))
	b.run().stopAfter(20)
	b.exec("UPDATE consumer_position SET next_offset = 1000")
	m := b.run()
	m.waitMetric(1, "orderflow_consumer_partition_stopped", "reason", stopAboveLogEnd)
}

func TestATopicThatWasMadeAnewStopsThePartition(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	b.write(placedOrders(0, 20))
	b.run().stopAfter(20)
	adm := kadm.NewClient(b.producer)
	must(adm.DeleteTopic(b.ctx, ordersTopic))(t)
	testenv.Wait(t, waitLong, "the topic to be gone", func() bool {
		topics, err := adm.ListTopics(b.ctx)
		return err == nil && !topics.Has(ordersTopic)
	})
	b.createTopic()
	m := b.run()
	m.waitMetric(1, "orderflow_consumer_partition_stopped", "reason", stopTopicRecreated)
}

// A group may start before its topic exists.
func TestAGroupFindsATopicThatIsMadeLater(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	adm := kadm.NewClient(b.producer)
	must(adm.DeleteTopic(b.ctx, ordersTopic))(t)
	b.run()
	b.createTopic()
	b.write(placedOrders(0, 5))
	b.waitApplied(5)
	b.checkOnceInOrder(all)
}

// A claim that meets a locked row waits for it instead of failing the member.
func TestAClaimWaitsForARowThatIsLocked(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	b.write(placedOrders(0, 20))
	b.run().stopAfter(20)
	tx := must(b.db.Begin(b.ctx))(t)
	_, err := tx.Exec(b.ctx, "SELECT FROM consumer_position FOR UPDATE")
	check(t, err)
	log := &messages{}
	b.run(withLimits(func(l *Limits) { l.LockTimeout = 50 * time.Millisecond }),
		func(_ *Consumer, d *Deps) { d.Log = slog.New(log) })
	b.write(placedOrders(20, 20))
	blocked := func() bool {
		return b.count("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") > 0
	}
	for range 3 { // longer than one lock timeout
		testenv.Wait(t, waitLong, "the claim to wait", blocked)
		testenv.Wait(t, waitLong, "the claim to give up waiting", func() bool { return !blocked() })
	}
	check(t, tx.Rollback(b.ctx))
	b.waitApplied(40)
	b.checkOnceInOrder(all)
	if log.count("retry claim") == 0 || log.count("rejoin group") != 0 {
		t.Errorf("%d claims retried, %d memberships lost, want some and none", log.count("retry claim"), log.count("rejoin group"))
	}
}

// messages is a log that counts.
type messages struct{ seen sync.Map }

func (m *messages) Enabled(context.Context, slog.Level) bool { return true }
func (m *messages) WithAttrs([]slog.Attr) slog.Handler       { return m }
func (m *messages) WithGroup(string) slog.Handler            { return m }

func (m *messages) Handle(_ context.Context, r slog.Record) error {
	n, _ := m.seen.LoadOrStore(r.Message, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
	return nil
}

func (m *messages) count(message string) int64 {
	n, ok := m.seen.Load(message)
	if !ok {
		return 0
	}
	return n.(*atomic.Int64).Load()
}

// stopAfter ends a member once events are applied.
func (m *member) stopAfter(events int) {
	m.b.t.Helper()
	m.b.waitApplied(events)
	m.stop()
}

func (b *bed) exec(sql string, args ...any) {
	b.t.Helper()
	_, err := b.db.Exec(b.ctx, sql, args...)
	check(b.t, err)
}

// deleteBefore lets the log start at an offset, as retention does.
func (b *bed) deleteBefore(offset int64) {
	b.t.Helper()
	o := kadm.Offsets{}
	o.AddOffset(ordersTopic, 0, offset, -1)
	deleted := must(kadm.NewClient(b.producer).DeleteRecords(b.ctx, o))(b.t)
	check(b.t, deleted.Error())
}
