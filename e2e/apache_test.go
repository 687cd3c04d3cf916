package e2e

import (
	"context"
	"testing"

	"orderflow/internal/embedded"
	"orderflow/internal/testenv"
)

// apacheBroker is a real Apache Kafka of the story's own, to be killed.
type apacheBroker struct {
	t *testing.T
	k *embedded.ApacheKafka
}

func newApacheBroker(t *testing.T) broker {
	t.Helper()
	k, err := embedded.StartApacheKafka(t.Context(), t.TempDir(), embedded.ApacheKafkaConfig{Log: testenv.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Kill() }) // a story may have killed it already
	return &apacheBroker{t: t, k: k}
}

func (b *apacheBroker) addrs() []string { return b.k.Addrs() }

func (b *apacheBroker) kill() {
	if err := b.k.Kill(); err != nil {
		b.t.Error(err)
	}
}

func (b *apacheBroker) restart() {
	if err := b.k.Restart(context.WithoutCancel(b.t.Context())); err != nil {
		b.t.Fatal(err)
	}
}
