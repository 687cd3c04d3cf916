package consumers

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type topicPartition struct {
	topic string
	id    int32
}

const (
	// slowBatch is how many times its target a batch may take before it shrinks.
	slowBatch = 4
	// firstBatch is the part of the largest batch that a partition begins with.
	firstBatch = 4
)

// partition is one claimed partition and the goroutine that applies its
// events. The group starts it after a claim, and ends it when Kafka gives the
// partition to another member or the process ends.
type partition struct {
	group *group
	topicPartition
	label string // id, as a metric's label
	log   *slog.Logger

	stopping chan struct{} // closed by stop: finish the batch in hand, take no more
	stopOnce sync.Once
	ctx      context.Context // ended by abort: drop the batch in hand
	abort    context.CancelFunc
	done     chan struct{} // closed by run at its end

	wake chan struct{} // a token: records came, or a seek is done

	mu        sync.Mutex // protects accepting, fault, queue, queued, bytes
	accepting bool       // false from a stop or a rejected fence until the seek
	fault     error      // what fetching ran into, behind the records of queue
	queue     [][]*kgo.Record
	queued    int
	bytes     int64

	position atomic.Int64 // next, for the mirror in Kafka
	epoch    atomic.Int32
	mirrored atomic.Int64 // the position Kafka has

	// Owned by the goroutine of run, set by adopt.
	fence     int64
	next      int64
	seq       sequence
	openHolds int
	holds     map[string]int // by state, what the gauge counts for this partition
	size      int            // records a batch may take now
}

func newPartition(g *group, tp topicPartition) *partition {
	p := &partition{
		group: g, topicPartition: tp, label: strconv.Itoa(int(tp.id)),
		log:      g.log.With("topic", tp.topic, "partition", tp.id),
		stopping: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1),
		size: max(g.limits.MinBatch, g.limits.MaxBatch/firstBatch), accepting: true,
	}
	p.mirrored.Store(-1)
	// Not a child of Run's context: a batch in hand may finish after the end
	// was asked for.
	p.ctx, p.abort = context.WithCancel(context.Background())
	return p
}

// adopt takes over what a claim found.
func (p *partition) adopt(c claim) {
	p.fence, p.next, p.seq = c.fence, c.next, c.seq
	p.position.Store(c.next)
	p.epoch.Store(c.epoch)
	p.forgetHolds()
	p.holds, p.openHolds = c.holds, 0
	for state, n := range c.holds {
		p.openHolds += n
		p.group.metrics.holds.WithLabelValues(p.topic, state).Add(float64(n))
	}
	for source := range c.seq {
		p.group.metrics.zeroSource(p.topic, source)
	}
	p.group.metrics.position.WithLabelValues(p.topic, p.label).Set(float64(c.next))
}

// run applies events until stop. cause is what the claim found in the way.
func (p *partition) run(cause error) {
	defer close(p.done)
	defer p.leave()
	for {
		if cause == nil {
			cause = p.work()
		}
		if errors.Is(cause, errStopping) {
			return
		}
		cause = p.regain(cause)
	}
}

// leave takes this partition's share out of the gauges.
func (p *partition) leave() {
	p.forgetHolds()
	m := p.group.metrics
	m.position.DeleteLabelValues(p.topic, p.label)
	m.attempts.DeleteLabelValues(p.topic, p.label)
	p.showStop("")
}

func (p *partition) forgetHolds() {
	for state, n := range p.holds {
		p.group.metrics.holds.WithLabelValues(p.topic, state).Sub(float64(n))
	}
	p.holds = nil
}

// work applies batch after batch. It returns why it cannot go on.
func (p *partition) work() error {
	for {
		records, err := p.take()
		if err != nil {
			return err
		}
		items, seq, stop, err := p.read(records)
		if err == nil && len(items) > 0 {
			err = p.apply(items)
		}
		if err != nil {
			return err
		}
		p.seq = seq
		if stop != nil {
			return stop
		}
	}
}

