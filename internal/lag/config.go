package lag

import (
	"errors"
	"fmt"
	"path"
	"time"

	"orderflow/internal/kafka"
)

const (
	defaultInterval   = 10 * time.Second
	defaultTimeout    = 10 * time.Second
	defaultMaxLookups = 256
)

// Config says what a Collector watches, and at what cost.
type Config struct {
	// Kafka says how to reach the cluster.
	Kafka kafka.Config
	// Cluster is the value of the label `cluster`. Empty takes the id that the
	// brokers report.
	Cluster string
	// Groups names the groups to watch, exactly or by shell patterns
	// ("seller*"). Empty watches every group.
	Groups []string
	// Interval is the time between the beginnings of two cycles. Zero means
	// 10 s.
	Interval time.Duration
	// Timeout bounds one cycle. Zero means 10 s.
	Timeout time.Duration
	// MaxLookups bounds how many partitions are read for a timestamp in one
	// cycle; those left out come first in the next. Zero means 256.
	MaxLookups int
}

// Validate reports every problem of the Config.
func (c Config) Validate() error {
	errs := []error{c.Kafka.Validate()}
	for _, pattern := range c.Groups {
		if _, err := path.Match(pattern, ""); err != nil {
			errs = append(errs, fmt.Errorf("lag group %q: %w", pattern, err))
		}
	}
	if c.Interval < 0 || c.Timeout < 0 || c.MaxLookups < 0 {
		errs = append(errs, errors.New("lag interval, timeout and lookups: want none below 0"))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if c.Interval == 0 {
		c.Interval = defaultInterval
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.MaxLookups == 0 {
		c.MaxLookups = defaultMaxLookups
	}
	return c
}

// watches says whether a group is one of those to look at.
func (c Config) watches(group string) bool {
	for _, pattern := range c.Groups {
		if ok, err := path.Match(pattern, group); ok && err == nil {
			return true
		}
	}
	return len(c.Groups) == 0
}
