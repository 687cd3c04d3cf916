// Package kafka is what the stages share of Kafka: how to reach the brokers,
// which topics must exist, which partition a key goes to, and the headers that
// an event carries.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// reachTimeout bounds the proof that a broker answers.
const reachTimeout = 10 * time.Second

// Config says how to reach a cluster.
type Config struct {
	// Brokers are the seed addresses, host:port. At least one.
	Brokers []string
	// ClientID names the stage in the broker's logs and quotas. Empty means
	// "orderflow".
	ClientID string
}

// Validate reports every problem of the Config.
func (c Config) Validate() error {
	if len(c.Brokers) == 0 {
		return errors.New("kafka brokers: name at least one, host:port")
	}
	var errs []error
	for _, b := range c.Brokers {
		if !strings.Contains(b, ":") {
			errs = append(errs, fmt.Errorf("kafka broker %q: want host:port", b))
		}
	}
	return errors.Join(errs...)
}

// Options are what every client of ours starts from.
func (c Config) Options(log *slog.Logger) []kgo.Opt {
	id := c.ClientID
	if id == "" {
		id = "orderflow"
	}
	return []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(id),
		kgo.WithLogger(logger{log}),
		kgo.DialTimeout(5 * time.Second),
		kgo.RetryBackoffFn(backoff),
		// A topic that was made just now is seen within this time, not in 5 s.
		kgo.MetadataMinAge(100 * time.Millisecond),
		// The broker would be asked to take the client's own metrics, and a
		// close waits a second for a broker that is gone.
		kgo.DisableClientMetrics(),
	}
}

// Open makes a client and proves that a broker answers.
func Open(ctx context.Context, c Config, log *slog.Logger, opts ...kgo.Opt) (*kgo.Client, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(append(c.Options(log), opts...)...)
	if err != nil {
		return nil, fmt.Errorf("make kafka client: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	if err := cl.Ping(ctx); err != nil {
		cl.Close()
		return nil, fmt.Errorf("reach kafka at %s: %w", strings.Join(c.Brokers, ","), err)
	}
	return cl, nil
}

// backoff starts low, since a broker that restarts is back within seconds and
// events wait meanwhile.
func backoff(tries int) time.Duration {
	const ceiling = 2 * time.Second
	d := 20 * time.Millisecond << min(tries, 10)
	return min(d, ceiling)
}

// logger hands franz-go's own log to slog. Its info level narrates every
// transaction and fetch, so it becomes debug.
type logger struct{ log *slog.Logger }

func (l logger) Level() kgo.LogLevel {
	ctx := context.Background()
	switch {
	case l.log.Enabled(ctx, slog.LevelDebug):
		return kgo.LogLevelInfo
	case l.log.Enabled(ctx, slog.LevelWarn):
		return kgo.LogLevelWarn
	default:
		return kgo.LogLevelError
	}
}

func (l logger) Log(level kgo.LogLevel, msg string, kv ...any) {
	to := slog.LevelDebug
	switch level {
	case kgo.LogLevelError, kgo.LogLevelWarn:
		// The client retries by itself; what it gives up on comes back as
		// an error and is logged where it is handled.
		to = slog.LevelWarn
	}
	l.log.Log(context.Background(), to, "kafka client reports", append([]any{"report", msg}, kv...)...)
}
