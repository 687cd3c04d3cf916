package testenv

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"orderflow/internal/embedded"
)

// Broker is a broker of one test that can be killed and started again on its data and address.
type Broker struct {
	t     testing.TB
	dir   string
	addr  string
	fake  *Running              // nil where the broker is real
	real  *embedded.ApacheKafka // nil where it is not
	alive bool
}

// BrokerProcess starts a broker in a process of its own: the embedded one, or an Apache Kafka where
// ORDERFLOW_TEST_KAFKA says so. The package's TestMain has to call Main.
func BrokerProcess(t testing.TB) *Broker {
	t.Helper()
	b := &Broker{t: t, dir: t.TempDir()}
	b.Start()
	t.Cleanup(func() {
		if b.alive {
			b.Kill()
		}
	})
	return b
}

// Addrs are the broker's addresses, the same through all restarts.
func (b *Broker) Addrs() []string { return []string{b.addr} }

// Kill is kill -9 of the broker.
func (b *Broker) Kill() {
	b.t.Helper()
	b.alive = false
	if b.real == nil {
		b.fake.Kill()
		return
	}
	if err := b.real.Kill(); err != nil {
		b.t.Fatalf("kill kafka: %v", err)
	}
}

// Start starts the broker after Kill, on the data it left, and returns when it answers.
func (b *Broker) Start() {
	b.t.Helper()
	if kafkaSetting() == "" {
		b.startFake()
	} else {
		b.startReal()
	}
	b.alive = true
}

func (b *Broker) startFake() {
	b.t.Helper()
	b.fake = startProcess(b.t, os.Args[0], nil, []string{roleVariable + "=broker", "ORDERFLOW_TEST_DIR=" + b.dir})
	Wait(b.t, 30*time.Second, "the broker to start (does TestMain call testenv.Main?)", func() bool {
		return strings.HasSuffix(b.fake.Stdout(), "\n") || b.fake.Ended()
	})
	addr := strings.TrimSpace(b.fake.Stdout())
	if b.fake.Ended() {
		b.t.Fatalf("broker ended at its start: %s", b.fake.Stderr())
	}
	if b.addr != "" && b.addr != addr {
		b.t.Fatalf("broker came back as %s, was %s", addr, b.addr)
	}
	b.addr = addr
}

func (b *Broker) startReal() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience)
	defer cancel()
	if b.real != nil {
		if err := b.real.Restart(ctx); err != nil {
			b.t.Fatal(err)
		}
		return
	}
	real, err := embedded.StartApacheKafka(ctx, b.dir, embedded.ApacheKafkaConfig{Out: os.Stderr, Log: Logger(b.t)})
	if err != nil {
		b.t.Fatal(err)
	}
	b.real, b.addr = real, real.Addrs()[0]
}
