package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// child is a process of ours that ends when this process ends. One goroutine owns it: it starts the process, waits
// for it, and closes done.
type child struct {
	cmd  *exec.Cmd
	log  string // path of the file that holds its output
	done chan struct{}
	err  error // how it ended; written before done is closed
}

type childConfig struct {
	Path        string
	Args        []string
	Env         []string
	Account     account        // runs as this one, when we are root
	Log         string         // its output is appended here
	DeathSignal syscall.Signal // what it gets when this process dies without stopping it (Linux)
}

// startChild starts a process in a group of its own, so that Ctrl-C on our terminal reaches us alone and we stop our
// parts in order.
func startChild(c childConfig) (*child, error) {
	out, err := openLog(c.Log)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", c.Env, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: c.Account.credential()}
	dieWithParent(cmd.SysProcAttr, c.DeathSignal)
	ch := &child{cmd: cmd, log: c.Log, done: make(chan struct{})}
	started := make(chan error, 1)
	go ch.own(started, out)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Path, err)
	}
	return ch, nil
}

// own keeps its OS thread from start to end of the process: the kernel's death signal goes out when the thread that
// started the child ends, and Go ends idle threads as it likes.
func (c *child) own(started chan<- error, out *os.File) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer out.Close()
	err := c.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	c.err = c.cmd.Wait()
	close(c.done)
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// ended reports whether the process is gone.
func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// errEndedAtStart is the error of a process that ended before it answered.
var errEndedAtStart = errors.New("server ended at its start")

// awaitChild returns when ready does not fail any more, and fails when the process ends or startPatience does.
func awaitChild(ctx context.Context, c *child, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		attempt, stop := context.WithTimeout(ctx, 5*time.Second)
		last := ready(attempt)
		stop()
		if last == nil {
			return nil
		}
		select {
		case <-c.done:
			return fmt.Errorf("%w: %w: %s", errEndedAtStart, c.err, lastWords(c.log))
		case <-ctx.Done():
			return fmt.Errorf("wait for the server to answer: %w, last: %w", context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}

// signal sends sig to the process. A process that has ended is no error.
func (c *child) signal(sig syscall.Signal) error {
	err := c.cmd.Process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// stop sends the signals one after the other, each with patience to end, and kills the whole group at last or when
// ctx ends.
func (c *child) stop(ctx context.Context, patience time.Duration, signals ...syscall.Signal) error {
	for _, sig := range signals {
		if err := c.signal(sig); err != nil {
			return fmt.Errorf("signal process %d: %w", c.pid(), err)
		}
		select {
		case <-c.done:
			return nil
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), c.kill())
		case <-time.After(patience):
		}
	}
	return errors.Join(fmt.Errorf("stop process %d: still running after %v", c.pid(), patience), c.kill())
}

// kill is kill -9 of the process and all that it started.
func (c *child) kill() error {
	err := syscall.Kill(-c.pid(), syscall.SIGKILL)
	<-c.done // a killed process ends; there is nothing to wait for longer than the kernel needs
	if err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill process group %d: %w", c.pid(), err)
	}
	return nil
}

// biggestLog is where a log is begun anew at the next start.
const biggestLog = 16 << 20

func openLog(path string) (*os.File, error) {
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if info, err := os.Stat(path); err == nil && info.Size() > biggestLog {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}

// lastWords returns the end of a log file, for an error.
func lastWords(path string) string {
	const most = 2000
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	text := make([]byte, min(info.Size(), most))
	n, _ := f.ReadAt(text, info.Size()-int64(len(text)))
	return strings.TrimSpace(string(text[:n]))
}
