package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// oldestPostgres is the oldest major version that the product supports.
const oldestPostgres = 15

// FindOptions steers the search for Postgres binaries.
type FindOptions struct {
	NoInstall bool      // look only: fetch no package, install nothing
	Out       io.Writer // commands that fetch or install are printed here before they run; nil = the log only
	Log       *slog.Logger
}

// source is one place that may have the binaries. find returns "" when the place has nothing.
type source struct {
	name string
	find func(context.Context, *finder) (string, error)
}

type finder struct {
	FindOptions
	sources []source
	getenv  func(string) string
	tried   []error // what was there and did not do
}

// FindPostgres returns the directory that holds initdb and postgres, version 15 or later. The first hit wins: PG_BIN,
// pg_config, the folders of Linux distributions and of Homebrew, our cache, and then, unless NoInstall, packages of
// npm, pip and Maven, which need no privilege, and apt-get when we are root. A caller with a DATABASE_URL needs none
// of it. The error is a MissingError with the one command for this system.
func FindPostgres(ctx context.Context, opt FindOptions) (binDir string, err error) {
	f := &finder{FindOptions: opt, getenv: os.Getenv, sources: []source{
		{"pg_config", askPgConfig},
		{"system folders", globs("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/lib/postgresql*/bin", "/usr/libexec/postgresql*")},
		{"homebrew", globs("/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin",
			"/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin", "/Applications/Postgres.app/Contents/Versions/*/bin", "/usr/local/bin", "/usr/bin")},
		{"cache", lookInCache},
		{"npm", fetchByNpm},
		{"pip", fetchByPip},
		{"maven", fetchByMaven},
		{"apt-get", installByApt},
	}}
	return f.find(ctx)
}

func (f *finder) commands() commands { return commands{out: f.Out, log: f.Log} }

func (f *finder) find(ctx context.Context) (string, error) {
	if f.Log == nil {
		f.Log = slog.New(slog.DiscardHandler)
	}
	if named := f.getenv("PG_BIN"); named != "" {
		if err := usable(ctx, named); err != nil { // what the operator named is never replaced by something else
			return "", fmt.Errorf("use PG_BIN: %w", err)
		}
		return named, nil
	}
	for _, s := range f.sources {
		dir, err := s.find(ctx, f)
		if err == nil && dir != "" {
			f.Log.Debug("found postgres", "bin_dir", dir, "source", s.name)
			return dir, nil
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("find postgres: %w", context.Cause(ctx))
		}
		if err != nil {
			f.Log.Debug("passed over a source of postgres", "source", s.name, "error", err)
			f.tried = append(f.tried, fmt.Errorf("%s: %w", s.name, err))
		}
	}
	hint := "set DATABASE_URL or PG_BIN, or install it: " + installCommand()
	return "", &MissingError{What: fmt.Sprintf("PostgreSQL %d or later", oldestPostgres), Hint: hint, Err: errors.Join(f.tried...)}
}

// usable says what keeps a folder from being used.
func usable(ctx context.Context, dir string) error {
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("look for %s: %w", name, err)
		}
	}
	runner, err := postgresAccount(filepath.Join(dir, "no-such-cluster"))
	if err != nil {
		return err
	}
	major, err := serverVersion(ctx, filepath.Join(dir, "postgres"), runner)
	if err != nil {
		return err
	}
	if major < oldestPostgres {
		return fmt.Errorf("%s is version %d, older than %d", dir, major, oldestPostgres)
	}
	return nil
}

func askPgConfig(ctx context.Context, _ *finder) (string, error) {
	path, err := exec.LookPath("pg_config")
	if err != nil {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--bindir").Output()
	if err != nil {
		return "", fmt.Errorf("ask pg_config: %w", err)
	}
	dir := strings.TrimSpace(string(out))
	return dir, usable(ctx, dir)
}

// globs looks in folders, newest version first.
func globs(patterns ...string) func(context.Context, *finder) (string, error) {
	return func(ctx context.Context, _ *finder) (string, error) {
		var unfit []error
		for _, pattern := range patterns {
			dirs, err := filepath.Glob(pattern)
			if err != nil {
				return "", fmt.Errorf("look in %s: %w", pattern, err)
			}
			slices.SortFunc(dirs, func(a, b string) int { return lastNumber(b) - lastNumber(a) })
			for _, dir := range dirs {
				if _, err := os.Stat(filepath.Join(dir, "postgres")); err != nil {
					continue
				}
				if err := usable(ctx, dir); err != nil {
					unfit = append(unfit, err)
					continue
				}
				return dir, nil
			}
		}
		return "", errors.Join(unfit...)
	}
}

// lastNumber is the last run of digits in a path, the version in every layout that is looked at. The 6 of an old 9.6
// sorts low enough.
func lastNumber(path string) int {
	digits := strings.FieldsFunc(path, func(r rune) bool { return r < '0' || r > '9' })
	if len(digits) == 0 {
		return 0
	}
	n, err := strconv.Atoi(digits[len(digits)-1])
	if err != nil {
		return 0
	}
	return n
}

// installCommand is the one command that gives this system a Postgres.
func installCommand() string {
	if runtime.GOOS == "darwin" {
		return "brew install postgresql@18"
	}
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "see https://www.postgresql.org/download/"
	}
	return commandFor(string(text))
}

// commandFor reads the text of /etc/os-release.
func commandFor(osRelease string) string {
	var ids string
	for line := range strings.Lines(osRelease) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if key == "ID" || key == "ID_LIKE" {
			ids += " " + strings.Trim(value, `"'`)
		}
	}
	for _, known := range []struct{ id, command string }{
		{"debian", "apt-get update && apt-get install -y --no-install-recommends postgresql"},
		{"ubuntu", "apt-get update && apt-get install -y --no-install-recommends postgresql"},
		{"alpine", "apk add postgresql"},
		{"arch", "pacman -S postgresql"},
		{"suse", "zypper install postgresql-server"},
		{"fedora", "dnf install -y postgresql-server"},
		{"rhel", "dnf install -y postgresql-server"},
	} {
		if strings.Contains(ids, known.id) {
			return known.command
		}
	}
	return "see https://www.postgresql.org/download/"
}
