package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// fetchPatience bounds one fetch. It includes waiting for another process that fetches.
const fetchPatience = 5 * time.Minute

// CacheDir is where fetched parts are kept: ORDERFLOW_CACHE, or the user's cache folder. Root's parts go to
// /var/cache, since the user that runs Postgres for root cannot enter root's home.
func CacheDir() (string, error) {
	if dir := os.Getenv("ORDERFLOW_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	if os.Geteuid() == 0 && runtime.GOOS != "darwin" {
		return "/var/cache/orderflow", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	return filepath.Join(dir, "orderflow"), nil
}

// fetchOnce returns a folder of the cache that ready is content with. When there is none, fill makes it: beside its
// place, so that what is in the cache is whole, and in one process at a time.
func fetchOnce(ctx context.Context, folder string, ready func(dir string) error, fill func(ctx context.Context, dir string) error) (string, error) {
	root, err := CacheDir()
	if err != nil {
		return "", err
	}
	final := filepath.Join(root, folder)
	if ready(final) == nil {
		return final, nil
	}
	ctx, cancel := context.WithTimeout(ctx, fetchPatience)
	defer cancel()
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", fmt.Errorf("make cache folder: %w", err)
	}
	unlock, err := lockCache(ctx, root)
	if err != nil {
		return "", err
	}
	defer unlock()
	if ready(final) == nil { // another process was faster
		return final, nil
	}
	temp, err := os.MkdirTemp(root, ".fetching-*")
	if err != nil {
		return "", fmt.Errorf("make cache folder: %w", err)
	}
	defer os.RemoveAll(temp) // no-op after the rename
	if err := errors.Join(os.Chmod(temp, 0o755), fill(ctx, temp)); err != nil {
		return "", err
	}
	if err := ready(temp); err != nil {
		return "", fmt.Errorf("use what was fetched: %w", err)
	}
	if err := os.RemoveAll(final); err != nil {
		return "", fmt.Errorf("replace %s: %w", final, err)
	}
	if err := os.Rename(temp, final); err != nil {
		return "", fmt.Errorf("keep what was fetched: %w", err)
	}
	return final, nil
}

// lockCache waits until no other process fetches.
func lockCache(ctx context.Context, root string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(root, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the cache: %w", err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock the cache: %w", err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for another fetch: %w", context.Cause(ctx)), f.Close())
		case <-tick.C:
		}
	}
}

// commands runs package managers and says so before.
type commands struct {
	out io.Writer // nil = the log only
	log *slog.Logger
}

// run prints a command and runs it, with its output in the error only.
func (c commands) run(ctx context.Context, dir, name string, args ...string) error {
	line := strings.Join(append([]string{name}, args...), " ")
	c.log.Info("fetching", "command", line)
	if c.out != nil {
		fmt.Fprintln(c.out, "+ "+line)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		out = bytes.TrimSpace(out)
		return fmt.Errorf("run %s: %w: %s", name, err, out[max(0, len(out)-1000):])
	}
	return nil
}
