package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
	"time"
)

// account is the system user that runs Postgres. The zero value is the user of this process.
type account struct {
	name     string
	uid, gid int
}

// credential returns nil for the user of this process.
func (a account) credential() *syscall.Credential {
	if a.name == "" {
		return nil
	}
	return &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
}

// postgresAccount returns who runs the cluster in dir: ourselves, unless we are root, whom Postgres refuses. Then it
// is the owner of an existing cluster, else postgres, else nobody.
func postgresAccount(dir string) (account, error) {
	owner, err := directoryOwner(dir)
	if err != nil {
		return account{}, err
	}
	if os.Geteuid() != 0 {
		if owner >= 0 && owner != os.Geteuid() {
			return account{}, fmt.Errorf("cluster %s belongs to user id %d, not to %d: run as its owner or choose another directory",
				dir, owner, os.Geteuid())
		}
		return account{}, nil
	}
	if owner > 0 {
		u, err := user.LookupId(strconv.Itoa(owner))
		if err != nil {
			return account{}, fmt.Errorf("look up the owner of %s: %w", dir, err)
		}
		return newAccount(u)
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			return newAccount(u)
		}
	}
	return account{}, errors.New("choose a user to run Postgres: it refuses root, and this system has neither postgres nor nobody")
}

func newAccount(u *user.User) (account, error) {
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return account{}, fmt.Errorf("read user id of %s: %w", u.Username, err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return account{}, fmt.Errorf("read group id of %s: %w", u.Username, err)
	}
	return account{name: u.Username, uid: uid, gid: gid}, nil
}

// directoryOwner returns -1 when dir does not exist.
func directoryOwner(dir string) (int, error) {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", dir, err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return -1, nil
	}
	return int(stat.Uid), nil
}

// command prepares a short run under the account, away from directories that it may not enter.
func (a account) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = "/", smallEnvironment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.credential()}
	cmd.WaitDelay = time.Second
	return cmd
}

// reaches reports whether the account can walk to dir and enter it: a home of mode 0700 keeps everybody else out of
// all that is below it.
func (a account) reaches(ctx context.Context, dir string) bool {
	return a.command(ctx, "/bin/sh", "-c", `cd "$1"`, "sh", dir).Run() == nil
}

// smallEnvironment holds nothing of ours: no secrets, no PG* settings, no locale.
func smallEnvironment() []string {
	return []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C", "TZ=UTC", "HOME=/"}
}
