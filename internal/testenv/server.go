package testenv

import (
	"context"
	"path/filepath"
	"testing"

	"orderflow/internal/embedded"
)

// PostgresServer is a server of one test that can be killed and started again on its data and address. It is durable.
type PostgresServer struct {
	t       testing.TB
	config  embedded.PostgresConfig
	running *embedded.Postgres
}

// PostgresProcess starts a server of this test's own. Ordinary tests use Postgres, which takes a hundredth of the
// time.
func PostgresProcess(t testing.TB) *PostgresServer {
	t.Helper()
	s := &PostgresServer{t: t, config: embedded.PostgresConfig{
		BinDir: PostgresBinaries(t), DataDir: filepath.Join(Dir(t), "postgres"), Log: Logger(t),
	}}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// URL is the address of the server's database, the same through all restarts.
func (s *PostgresServer) URL() string { return s.running.URL() }

// Pid is the process id of the postmaster, for signals.
func (s *PostgresServer) Pid() int { return s.running.Pid() }

// Kill is kill -9 of the server.
func (s *PostgresServer) Kill() {
	s.t.Helper()
	if err := s.running.Kill(); err != nil {
		s.t.Fatal(err)
	}
}

// Stop ends the server cleanly. A server that is down already is no error.
func (s *PostgresServer) Stop() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.running.Stop(ctx); err != nil {
		s.t.Errorf("stop postgres: %v", err)
	}
}

// Start starts the server, also after Kill or Stop, and returns when it answers.
func (s *PostgresServer) Start() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	before := s.running
	running, err := embedded.StartPostgres(ctx, s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	s.running = running
	if before != nil && before.URL() != running.URL() {
		s.t.Fatalf("postgres came back as %s, was %s", running.URL(), before.URL())
	}
}
