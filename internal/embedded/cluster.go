package embedded

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// prepareCluster chooses the account and the directory of the cluster and makes the cluster when there is none.
func (p *Postgres) prepareCluster(ctx context.Context) error {
	major, err := serverVersion(ctx, filepath.Join(p.config.BinDir, "postgres"), account{})
	if err != nil {
		return err
	}
	// A cluster opens with its own major version only, so each version has a directory of its own.
	name := "pg" + strconv.Itoa(major)
	if p.account, err = postgresAccount(filepath.Join(p.config.DataDir, name)); err != nil {
		return err
	}
	if _, err := serverVersion(ctx, filepath.Join(p.config.BinDir, "postgres"), p.account); err != nil {
		return fmt.Errorf("user %s cannot run the binaries: %w", p.account.name, err)
	}
	parent, err := p.reachableParent(ctx)
	if err != nil {
		return err
	}
	p.data = filepath.Join(parent, name)
	if _, err := os.Stat(filepath.Join(p.data, "PG_VERSION")); err == nil {
		return nil
	}
	return p.initialise(ctx)
}

// reachableParent returns the data directory, or a directory under /var/tmp in its place when the account cannot get
// to it, as when root keeps it in a home of mode 0700.
func (p *Postgres) reachableParent(ctx context.Context) (string, error) {
	if p.account.reaches(ctx, p.config.DataDir) {
		return p.config.DataDir, nil
	}
	parent := fallbackDirectory(p.config.DataDir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", fmt.Errorf("make fallback data directory: %w", err)
	}
	// Everybody may write to /var/tmp, so the directory there may be somebody else's trap.
	if owner, err := directoryOwner(filepath.Dir(parent)); err != nil || owner != os.Geteuid() {
		return "", errors.Join(err, fmt.Errorf("use %s: it does not belong to this user", filepath.Dir(parent)))
	}
	if !p.account.reaches(ctx, parent) {
		return "", fmt.Errorf("user %s reaches neither %s nor %s", p.account.name, p.config.DataDir, parent)
	}
	p.config.Log.Warn("moved the cluster to where its user can reach it", "data_dir", p.config.DataDir,
		"moved_to", parent, "user", p.account.name)
	return parent, nil
}

func fallbackDirectory(dataDir string) string {
	sum := sha256.Sum256([]byte(dataDir))
	return filepath.Join("/var/tmp", "orderflow-"+strconv.Itoa(os.Geteuid()), hex.EncodeToString(sum[:6]))
}

// RemovePostgres deletes the clusters of a data directory, also where they were moved out of it, and is refused with
// ErrInUse while one runs.
func RemovePostgres(dataDir string) error {
	dir, err := filepath.Abs(dataDir)
	if err != nil {
		return fmt.Errorf("resolve data directory: %w", err)
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return os.RemoveAll(fallbackDirectory(dir))
	}
	held, err := claimDirectory(dir)
	if err != nil {
		return fmt.Errorf("remove postgres: %w", err)
	}
	if err := errors.Join(os.RemoveAll(fallbackDirectory(dir)), os.RemoveAll(dir), held.release()); err != nil {
		return fmt.Errorf("remove postgres: %w", err)
	}
	return nil
}

// initialise makes the cluster under another name and renames it when it is whole: a crash on the way leaves no half
// of a cluster that the next start would take for one.
func (p *Postgres) initialise(ctx context.Context) error {
	began := time.Now()
	fresh := p.data + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("remove unfinished cluster: %w", err)
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return fmt.Errorf("make cluster directory: %w", err)
	}
	if p.account.name != "" {
		if err := os.Chown(fresh, p.account.uid, p.account.gid); err != nil {
			return fmt.Errorf("give cluster directory to %s: %w", p.account.name, err)
		}
	}
	args := []string{"-D", fresh, "-U", superuser, "-A", "trust", "-E", "UTF8", "--locale=C"}
	if p.config.Fast {
		args = append(args, "--no-sync")
	}
	out, err := p.account.command(ctx, filepath.Join(p.config.BinDir, "initdb"), args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("run initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	if err := os.Rename(fresh, p.data); err != nil {
		return fmt.Errorf("name the new cluster: %w", err)
	}
	p.config.Log.Info("made a postgres cluster", "data_dir", p.data, "took", time.Since(began).Round(time.Millisecond))
	return syncDirectory(filepath.Dir(p.data))
}

// serverVersion returns the major version of a postgres binary, run as the account.
func serverVersion(ctx context.Context, binary string, a account) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := a.command(ctx, binary, "--version").CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("ask %s for its version: %w: %s", binary, err, bytes.TrimSpace(out))
	}
	// postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)
	fields := strings.Fields(string(out))
	if len(fields) < 3 {
		return 0, fmt.Errorf("read version of %s from %q", binary, out)
	}
	digits := strings.FieldsFunc(fields[2], func(r rune) bool { return r < '0' || r > '9' })
	if len(digits) == 0 {
		return 0, fmt.Errorf("read version of %s from %q", binary, out)
	}
	major, err := strconv.Atoi(digits[0])
	if err != nil {
		return 0, fmt.Errorf("read version of %s from %q: %w", binary, out, err)
	}
	return major, nil
}

// clearPredecessor deals with the pid file that a server left, or still holds, and reports whether that server died
// without cleaning up. We hold the lock of the data directory, so no live supervisor stands behind it.
func (p *Postgres) clearPredecessor(ctx context.Context) (crashed bool, err error) {
	pid, err := postmasterPid(p.data)
	if err != nil || pid == 0 {
		return false, err
	}
	command := processCommand(ctx, pid)
	switch {
	case command == "": // gone: Postgres removes the file itself
		return true, nil
	case !strings.Contains(command, p.data):
		// The number went to another process, maybe after a reboot. Postgres would take that for a running server.
		return true, p.removePidFiles()
	case !strings.Contains(command, "cluster_name="+clusterName):
		return false, fmt.Errorf("%s is served by process %d, which this program did not start: %w", p.data, pid, ErrInUse)
	}
	p.config.Log.Info("stopping the server that an earlier run left behind", "pid", pid, "data_dir", p.data)
	return false, stopStranger(ctx, pid)
}

// postmasterPid returns 0 when no server holds or held the cluster.
func postmasterPid(data string) (int, error) {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read pid file: %w", err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 0 {
		return 0, nil // torn by a crash: Postgres judges it
	}
	return pid, nil
}

func (p *Postgres) removePidFiles() error {
	sockets, err := filepath.Glob(filepath.Join(p.data, ".s.PGSQL.*"))
	if err != nil {
		return fmt.Errorf("list sockets: %w", err)
	}
	for _, path := range append(sockets, filepath.Join(p.data, "postmaster.pid")) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove stale pid file: %w", err)
		}
	}
	return nil
}

// processCommand returns the command line of a live process, or "".
func processCommand(ctx context.Context, pid int) string {
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil {
		return strings.ReplaceAll(string(text), "\x00", " ")
	}
	if syscall.Kill(pid, 0) == syscall.ESRCH {
		return ""
	}
	out, err := exec.CommandContext(ctx, "ps", "-p", strconv.Itoa(pid), "-o", "command=").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// stopStranger stops a process that is not our child, so its end can only be polled for.
func stopStranger(ctx context.Context, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	if err := syscall.Kill(pid, syscall.SIGINT); err != nil && err != syscall.ESRCH {
		return fmt.Errorf("stop server %d: %w", pid, err)
	}
	for processCommand(ctx, pid) != "" {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for server %d to stop: %w", pid, context.Cause(ctx))
		case <-tick.C:
		}
	}
	return nil
}
