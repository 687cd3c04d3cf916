package testenv

import (
	"log/slog"
	"sync"
	"testing"
)

// Logger returns a logger that writes to the test's own log, which `go test` shows when the test fails. What
// goroutines log after the end of the test is dropped.
func Logger(t testing.TB) *slog.Logger {
	w := &testWriter{t: t}
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ended = true
	})
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testWriter struct {
	t     testing.TB
	mu    sync.Mutex
	ended bool // protected by mu
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended { // a log call after its test has ended panics
		w.t.Logf("%s", p[:max(0, len(p)-1)])
	}
	return len(p), nil
}
