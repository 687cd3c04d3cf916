package testenv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/internal/embedded"
)

// Kafka returns the addresses of a broker without topics and groups. It is this test's alone until the test ends: an
// embedded one by itself, a real one because other tests of this process wait for their turn. Subtests share what
// their parent holds.
func Kafka(t testing.TB) []string {
	t.Helper()
	if kafkaSetting() == "" {
		return FakeKafka(t).Addrs()
	}
	broker, err := sharedKafka()
	if err != nil {
		t.Fatalf("use the kafka of ORDERFLOW_TEST_KAFKA: %v", err)
	}
	broker.take(t)
	return broker.addrs
}

// RealKafka reports whether Kafka gives a real broker, for the few tests that look at what only one kind does.
func RealKafka() bool { return kafkaSetting() != "" }

// FakeKafka returns an embedded broker of this test's own whatever the environment says, for tests that inject faults.
func FakeKafka(t testing.TB) *embedded.Broker {
	t.Helper()
	b, err := embedded.StartBroker(context.Background(), embedded.BrokerConfig{Log: Logger(t)})
	if err != nil {
		t.Fatalf("start broker for tests: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close broker: %v", err)
		}
	})
	return b
}

// kafkaSetting is "" for embedded brokers.
func kafkaSetting() string {
	setting := os.Getenv("ORDERFLOW_TEST_KAFKA")
	if setting == "kfake" {
		return ""
	}
	return setting
}

// realKafka is a broker that the tests of this process take in turns.
type realKafka struct {
	addrs []string
	turn  chan struct{} // holds a token while no test holds the broker

	mu     sync.Mutex
	holder string // protected by mu: the test that holds the broker
}

var sharedKafka = sync.OnceValues(func() (*realKafka, error) {
	k := &realKafka{turn: make(chan struct{}, 1)}
	k.turn <- struct{}{}
	setting := kafkaSetting()
	if setting != "apache" {
		k.addrs = strings.Split(setting, ",")
		return k, mayWipe(k.addrs)
	}
	dir, err := os.MkdirTemp("", "orderflow-test-kafka-")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience) // the first run of a machine fetches Kafka
	defer cancel()
	server, err := embedded.StartApacheKafka(ctx, dir, embedded.ApacheKafkaConfig{Out: os.Stderr})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	k.addrs = server.Addrs()
	return k, buryWithUs(server.Pid(), "KILL", filepath.Join(dir, "nothing"), dir)
})

// mayWipe keeps tests, which delete all topics, from brokers that are not on this machine.
func mayWipe(addrs []string) error {
	if os.Getenv("ORDERFLOW_TEST_KAFKA_WIPE") == "1" {
		return nil
	}
	for _, addr := range addrs {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return fmt.Errorf("read broker address %q: %w", addr, err)
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return fmt.Errorf("%s is not on this machine, and tests delete every topic and group of their broker; "+
				"set ORDERFLOW_TEST_KAFKA_WIPE=1 if that is meant", addr)
		}
	}
	return nil
}

// take waits for the broker, clears it, and gives it back when the test ends.
func (k *realKafka) take(t testing.TB) {
	t.Helper()
	if k.heldBy(t.Name()) {
		return
	}
	<-k.turn // bounded by the deadline of the test process
	k.setHolder(t.Name())
	t.Cleanup(func() {
		k.setHolder("")
		k.turn <- struct{}{}
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := clearKafka(ctx, k.addrs); err != nil {
		t.Fatalf("clear the broker for a test: %v", err)
	}
}

// heldBy reports whether the test or one that it is part of holds the broker.
func (k *realKafka) heldBy(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.holder != "" && (name == k.holder || strings.HasPrefix(name, k.holder+"/"))
}

func (k *realKafka) setHolder(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.holder = name
}

// clearKafka deletes all topics and groups, and waits until they are gone. A group can be deleted only when its
// members have left, which a killed member does by its session timeout.
func clearKafka(ctx context.Context, addrs []string) error {
	// Listings come from the client's metadata, which is 5 s old at worst by default.
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.DisableClientMetrics(), kgo.MetadataMinAge(20*time.Millisecond))
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		left, err := deleteAll(ctx, adm)
		if err == nil && len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("delete %v: %w", left, context.Cause(ctx)), err)
		case <-tick.C:
		}
	}
}

// deleteAll deletes what is there and returns what was.
func deleteAll(ctx context.Context, adm *kadm.Client) ([]string, error) {
	topics, err := adm.ListTopics(ctx) // without the broker's own
	if err != nil {
		return nil, err
	}
	groups, err := adm.ListGroups(ctx)
	if err != nil {
		return nil, err
	}
	left := slices.Concat(topics.Names(), groups.Groups())
	if len(topics) > 0 {
		if _, err := adm.DeleteTopics(ctx, topics.Names()...); err != nil {
			return left, err
		}
	}
	if len(groups) > 0 {
		deleted, err := adm.DeleteGroups(ctx, groups.Groups()...)
		if err != nil {
			return left, err
		}
		if err := deleted.Error(); err != nil && !errors.Is(err, kerr.NonEmptyGroup) && !errors.Is(err, kerr.GroupIDNotFound) {
			return left, err
		}
	}
	return left, nil
}
