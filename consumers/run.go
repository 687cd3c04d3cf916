package consumers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/schemas"
)

const (
	leaveTimeout = 2 * time.Second
	// abortWait is what an aborted transaction gets to end its connection.
	abortWait = time.Second
	// maxDecompressed and maxRead bound what one batch and one answer of a
	// broker may take.
	maxDecompressed = 32 << 20
	maxRead         = 64 << 20
)

var groupName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,47}$`)

// Validate reports every problem of the Consumer.
func (c Consumer) Validate() error {
	var errs []error
	if !groupName.MatchString(c.Group) {
		errs = append(errs, fmt.Errorf("group %q: want lower-case letters, digits and underscores, it names a schema too", c.Group))
	}
	if len(c.Handlers) == 0 {
		errs = append(errs, fmt.Errorf("group %s has no handlers", c.Group))
	}
	seen := map[string]bool{}
	for _, h := range c.Handlers {
		if seen[h.schema.FullName] {
			errs = append(errs, fmt.Errorf("group %s has two handlers of %s", c.Group, h.schema.FullName))
		}
		seen[h.schema.FullName] = true
	}
	return errors.Join(errs...)
}

// Topics are the topics the group reads, sorted.
func (c Consumer) Topics() []string {
	var topics []string
	for _, h := range c.Handlers {
		topics = append(topics, h.schema.Topic)
	}
	slices.Sort(topics)
	return slices.Compact(topics)
}

// Run consumes until ctx ends, and then returns nil. It needs neither Kafka
// nor the database to be up when it starts: it waits for both, here and later.
// The error is a wrong declaration, or the Worker's.
func (c Consumer) Run(ctx context.Context, d Deps) error {
	g, err := newGroup(c, d)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	worker := make(chan error, 1)
	go func() {
		err := c.work(ctx, d, g.log)
		if err != nil {
			cancel(err)
		}
		worker <- err
	}()
	mirror := make(chan struct{})
	go func() {
		defer close(mirror)
		g.mirror(ctx)
	}()
	g.log.Info("start consuming", "topics", g.topics, "owner", g.owner)
	g.poll(ctx)
	<-mirror
	g.close()
	select {
	case err := <-worker:
		if err != nil {
			return fmt.Errorf("run worker of %s: %w", c.Group, err)
		}
		return nil
	case <-time.After(g.limits.CloseWait):
		return fmt.Errorf("run worker of %s: still at work %s after the end was asked for", c.Group, g.limits.CloseWait)
	}
}

// work runs the service's own function, if it has one.
func (c Consumer) work(ctx context.Context, d Deps, log *slog.Logger) error {
	if c.Worker == nil {
		return nil
	}
	err := c.Worker(ctx, WorkerDeps{DB: d.DB, Log: log, Metrics: d.Metrics})
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

func newGroup(c Consumer, d Deps) (*group, error) {
	if err := errors.Join(c.Validate(), d.Kafka.Validate()); err != nil {
		return nil, err
	}
	if d.DB == nil || d.Decoder == nil {
		return nil, fmt.Errorf("run %s: needs a database and a decoder", c.Group)
	}
	log := d.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	g := &group{
		name: c.Group, owner: ownerName(), handlers: map[string]*Handler{}, topics: c.Topics(),
		db: d.DB, decoder: d.Decoder, log: log.With("group", c.Group), limits: d.Limits.withDefaults(),
		metrics: newMetrics(d.Metrics, c.Group), faults: d.faults,
		ready: make(chan struct{}), mirrorKick: make(chan struct{}, 1), room: make(chan struct{}, 1),
		parts: map[topicPartition]*partition{}, paused: map[topicPartition]bool{}, compacted: map[string]bool{},
	}
	for i, h := range c.Handlers {
		g.handlers[h.schema.FullName] = &c.Handlers[i]
	}
	for _, t := range g.topics {
		g.metrics.zeroTopic(t)
	}
	for _, t := range schemas.Topics() {
		g.compacted[t.Name] = t.Config["cleanup.policy"] == "compact"
	}
	opts := slices.Concat(d.Kafka.Options(g.log), g.options(), g.faults.kafkaOptions())
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("make kafka client of %s: %w", c.Group, err)
	}
	g.client = client
	close(g.ready)
	return g, nil
}

func ownerName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s:%d:%s", host, os.Getpid(), uuid.NewString()[:8])
}

func (g *group) options() []kgo.Opt {
	return []kgo.Opt{
		kgo.ConsumerGroup(g.name),
		kgo.ConsumeTopics(g.topics...),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(g.limits.SessionTimeout),
		kgo.RebalanceTimeout(g.limits.RebalanceTimeout),
		kgo.HeartbeatInterval(min(3*time.Second, g.limits.SessionTimeout/3)),
		kgo.BlockRebalanceOnPoll(),
		kgo.DisableAutoCommit(),
		kgo.AdjustFetchOffsetsFn(g.assigned),
		kgo.OnPartitionsRevoked(g.revoked),
		kgo.OnPartitionsLost(g.lost),
		// Never a fall-back: both would skip or repeat events without a word.
		kgo.ConsumeStartOffset(kgo.NoResetOffset()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// Markers move the position, so that the lag is 0 at rest.
		kgo.KeepControlRecords(),
		kgo.FetchMaxWait(fetchMaxWait),
		kgo.FetchMaxBytes(g.limits.FetchBytes),
		kgo.FetchMaxPartitionBytes(max(g.limits.FetchBytes/4, 1)),
		kgo.BrokerMaxReadBytes(max(maxRead, g.limits.FetchBytes)),
		kgo.MaxDecompressBatchBytes(maxDecompressed),
	}
}

// revoked lets the batches in hand finish, briefly. What does not finish is
// fenced by the next owner; waiting only saves it from being done again.
func (g *group) revoked(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	parts := g.remove(lost)
	if len(parts) == 0 {
		return
	}
	began := time.Now()
	g.finish(parts, g.limits.RevokeWait)
	g.metrics.revokeSeconds.Observe(time.Since(began).Seconds())
	g.metrics.rebalances.WithLabelValues("revoked").Inc()
	g.commitMirrorRevoked(parts)
	g.log.Info("give up partitions", "partitions", len(parts))
}

// lost drops the batches in hand: others may own the partitions already.
func (g *group) lost(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	parts := g.remove(lost)
	if len(parts) == 0 {
		return
	}
	g.finish(parts, 0)
	g.metrics.rebalances.WithLabelValues("lost").Inc()
	g.log.Warn("lose partitions", "partitions", len(parts))
}

func (g *group) remove(lost map[string][]int32) []*partition {
	<-g.ready
	g.mu.Lock()
	defer g.mu.Unlock()
	var parts []*partition
	for topic, ids := range lost {
		for _, id := range ids {
			tp := topicPartition{topic, id}
			g.pauseLocked(tp, false) // kgo remembers a pause beyond the assignment
			if p := g.parts[tp]; p != nil {
				parts = append(parts, p)
				delete(g.parts, tp)
			}
		}
	}
	return parts
}

// finish ends the goroutines of parts: after their batch in hand if that takes
// no longer than wait, otherwise in mid batch.
func (g *group) finish(parts []*partition, wait time.Duration) {
	for _, p := range parts {
		p.stop()
	}
	if !allDone(parts, wait) {
		for _, p := range parts {
			p.abort()
		}
		allDone(parts, abortWait)
	}
	for _, p := range parts {
		p.abort() // frees its context
	}
}

func allDone(parts []*partition, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for _, p := range parts {
		select {
		case <-p.done:
		case <-timer.C:
			return false
		}
	}
	return true
}

// close ends the member in order: partitions, the last mirror, the group.
func (g *group) close() {
	parts := g.removeAll()
	g.finish(parts, g.limits.RevokeWait)
	within(leaveTimeout, func(ctx context.Context) { g.commitMirror(ctx, parts) })
	g.client.AllowRebalance()
	within(leaveTimeout, func(ctx context.Context) {
		// Without it the group would wait out the session; with it, but
		// without a deadline of its own, Close would wait for a broker that
		// is away.
		_ = g.client.LeaveGroupContext(ctx)
	})
	g.client.CloseAllowingRebalance()
	g.finish(g.removeAll(), 0) // of a claim that was under way
	if !g.workersDone() {
		g.log.Error("leave a handler behind that does not end", "waited_seconds", g.limits.CloseWait.Seconds())
	}
	g.log.Info("stop consuming")
}

func within(d time.Duration, do func(context.Context)) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	do(ctx)
}

func (g *group) removeAll() []*partition {
	g.mu.Lock()
	defer g.mu.Unlock()
	parts := make([]*partition, 0, len(g.parts))
	for tp, p := range g.parts {
		parts = append(parts, p)
		delete(g.parts, tp)
	}
	return parts
}

func (g *group) workersDone() bool {
	done := make(chan struct{})
	go func() {
		g.workers.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(g.limits.CloseWait):
		return false
	}
}
