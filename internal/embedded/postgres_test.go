package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func binaries(t *testing.T) string {
	t.Helper()
	bin, err := FindPostgres(t.Context(), FindOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

func startPostgres(t *testing.T, dir string) *Postgres {
	t.Helper()
	p, err := StartPostgres(t.Context(), PostgresConfig{BinDir: binaries(t), DataDir: dir, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Stop(context.Background()) }) // some tests stop it themselves
	return p
}

// query runs one statement on a connection of its own and returns its first value as text.
func query(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	rows, err := conn.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	values, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (string, error) {
		v, err := r.Values()
		return fmt.Sprint(v...), err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(values, ",")
}

func TestPostgresIsWhatTheProductNeeds(t *testing.T) {
	t.Parallel()
	p := startPostgres(t, reachableDir(t))
	for setting, want := range map[string]string{
		"wal_level": "logical", "max_connections": "300", "fsync": "on", "lc_collate": "C", "server_encoding": "UTF8",
		"listen_addresses": "127.0.0.1", "TimeZone": "UTC",
	} {
		sql := "SELECT setting FROM pg_settings WHERE name = '" + setting + "'"
		if setting == "lc_collate" { // no setting any more since 16
			sql = "SELECT datcollate FROM pg_database WHERE datname = current_database()"
		}
		if got := query(t, p.URL(), sql); got != want {
			t.Errorf("%s = %q, want %q", setting, got, want)
		}
	}
	query(t, p.URL(), "SELECT pg_create_logical_replication_slot('wal', 'pgoutput')::text")
}

func TestPostgresKeepsItsDataAndItsPort(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	p := startPostgres(t, dir)
	query(t, p.URL(), "CREATE TABLE notes AS SELECT 42 AS n")
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := startPostgres(t, dir)
	if again.URL() != p.URL() {
		t.Errorf("address is %s, was %s", again.URL(), p.URL())
	}
	if got := query(t, again.URL(), "SELECT n FROM notes"); got != "42" {
		t.Errorf("got %q after a restart, want 42", got)
	}
}

func TestPostgresTakesAnotherPortWhenItsOwnIsTaken(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	p := startPostgres(t, dir)
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	squatter, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p.port))
	if err != nil {
		t.Fatal(err)
	}
	defer squatter.Close()
	again := startPostgres(t, dir)
	if again.port == p.port {
		t.Fatalf("port is %d, which another process has", again.port)
	}
	query(t, again.URL(), "SELECT 1")
}

func TestPostgresRefusesASecondUserOfItsDirectory(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	p := startPostgres(t, dir)
	_, err := StartPostgres(t.Context(), PostgresConfig{BinDir: binaries(t), DataDir: dir})
	if !errors.Is(err, ErrInUse) {
		t.Fatalf("got %v, want %v", err, ErrInUse)
	}
	for _, want := range []string{dir, fmt.Sprint(os.Getpid())} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not name %s: %v", want, err)
		}
	}
	if err := RemovePostgres(dir); !errors.Is(err, ErrInUse) {
		t.Errorf("removing it says %v, want %v", err, ErrInUse)
	}
	query(t, p.URL(), "SELECT 1") // the first is unharmed
}

func TestPostgresRecoversFromItsOwnKill(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	p := startPostgres(t, dir)
	query(t, p.URL(), "CREATE TABLE notes AS SELECT 42 AS n")
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	again := startPostgres(t, dir)
	if got := query(t, again.URL(), "SELECT n FROM notes"); got != "42" {
		t.Errorf("got %q after kill -9, want 42", got)
	}
}

func TestPostgresRecoversFromTheKillOfItsParent(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	url, kill := startSupervisor(t, "postgres", dir)
	query(t, url, "CREATE TABLE notes AS SELECT 42 AS n")
	kill()
	again := startPostgres(t, dir) // at once, while the orphan may still shut down
	if got := query(t, again.URL(), "SELECT n FROM notes"); got != "42" {
		t.Errorf("got %q after kill -9 of the parent, want 42", got)
	}
	if again.URL() != url {
		t.Errorf("address is %s, was %s", again.URL(), url)
	}
}

