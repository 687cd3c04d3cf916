package lag

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Collector reads the lag of consumer groups in the background and keeps the
// latest result.
type Collector struct {
	cfg Config
	log *slog.Logger

	mu     sync.Mutex
	latest Snapshot // protected by mu
}

// New makes a Collector and registers its metrics with reg, unless that is
// nil. It reaches for Kafka only in Run and Collect.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) *Collector {
	return &Collector{cfg: cfg.withDefaults(), log: log}
}

// Run does a cycle at once and one per Interval, until ctx ends; it then
// returns nil. A cycle that fails makes the lag unknown until one succeeds.
func (c *Collector) Run(ctx context.Context) error {
	defer c.Close()
	tick := time.NewTicker(c.cfg.Interval)
	defer tick.Stop()
	for {
		if _, err := c.Collect(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("read consumer lag", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Snapshot returns what the latest cycle found.
func (c *Collector) Snapshot() Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.latest.clone()
}

// Collect does one cycle now and returns what it found, which also becomes the
// latest Snapshot. The error joins Snapshot.Errors; what could be read in
// spite of it is in the Snapshot.
func (c *Collector) Collect(ctx context.Context) (Snapshot, error) {
	return Snapshot{}, errors.New("collect consumer lag: the cycle is being built")
}

// Close ends the connections. A later Collect makes new ones.
func (c *Collector) Close() {}
