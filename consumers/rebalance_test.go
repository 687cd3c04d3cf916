package consumers

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"orderflow/internal/testenv"
	"orderflow/schemas"
)

// slow takes a moment for each batch, so that rebalances fall into it.
func slow(busy *atomic.Int64) Handler {
	return OnBatch(func(ctx context.Context, tx pgx.Tx, events []Event[*schemas.OrderPlaced]) error {
		busy.Add(1)
		defer busy.Add(-1)
		if err := record(ctx, tx, events); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "SELECT pg_sleep(0.05)")
		return err
	})
}

func smallBatches(l *Limits) { l.MinBatch, l.MaxBatch = 5, 5 }

// Members come and go, in order and by kill, while batches are in hand.
func TestARebalanceInMidBatchLosesNothingAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	b := newBed(t, 6)
	var busy atomic.Int64
	start := func() *member { return b.run(withHandlers(slow(&busy)), withLimits(smallBatches)) }
	b.write(placedOrders(0, 400))
	inMidBatch := func() {
		testenv.Wait(t, waitLong, "a batch in hand", func() bool { return busy.Load() > 0 })
	}
	first := start()
	inMidBatch()
	second := start()
	b.waitOwners(2)
	inMidBatch()
	first.stop()
	third := start()
	b.waitOwners(2)
	inMidBatch()
	second.kill()
	b.waitApplied(400)
	b.checkOnceInOrder(all)
	if third.metric("orderflow_consumer_rebalances_total", "phase", "assigned") == 0 {
		t.Error("the rebalances do not show in the metric")
	}
}

// waitOwners waits until so many members own partitions.
func (b *bed) waitOwners(n int) {
	b.t.Helper()
	testenv.Wait(b.t, waitLong, "the partitions to be shared", func() bool {
		return b.count("SELECT count(DISTINCT owner) FROM consumer_position") >= n
	})
}

// The member dies between its commit and Kafka's news of it. The next owner
// must believe the database.
func TestACrashBetweenTheCommitAndKafkaRepeatsNothing(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	b.write(placedOrders(0, 100))
	var m *member
	ready := make(chan struct{})
	m = b.run(withFaults(&faults{committed: func(*partition) {
		<-ready
		m.net.cut()
	}}))
	close(ready)
	testenv.Wait(t, waitLong, "a commit", func() bool { return len(b.effects()) > 0 })
	m.stop()
	if lag := b.kafkaLag(); lag < 100 {
		t.Errorf("kafka shows a lag of %d: it heard of the commit, so this test proves nothing", lag)
	}
	b.run()
	b.waitApplied(100)
	b.checkOnceInOrder(all)
	testenv.Wait(t, waitLong, "kafka to show no lag", func() bool { return b.kafkaLag() == 0 })
}

// A handler that does not end in time is aborted, and what it did is undone.
func TestARevokeDoesNotWaitForASlowHandler(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	b.write(placedOrders(0, 10))
	var entered atomic.Int64
	m := b.run(withLimits(func(l *Limits) { l.RevokeWait = 100 * time.Millisecond }),
		withHandlers(OnBatch(func(ctx context.Context, tx pgx.Tx, events []Event[*schemas.OrderPlaced]) error {
			entered.Add(1)
			err := record(ctx, tx, events)
			<-ctx.Done()
			return errors.Join(err, ctx.Err())
		})))
	testenv.Wait(t, waitLong, "the handler to begin", func() bool { return entered.Load() > 0 })
	began := time.Now()
	m.stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the end took %s", took)
	}
	if n := len(b.effects()); n != 0 {
		t.Errorf("%d effects of a batch that was aborted", n)
	}
	b.run()
	b.waitApplied(10)
	b.checkOnceInOrder(all)
}

// The lag in Kafka goes to 0 at rest, over markers and aborted events too.
func TestKafkaShowsNoLagAtRestBehindAbortedTransactions(t *testing.T) {
	t.Parallel()
	b := newBed(t, 2)
	b.write(placedOrders(0, 20))
	b.writeAborted(placedOrders(20, 20))
	b.run()
	b.waitApplied(20)
	testenv.Wait(t, waitLong, "kafka to show no lag", func() bool { return b.kafkaLag() == 0 })
	b.writeAborted(placedOrders(20, 20))
	b.write(placedOrders(20, 20))
	b.writeAborted(placedOrders(40, 20))
	b.waitApplied(40)
	testenv.Wait(t, waitLong, "kafka to show no lag", func() bool { return b.kafkaLag() == 0 })
	b.checkOnceInOrder(all)
}

// A partition that is stuck must not fill the memory, nor hold up the others.
func TestAPartitionThatIsStuckBuffersLittleAndHoldsUpNobody(t *testing.T) {
	t.Parallel()
	b := newBed(t, 2)
	var release atomic.Bool
	var most atomic.Int64 // records that waited in the queue
	watch := func(p *partition) {
		if n, _ := p.load(); p.id == 0 && !release.Load() {
			most.Store(max(most.Load(), int64(n)))
		}
	}
	m := b.run(withFaults(&faults{begin: watch}), withLimits(func(l *Limits) { l.MinBatch, l.MaxBatch, l.FetchBytes = 10, 10, 8<<10 }),
		withHandlers(OnBatch(func(ctx context.Context, tx pgx.Tx, events []Event[*schemas.OrderPlaced]) error {
			if events[0].Partition == 0 && !release.Load() {
				return errors.New("stuck")
			}
			return record(ctx, tx, events)
		})))
	total := 0
	for i := range 20 {
		b.write(placedOrders(i*100, 100))
		total += 100
	}
	perPart := map[int32]int{}
	for _, w := range b.written {
		perPart[w.Part]++
	}
	b.waitApplied(perPart[1])
	if n := b.count("SELECT count(*) FROM effects WHERE part = 0"); n != 0 {
		t.Errorf("%d effects in the partition that is stuck", n)
	}
	m.waitMetric(1, "orderflow_consumer_attempts", "partition", "0")
	// Full at 40 records; a fetch in flight may add what it holds.
	if n := most.Load(); n == 0 || n > 200 {
		t.Errorf("%d records waited for the partition that is stuck, want some and not most of %d", n, perPart[0])
	}
	release.Store(true)
	b.waitApplied(total)
	b.checkOnceInOrder(all)
}