// read opens and decodes records, and waits as long as the registry is away.
func (p *partition) read(records []*kgo.Record) ([]item, sequence, *stopError, error) {
	defer p.metricAttempts(0)
	for attempt := 1; ; attempt++ {
		seq := p.seq.clone()
		ctx, cancel := context.WithTimeout(p.ctx, p.group.limits.BatchTimeout)
		items, stop, err := p.group.read(ctx, records, seq)
		cancel()
		if err == nil {
			return items, seq, stop, nil
		}
		if p.isStopping() {
			return nil, nil, nil, errStopping
		}
		p.group.metrics.retries.WithLabelValues(p.topic, causeInfrastructure).Inc()
		p.metricAttempts(attempt)
		p.log.Warn("wait for the schema registry", "attempt", attempt, "error", err)
		if !p.pause(p.group.backoff(attempt)) {
			return nil, nil, nil, errStopping
		}
	}
}

// committed notes a transaction that is in the database.
func (p *partition) committed(out *outcome, took time.Duration, records int) {
	p.group.faults.afterCommit(p)
	p.next = out.move.next
	p.epoch.Store(out.move.epoch)
	p.position.Store(out.move.next)
	for _, h := range out.holds {
		if p.holds == nil {
			p.holds = map[string]int{}
		}
		p.holds[h.state]++
		p.openHolds++
	}
	p.resize(took, records)
	p.observe(out, took, records)
}

// resize steers the time of a batch: short enough that a rebalance and the
// events behind it need not wait long, long enough that the round trips and
// the flush to disk are spread. Between target and slowBatch times target it
// stays, for a batch that waits for a busy disk is not made faster by being
// smaller.
func (p *partition) resize(took time.Duration, records int) {
	limits := p.group.limits
	switch {
	case took > slowBatch*limits.BatchTarget:
		p.size = max(p.size/2, limits.MinBatch)
	case records >= p.size && took < limits.BatchTarget:
		p.size = min(p.size*2, limits.MaxBatch)
	}
}

func (p *partition) observe(out *outcome, took time.Duration, records int) {
	m := p.group.metrics
	m.batchSeconds.WithLabelValues(p.topic).Observe(took.Seconds())
	m.batchRecords.WithLabelValues(p.topic).Observe(float64(records))
	m.records.WithLabelValues(p.topic, resultApplied).Add(float64(len(out.applied)))
	m.records.WithLabelValues(p.topic, resultSkipped).Add(float64(out.skipped))
	m.records.WithLabelValues(p.topic, resultHeld).Add(float64(len(out.holds)))
	m.position.WithLabelValues(p.topic, p.label).Set(float64(out.move.next))
	age, now := m.eventAge.WithLabelValues(p.topic), time.Now()
	for _, i := range out.applied {
		age.Observe(now.Sub(i.record.Timestamp).Seconds())
	}
	for _, source := range out.move.sources {
		if _, known := p.seq[source]; !known {
			m.zeroSource(p.topic, source)
		}
	}
	for _, h := range out.holds {
		m.holds.WithLabelValues(p.topic, h.state).Inc()
		if h.state == stateDead {
			m.deadLetters.WithLabelValues(p.topic, h.class()).Inc()
			p.log.Error("set event aside as a dead letter", "offset", h.item.record.Offset,
				"event_id", h.item.id, "event_type", h.item.eventType, "error_class", h.class(), "error", h.err)
		}
	}
}

func (p *partition) metricAttempts(n int) {
	p.group.metrics.attempts.WithLabelValues(p.topic, p.label).Set(float64(n))
}

// showStop sets the gauge of the reason, and clears the others.
func (p *partition) showStop(reason string) {
	for _, r := range stopReasons {
		if r != reason {
			p.group.metrics.stopped.DeleteLabelValues(p.topic, p.label, r)
		}
	}
	if reason != "" {
		p.group.metrics.stopped.WithLabelValues(p.topic, p.label, reason).Set(1)
	}
}

// stop lets the batch in hand finish and takes no other.
func (p *partition) stop() { p.stopOnce.Do(func() { close(p.stopping) }) }

func (p *partition) isStopping() bool {
	select {
	case <-p.stopping:
		return true
	default:
		return p.ctx.Err() != nil
	}
}

// pause waits, and reports whether there is a reason to go on.
func (p *partition) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.stopping:
	case <-p.ctx.Done():
	}
	return false
}

// backoff doubles from RetryMin up to RetryMax, with full jitter, so that
// partitions that failed together do not come back together.
func (g *group) backoff(attempt int) time.Duration {
	ceiling := g.limits.RetryMin << min(attempt-1, 20)
	if ceiling > g.limits.RetryMax || ceiling <= 0 {
		ceiling = g.limits.RetryMax
	}
	return rand.N(ceiling) + time.Millisecond
}
