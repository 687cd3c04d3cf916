package embedded

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary be the supervisor that a test kills: with a role in its environment it starts that
// part on the directory, says the part's address, and stays.
func TestMain(m *testing.M) {
	if role := os.Getenv("ORDERFLOW_TEST_ROLE"); role != "" {
		if err := supervise(context.Background(), role, os.Getenv("ORDERFLOW_TEST_DIR")); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		select {} // until killed
	}
	os.Exit(m.Run())
}

func supervise(ctx context.Context, role, dir string) error {
	var addr string
	switch role {
	case "postgres":
		bin, err := FindPostgres(ctx, FindOptions{})
		if err != nil {
			return err
		}
		p, err := StartPostgres(ctx, PostgresConfig{BinDir: bin, DataDir: dir})
		if err != nil {
			return err
		}
		addr = p.URL()
	case "broker":
		b, err := StartBroker(ctx, BrokerConfig{DataDir: dir})
		if err != nil {
			return err
		}
		addr = b.Addrs()[0]
	case "registry":
		r, err := StartRegistry(ctx, RegistryConfig{DataDir: dir})
		if err != nil {
			return err
		}
		addr = r.URL()
	}
	fmt.Println("ready", addr)
	return nil
}

// startSupervisor starts a process that runs a part, and returns the part's address and kill -9 for the process.
func startSupervisor(t *testing.T, role, dir string) (addr string, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "ORDERFLOW_TEST_ROLE="+role, "ORDERFLOW_TEST_DIR="+dir)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = cmd.Process.Kill() // a second kill finds no process
		_ = cmd.Wait()         // "signal: killed" is what we want
	}
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("read the supervisor's answer: %v", err)
	}
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if !ok {
		t.Fatalf("supervisor says %q", line)
	}
	return addr, kill
}

// reachableDir is a temporary directory that the user which runs Postgres can enter. t.TempDir is for its owner alone.
func reachableDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "orderflow-test-embedded-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func eventually(t *testing.T, timeout time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline.C:
			t.Fatalf("waited %v for %s", timeout, what)
		case <-tick.C:
		}
	}
}
