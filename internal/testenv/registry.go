package testenv

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"orderflow/internal/embedded"
)

// Registry returns the URL of a schema registry. An embedded one is empty and this test's own. A real one is shared and
// holds what earlier tests registered, so a test that evolves a schema has to use a subject of its own name.
func Registry(t testing.TB) string {
	t.Helper()
	switch setting := os.Getenv("ORDERFLOW_TEST_REGISTRY"); setting {
	case "", "srfake":
		return StoppableRegistry(t).URL()
	case "apicurio":
		url, err := sharedApicurio()
		if err != nil {
			t.Fatalf("start apicurio for tests: %v", err)
		}
		return url
	default:
		return strings.TrimRight(setting, "/")
	}
}

// RealRegistry reports whether Registry gives a real one.
func RealRegistry() bool {
	setting := os.Getenv("ORDERFLOW_TEST_REGISTRY")
	return setting != "" && setting != "srfake"
}

var sharedApicurio = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "orderflow-test-apicurio-")
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience) // the first run of a machine fetches it
	defer cancel()
	server, err := embedded.StartApicurio(ctx, dir, embedded.ApicurioConfig{Out: os.Stderr})
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return server.URL(), buryWithUs(server.Pid(), "KILL", filepath.Join(dir, "nothing"), dir)
})

// RegistryServer is an embedded registry of one test that can go away and come back.
type RegistryServer struct {
	t       testing.TB
	dir     string
	url     string
	running *embedded.Registry
}

// StoppableRegistry starts an embedded registry of this test's own, whatever the environment says.
func StoppableRegistry(t testing.TB) *RegistryServer {
	t.Helper()
	r := &RegistryServer{t: t, dir: t.TempDir()}
	r.Start()
	t.Cleanup(r.Stop)
	return r
}

// URL is the registry's address, the same through all restarts.
func (r *RegistryServer) URL() string { return r.url }

// Stop takes the registry away: connections are refused.
func (r *RegistryServer) Stop() {
	r.t.Helper()
	if r.running == nil {
		return
	}
	if err := r.running.Close(); err != nil {
		r.t.Errorf("close registry: %v", err)
	}
	r.running = nil
}

// Start brings the registry back with all it knew.
func (r *RegistryServer) Start() {
	r.t.Helper()
	running, err := embedded.StartRegistry(context.Background(), embedded.RegistryConfig{DataDir: r.dir, Log: Logger(r.t)})
	if err != nil {
		r.t.Fatalf("start registry for tests: %v", err)
	}
	if r.url != "" && r.url != running.URL() {
		r.t.Fatalf("registry came back as %s, was %s", running.URL(), r.url)
	}
	r.running, r.url = running, running.URL()
}
