package ops_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"orderflow/internal/ops"
	"orderflow/internal/testenv"
)

func TestServerAnswersItsOperators(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	notYet := errors.New("no database")
	ready := notYet
	s := ops.Server{Listener: l, Registry: ops.NewRegistry(), Ready: func(context.Context) error { return ready }, Log: testenv.Logger(t)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()

	get := func(path string) (int, string) {
		t.Helper()
		res, err := http.Get("http://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	if code, body := get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "no database") {
		t.Errorf("not ready: %d %q", code, body)
	}
	if code, _ := get("/livez"); code != http.StatusOK {
		t.Errorf("alive: %d", code)
	}
	if code, body := get("/metrics"); code != http.StatusOK || !strings.Contains(body, "process_resident_memory_bytes") {
		t.Errorf("metrics: %d", code)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("server that was told to stop: %v", err)
	}
}

func TestLoggerRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	if _, err := ops.NewLogger(io.Discard, "xml", "info"); err == nil {
		t.Error("format xml passes")
	}
	if _, err := ops.NewLogger(io.Discard, "json", "loud"); err == nil {
		t.Error("level loud passes")
	}
	var b bytes.Buffer
	log, err := ops.NewLogger(&b, "auto", "warn")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("quiet")
	log.Warn("heard", "n", 1)
	if got := b.String(); strings.Contains(got, "quiet") || !strings.Contains(got, `"msg":"heard","n":1`) {
		t.Errorf("log %q: want JSON of the warning alone", got)
	}
}
