package embedded

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// BrokerConfig says where the development broker keeps its log.
type BrokerConfig struct {
	DataDir  string            // empty = in memory
	Port     int               // 0 = a free one, remembered in DataDir
	Settings map[string]string // broker settings over the ones of this package
	Log      *slog.Logger
}

// Broker is a Kafka broker for development inside this process: one node, loopback only, no replication. It keeps
// topics, records, group offsets and producer state in its directory through kill -9. Production uses a real Kafka.
type Broker struct {
	cluster *kfake.Cluster
	claim   *claim // nil when in memory
	addrs   []string
}

// brokerSettings make the broker prompt and small.
func brokerSettings() map[string]string {
	return map[string]string{
		"default.replication.factor":           "1",
		"group.consumer.heartbeat.interval.ms": "500",
		"group.consumer.session.timeout.ms":    "10000",
		// Never: the broker rewrites a compacted partition in place, and a kill in the middle would take it all. So
		// this broker compacts nothing and expires nothing.
		"log.cleaner.backoff.ms": "315360000000",
		// Segments are read whole at a start, so small ones bound what a restart needs.
		"log.segment.bytes": "16777216",
	}
}

// StartBroker starts the broker on what its directory holds. A directory that another live process uses is refused
// with ErrInUse.
func StartBroker(_ context.Context, c BrokerConfig) (*Broker, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	began := time.Now()
	b := &Broker{}
	settings := brokerSettings()
	for name, value := range c.Settings {
		settings[name] = value
	}
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ClusterID(newClusterID()), // of a new directory; an old one keeps its own
		kfake.DefaultNumPartitions(12),
		kfake.GroupMinSessionTimeout(100 * time.Millisecond),
		kfake.BrokerConfigs(settings),
		kfake.WithLogger(brokerLog{c.Log}),
	}
	if c.DataDir != "" {
		held, err := claimDirectory(c.DataDir)
		if err != nil {
			return nil, fmt.Errorf("start broker: %w", err)
		}
		b.claim = held
		if c.Port, err = prepareLog(c); err != nil {
			return nil, errors.Join(fmt.Errorf("start broker in %s: %w", c.DataDir, err), held.release())
		}
		opts = append(opts, kfake.DataDir(filepath.Join(c.DataDir, "log")))
	}
	cluster, err := kfake.NewCluster(append(opts, kfake.Ports(c.Port))...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start broker in %q: %w", c.DataDir, err), b.claim.release())
	}
	boundFetches(cluster)
	b.cluster, b.addrs = cluster, cluster.ListenAddrs()
	if c.DataDir != "" {
		debug.FreeOSMemory() // what reading the segments took
	}
	c.Log.Info("started broker", "addr", b.addrs[0], "data_dir", c.DataDir, "took", time.Since(began).Round(time.Millisecond))
	return b, nil
}

// prepareLog makes the log fit to be served and returns the port to serve it on.
func prepareLog(c BrokerConfig) (int, error) {
	aborted, err := recoverLog(filepath.Join(c.DataDir, "log"))
	if err != nil {
		return 0, err
	}
	if aborted > 0 {
		c.Log.Info("aborted transactions that the last stop interrupted", "count", aborted)
	}
	return rememberedPort(filepath.Join(c.DataDir, "port"), c.Port)
}

// Addrs are the broker's addresses, for clients.
func (b *Broker) Addrs() []string { return b.addrs }

// Cluster is the broker itself, for the faults and controls that tests inject.
func (b *Broker) Cluster() *kfake.Cluster { return b.cluster }

// Close stops the broker and lets go of its directory.
func (b *Broker) Close() error {
	b.cluster.Close()
	return b.claim.release()
}

// newClusterID returns 16 random bytes in the form that Kafka gives to cluster ids. Kafka's own tools take an id that
// begins with a dash for an option.
func newClusterID() string {
	id := make([]byte, 16)
	for {
		rand.Read(id) // never fails
		if text := base64.RawURLEncoding.EncodeToString(id); text[0] != '-' {
			return text
		}
	}
}

// brokerLog passes the broker's complaints on.
type brokerLog struct{ log *slog.Logger }

func (l brokerLog) Logf(level kfake.LogLevel, format string, args ...any) {
	switch {
	case level == kfake.LogLevelError:
		l.log.Error("broker reports", "report", fmt.Sprintf(format, args...))
	case level == kfake.LogLevelWarn && !strings.HasPrefix(format, "txn: EndTxn slow"): // a few milliseconds
		l.log.Warn("broker reports", "report", fmt.Sprintf(format, args...))
	}
}
