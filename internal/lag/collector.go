package lag

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// requestRetries bounds how often one request is repeated within a cycle: a
// moved leader is found again, and a cluster that is away is soon said to be.
const requestRetries = 5

// Collector reads the lag of consumer groups in the background and keeps the
// latest result.
type Collector struct {
	cfg Config
	log *slog.Logger
	now func() time.Time

	turn     chan struct{} // holds a token while a cycle runs; guards client and memory
	client   *kgo.Client   // nil until needed
	memory   *memory
	requests *requests

	mu          sync.Mutex
	latest      Snapshot  // protected by mu; replaced as a whole, never changed
	lastSuccess time.Time // protected by mu
}

// New makes a Collector and registers its metrics with reg, unless that is
// nil. It reaches for Kafka only in Run and Collect.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) *Collector {
	c := &Collector{
		cfg: cfg.withDefaults(), log: log, now: time.Now,
		turn: make(chan struct{}, 1), memory: newMemory(), requests: newRequests(),
	}
	if reg != nil {
		reg.MustRegister(metrics{c})
	}
	return c
}

// Run does a cycle at once and one per Interval, until ctx ends; it then
// returns nil. A cycle that fails makes the lag unknown until one succeeds.
func (c *Collector) Run(ctx context.Context) error {
	defer c.Close()
	tick := time.NewTicker(c.cfg.Interval)
	defer tick.Stop()
	complaint := ""
	for {
		_, err := c.Collect(ctx)
		if ctx.Err() != nil {
			return nil
		}
		complaint = c.report(complaint, err)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// report logs a failure when it begins or changes, and its end. It returns
// what the next cycle's failure is compared with.
func (c *Collector) report(was string, err error) string {
	is := ""
	if err != nil {
		is = err.Error()
	}
	switch {
	case is == was:
	case err != nil:
		c.log.Warn("read consumer lag", "error", err)
	default:
		c.log.Info("read consumer lag again")
	}
	return is
}

// Snapshot returns what the latest cycle found.
func (c *Collector) Snapshot() Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.latest.clone()
}

// Collect does one cycle now and returns what it found, which also becomes the
// latest Snapshot. The error joins Snapshot.Errors; what could be read in
// spite of it is in the Snapshot. When ctx ends before the cycle does, the
// latest Snapshot stays.
func (c *Collector) Collect(ctx context.Context) (Snapshot, error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return Snapshot{}, fmt.Errorf("collect consumer lag: %w", ctx.Err())
	}
	bounded, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	began := c.now()
	s := c.cycle(bounded)
	if err := ctx.Err(); err != nil {
		return Snapshot{}, fmt.Errorf("collect consumer lag: %w", err)
	}
	s.Took = c.now().Sub(began)
	c.mu.Lock()
	c.latest = s
	if s.Complete {
		c.lastSuccess = s.At
	}
	c.mu.Unlock()
	return s.clone(), errors.Join(s.Errors...)
}

// cycle asks the brokers everything once, in the order that makes the figures
// safe: commits before the ends of the logs, so that no lag is below 0.
func (c *Collector) cycle(ctx context.Context) Snapshot {
	c.memory.begin()
	r := &reading{}
	a, err := c.asker()
	if err != nil {
		r.at = c.now()
		return Snapshot{Cluster: c.cluster(r), At: r.at, Errors: []error{err}}
	}
	r.groups = a.groups(ctx, c.cfg.watches)
	a.describe(ctx, r.groups)
	a.commits(ctx, r.groups)
	r.at = c.now()
	var parts []Partition
	if len(r.groups) > 0 || len(a.errs) == 0 {
		a.topics(ctx, r)
		a.bounds(ctx, r)
		parts = r.partitions()
		c.date(ctx, a, r, parts)
	}
	s := Snapshot{
		Cluster: c.cluster(r), At: r.at, Complete: len(a.errs) == 0, Errors: a.errs,
		Groups: r.described(), Partitions: parts, Logs: r.extents(),
	}
	if s.Complete {
		c.memory.forget()
	}
	return s
}

// cluster names the cluster, from earlier cycles if this one did not hear it.
func (c *Collector) cluster(r *reading) string {
	if r.cluster != "" {
		c.memory.cluster = r.cluster
	}
	return cmp.Or(c.cfg.Cluster, c.memory.cluster)
}

// date fills in everything that has to do with time.
func (c *Collector) date(ctx context.Context, a *asker, r *reading, parts []Partition) {
	todo := c.memory.settle(r, parts, c.cfg.MaxLookups)
	a.lookUp(ctx, todo, c.cfg.MaxLookups, c.memory.note)
	failed := failures{}
	for _, l := range todo {
		if l.err != nil && !moved(l.err) {
			failed.add(l.log(), l.err)
		}
	}
	a.errs = append(a.errs, failed.errors("read timestamp in")...)
	c.memory.answer(r, parts, todo)
	c.memory.progress(r, parts)
}

func (c *Collector) asker() (*asker, error) {
	if c.client == nil {
		if err := c.cfg.Validate(); err != nil {
			return nil, fmt.Errorf("collect consumer lag: %w", err)
		}
		cl, err := kgo.NewClient(append(c.cfg.Kafka.Options(c.log), kgo.RequestRetries(requestRetries))...)
		if err != nil {
			return nil, fmt.Errorf("make kafka client: %w", err)
		}
		c.client = cl
	}
	return &asker{cl: c.client, tell: c.requests.add}, nil
}

// Close ends the connections, after the cycle that is running. A later Collect
// makes new ones.
func (c *Collector) Close() {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	if c.client != nil {
		c.client.Close()
		c.client = nil
	}
}
