package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Running is a program under test: a real process that can be killed, frozen and woken.
type Running struct {
	t      testing.TB
	name   string
	cmd    *exec.Cmd
	stdout output
	stderr output
	done   chan struct{} // closed by the goroutine that waits for the process
	err    error         // how it ended; written before done is closed
}

// Process starts the orderflow program with arguments, and environment settings over our own. The program is built
// once per test process; ORDERFLOW_BINARY names one that is built already. What still runs when the test ends is
// killed, and the output of a failed test's processes is in its log.
func Process(t testing.TB, args, env []string) *Running {
	t.Helper()
	binary, err := program()
	if err != nil {
		t.Fatalf("build orderflow: %v", err)
	}
	return startProcess(t, binary, args, env)
}

func startProcess(t testing.TB, binary string, args, env []string) *Running {
	t.Helper()
	r := &Running{t: t, name: strings.Join(append([]string{filepath.Base(binary)}, args...), " "), done: make(chan struct{})}
	r.cmd = exec.Command(binary, args...)
	r.cmd.Env = append(os.Environ(), env...)
	r.cmd.Stdout, r.cmd.Stderr = &r.stdout, &r.stderr
	r.cmd.WaitDelay = 2 * time.Second // a grandchild that holds the output does not hold the test
	detach(r.cmd)
	killWithUs(r.cmd)
	started := make(chan error, 1)
	go r.own(started)
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", r.name, err)
	}
	t.Cleanup(func() {
		r.Kill()
		if t.Failed() {
			t.Logf("%s wrote\n%s%s", r.name, r.Stdout(), r.Stderr())
		}
	})
	return r
}

// own keeps its OS thread until the process has ended, since the process is killed when that thread ends.
func (r *Running) own(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := r.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	r.err = r.cmd.Wait()
	close(r.done)
}

// Pid is the process id.
func (r *Running) Pid() int { return r.cmd.Process.Pid }

// Stdout is what the process has written to its standard output so far.
func (r *Running) Stdout() string { return r.stdout.String() }

// Stderr is what the process has written to its standard error so far.
func (r *Running) Stderr() string { return r.stderr.String() }

// Kill is kill -9. It returns when the process is gone.
func (r *Running) Kill() {
	r.t.Helper()
	r.Signal(syscall.SIGKILL)
	<-r.done
}

// Freeze stops the process where it stands (SIGSTOP), with its connections open.
func (r *Running) Freeze() { r.t.Helper(); r.Signal(syscall.SIGSTOP) }

// Wake lets a frozen process go on (SIGCONT).
func (r *Running) Wake() { r.t.Helper(); r.Signal(syscall.SIGCONT) }

// Signal sends any signal. A process that has ended is no error.
func (r *Running) Signal(sig syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		r.t.Errorf("send %v to %s: %v", sig, r.name, err)
	}
}

// Stop asks the process to end (SIGTERM) and returns its exit code.
func (r *Running) Stop(timeout time.Duration) int {
	r.t.Helper()
	r.Signal(syscall.SIGTERM)
	return r.Wait(timeout)
}

// Wait returns the exit code when the process has ended, -1 when a signal ended it, and fails the test when it has
// not ended within timeout.
func (r *Running) Wait(timeout time.Duration) int {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(timeout):
		r.t.Fatalf("waited %v for %s to end", timeout, r.name)
	}
	return r.cmd.ProcessState.ExitCode()
}

// Ended reports whether the process is gone.
func (r *Running) Ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// output is a buffer that can be read while it is written.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer // protected by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// program builds the binary, once per test process.
var program = sync.OnceValues(func() (string, error) {
	if binary := os.Getenv("ORDERFLOW_BINARY"); binary != "" {
		return filepath.Abs(binary)
	}
	dir, err := os.MkdirTemp("", "orderflow-test-binary-")
	if err != nil {
		return "", err
	}
	if err := buryWithUs(os.Getpid(), "0", filepath.Join(dir, "nothing"), dir); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute) // a cold build cache
	defer cancel()
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	binary := filepath.Join(dir, "orderflow")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, ".")
	build.Dir = strings.TrimSpace(string(root))
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return binary, nil
})
