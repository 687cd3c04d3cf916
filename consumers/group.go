package consumers

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/schemas"
)

const (
	// A full partition holds the next fetch back. patience is how long when
	// another has run dry meanwhile, and longPatience when none has. What is
	// still full after that is paused, which throws away what the client has
	// fetched for it ahead, so it is for partitions that are stuck.
	patience     = 50 * time.Millisecond
	longPatience = time.Second
	// fetchMaxWait bounds how long the broker keeps a fetch open when there is
	// nothing new, and so how late a resumed partition joins it.
	fetchMaxWait = 100 * time.Millisecond
	// fullBatches is how many batches a partition may have waiting, and
	// resumeBatches with how many a paused one is fetched for again.
	fullBatches   = 4
	resumeBatches = 2
)

// group is one member of a consumer group: a Kafka client, and a partition
// for each that it was assigned. Its poll goroutine fetches and hands off;
// kgo's goroutine calls assigned, revoked and lost.
type group struct {
	name     string
	owner    string
	handlers map[string]*Handler // by event type
	topics   []string
	// compacted topics lose records by design, so their numbers have holes.
	compacted map[string]bool

	db      *pgxpool.Pool
	decoder *schemas.Decoder
	log     *slog.Logger
	limits  Limits
	metrics *metrics
	faults  *faults

	client *kgo.Client
	ready  chan struct{} // closed once client is set

	mirrorKick chan struct{}
	room       chan struct{} // a token: a partition took records from its queue
	workers    sync.WaitGroup

	mu        sync.Mutex // protects parts, paused, seeks, interrupt
	parts     map[topicPartition]*partition
	paused    map[topicPartition]bool
	seeks     []seek
	interrupt context.CancelFunc // ends the poll in progress
}

// seek asks the poll goroutine to read a partition from its position again.
type seek struct {
	part *partition
	done chan struct{} // closed when it is done
}

// start makes the partition of a claim. kgo does not fetch for it before
// assigned returns.
func (g *group) start(c *claim) {
	p := newPartition(g, c.topicPartition)
	p.adopt(*c)
	g.metrics.zeroTopic(p.topic)
	g.mu.Lock()
	old := g.parts[c.topicPartition]
	g.parts[c.topicPartition] = p
	g.pauseLocked(p.topicPartition, c.stop != nil)
	g.mu.Unlock()
	if old != nil { // a claim whose assignment kgo gave up halfway
		old.stop()
		old.abort()
	}
	var cause error
	if c.stop != nil {
		p.discard(false)
		cause = c.stop
	}
	g.workers.Add(1)
	go func() {
		defer g.workers.Done()
		p.run(cause)
	}()
}

// pause stops fetching for p until its seek.
func (g *group) pause(p *partition) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.parts[p.topicPartition] == p {
		g.pauseLocked(p.topicPartition, true)
	}
}

func (g *group) pauseLocked(tp topicPartition, pause bool) {
	m := map[string][]int32{tp.topic: {tp.id}}
	switch {
	case pause && !g.paused[tp]:
		g.client.PauseFetchPartitions(m)
		g.paused[tp] = true
	case !pause && g.paused[tp]:
		g.client.ResumeFetchPartitions(m)
		delete(g.paused, tp)
	}
}

// poll fetches and hands off until ctx ends. Records go to the queues of their
// partitions at once, so a rebalance waits for batches in hand at most, never
// for buffered ones.
func (g *group) poll(ctx context.Context) {
	for ctx.Err() == nil {
		g.awaitRoom(ctx)
		pollCtx, cancel := g.interruptible(ctx)
		// What is fetched is in memory already, so there is no reason to take
		// less than all of it; Limits.FetchBytes bounds it.
		fetches := g.client.PollFetches(pollCtx)
		cancel()
		g.handOff(fetches)
		if len(fetches) > 0 { // otherwise kgo does not hold rebalances back
			g.seekAll()
		}
		g.client.AllowRebalance()
	}
}

func (g *group) interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.interrupt = cancel
	if len(g.seeks) > 0 {
		cancel()
	}
	return ctx, cancel
}

