package testenv

import (
	"context"
	"testing"

	"orderflow/internal/embedded"
)

// Registry returns the URL of a schema registry. An embedded one is empty and this test's own.
func Registry(t testing.TB) string {
	t.Helper()
	r, err := embedded.StartRegistry(context.Background(), embedded.RegistryConfig{Log: Logger(t)})
	if err != nil {
		t.Fatalf("start registry for tests: %v", err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close registry: %v", err)
		}
	})
	return r.URL()
}