func TestPostgresEndsWithItsParent(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells a child of its parent's death")
	}
	dir := reachableDir(t)
	_, kill := startSupervisor(t, "postgres", dir)
	kill()
	eventually(t, 20*time.Second, "the server to end by itself", func() bool {
		files, err := filepath.Glob(filepath.Join(dir, "pg*", "postmaster.pid"))
		return err == nil && len(files) == 0
	})
}

// TestPostgresStopsAnOrphan is the case of systems that tell no child of its parent's death: the server still runs.
func TestPostgresStopsAnOrphan(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	p := startPostgres(t, dir)
	query(t, p.URL(), "CREATE TABLE notes AS SELECT 42 AS n")
	if err := p.claim.release(); err != nil { // as the kernel does for a dead parent
		t.Fatal(err)
	}
	again := startPostgres(t, dir)
	if again.Pid() == p.Pid() {
		t.Fatal("the orphan was taken for the new server")
	}
	if got := query(t, again.URL(), "SELECT n FROM notes"); got != "42" {
		t.Errorf("got %q, want 42", got)
	}
}

func TestPostgresStartsOverAPidFileOfAnotherProcess(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	p := startPostgres(t, dir)
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	// After a reboot the number may belong to anyone. A process of the same user is the one Postgres falls for.
	other := p.account.command(t.Context(), "/bin/sleep", "60")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	path := filepath.Join(p.data, "postmaster.pid")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n")
	if err := os.WriteFile(path, fmt.Appendf(nil, "%d\n%s", other.Process.Pid, rest), 0o600); err != nil {
		t.Fatal(err)
	}
	query(t, startPostgres(t, dir).URL(), "SELECT 1")
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the innocent process is gone: %v", err)
	}
}

func TestPostgresStartsOverAHalfMadeCluster(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	bin := binaries(t)
	major, err := serverVersion(t.Context(), filepath.Join(bin, "postgres"), account{})
	if err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(dir, fmt.Sprintf("pg%d.new", major))
	if err := os.MkdirAll(half, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(half, "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	query(t, startPostgres(t, dir).URL(), "SELECT 1")
}

func TestPostgresMovesWhereItsUserCanReach(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("runs Postgres as itself, which reaches its own directories")
	}
	home := t.TempDir() // 0700, as root's home is
	dir := filepath.Join(home, "data")
	p := startPostgres(t, dir)
	query(t, p.URL(), "CREATE TABLE notes AS SELECT 42 AS n")
	if strings.HasPrefix(p.ClusterDir(), home) {
		t.Fatalf("cluster is in %s, where %s cannot go", p.ClusterDir(), p.account.name)
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := startPostgres(t, dir)
	if got := query(t, again.URL(), "SELECT n FROM notes"); got != "42" {
		t.Errorf("got %q after a restart, want 42", got)
	}
	if err := again.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := RemovePostgres(dir); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, again.ClusterDir()} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
}

func TestPostgresThatCannotStartSaysWhy(t *testing.T) {
	t.Parallel()
	_, err := StartPostgres(t.Context(), PostgresConfig{
		BinDir: binaries(t), DataDir: reachableDir(t), Settings: map[string]string{"shared_buffers": "1"},
	})
	if err == nil || !strings.Contains(err.Error(), "shared_buffers") {
		t.Errorf("got %v, want what the server said", err)
	}
}

func TestPostgresIsReadyWithinASecond(t *testing.T) {
	dir := reachableDir(t)
	if err := startPostgres(t, dir).Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	var best time.Duration
	for range 5 { // a machine under load is no reason to fail
		began := time.Now()
		p := startPostgres(t, dir)
		if best = time.Since(began); best < time.Second {
			return
		}
		if err := p.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Errorf("took %v from an existing cluster to its first answer, want under 1 s", best)
}