func (g *group) handOff(fetches kgo.Fetches) {
	fetches.EachError(g.fetchFailed)
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		if len(f.Records) == 0 {
			return
		}
		if p := g.part(topicPartition{f.Topic, f.Partition}); p != nil {
			p.push(f.Records)
		}
	})
}

// fetchFailed sorts a fetch's errors: those of the client as a whole heal by
// themselves, those of a partition stop it.
func (g *group) fetchFailed(topic string, id int32, err error) {
	var session *kgo.ErrGroupSession
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, kgo.ErrClientClosed):
		return
	case errors.As(err, &session):
		g.log.Warn("rejoin group", "error", err)
		return
	}
	p := g.part(topicPartition{topic, id})
	if p == nil {
		g.log.Warn("fetch", "topic", topic, "partition", id, "error", err)
		return
	}
	p.fail(stopf(stopFetch, "fetch %s[%d]: %w", topic, id, err))
	g.pause(p)
}

func (g *group) part(tp topicPartition) *partition {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.parts[tp]
}

func (g *group) owned() []*partition {
	g.mu.Lock()
	defer g.mu.Unlock()
	parts := make([]*partition, 0, len(g.parts))
	for _, p := range g.parts {
		parts = append(parts, p)
	}
	return parts
}

// seek reads p from p.next on. It returns false when p is given up first.
func (g *group) seek(p *partition) bool {
	s := seek{p, make(chan struct{})}
	g.mu.Lock()
	g.seeks = append(g.seeks, s) // one a partition at most
	if g.interrupt != nil {
		g.interrupt()
	}
	g.mu.Unlock()
	select {
	case <-s.done:
		return true
	case <-p.stopping:
	case <-p.ctx.Done():
	}
	return false
}

// seekAll runs between a poll and AllowRebalance: no partition comes or goes.
func (g *group) seekAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.seeks {
		p := s.part
		if g.parts[p.topicPartition] != p {
			continue // given up; its goroutine has been told
		}
		p.discard(true)
		at := kgo.EpochOffset{Epoch: p.epoch.Load(), Offset: p.position.Load()}
		g.client.SetOffsets(map[string]map[int32]kgo.EpochOffset{p.topic: {p.id: at}})
		g.pauseLocked(p.topicPartition, false)
		close(s.done)
	}
	g.seeks = nil
}

// awaitRoom holds the next fetch back while a partition has enough waiting.
// Those that stay full are paused, so that they do not hold up the others;
// they come back as they drain.
func (g *group) awaitRoom(ctx context.Context) {
	began := time.Now()
	for {
		full, dry := g.survey()
		if len(full) == 0 {
			return
		}
		left := longPatience - time.Since(began)
		if dry {
			left = patience - time.Since(began)
		}
		if left <= 0 {
			g.pauseFull(full)
			return
		}
		timer := time.NewTimer(left)
		select {
		case <-g.room:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// survey returns the partitions that are fetched for and have enough waiting,
// and whether another has less than a batch.
func (g *group) survey() (full []*partition, dry bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for tp, p := range g.parts {
		if g.paused[tp] {
			continue
		}
		if g.isFull(p) {
			full = append(full, p)
		} else if n, _ := p.load(); n < g.limits.MaxBatch {
			dry = true
		}
	}
	return full, dry
}

func (g *group) isFull(p *partition) bool {
	records, bytes := p.load()
	return records >= fullBatches*g.limits.MaxBatch || bytes >= g.limits.BufferBytes/int64(max(len(g.parts), 1))
}

func (g *group) pauseFull(full []*partition) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range full {
		if g.parts[p.topicPartition] == p && g.isFull(p) {
			g.pauseLocked(p.topicPartition, true)
		}
	}
}

// drained hears from a partition that took records from its queue.
func (g *group) drained(p *partition) {
	select {
	case g.room <- struct{}{}:
	default:
	}
	records, _ := p.load()
	if records > resumeBatches*g.limits.MaxBatch {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.parts[p.topicPartition] == p && p.isAccepting() {
		g.pauseLocked(p.topicPartition, false)
	}
}
