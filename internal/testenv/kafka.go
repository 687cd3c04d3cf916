package testenv

import (
	"context"
	"testing"

	"orderflow/internal/embedded"
)

// Kafka returns the addresses of a broker without topics and groups, for this test alone.
func Kafka(t testing.TB) []string {
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
	return b.Addrs()
}
