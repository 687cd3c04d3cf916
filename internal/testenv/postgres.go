package testenv

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"orderflow/internal/embedded"
)

// patience bounds every step of the environment's own; a machine under load is slow, not broken.
const patience = 2 * time.Minute

// databasePrefix begins the names of test databases, followed by the minute of their making, so that what a killed
// test process left on a shared server can be told by its age.
const databasePrefix = "orderflow_test_"

// PostgresOption changes what Postgres gives.
type PostgresOption func(*postgresRequest)

type postgresRequest struct {
	durable  bool
	template string
	prepare  func(ctx context.Context, url string) error
}

// Durable asks for a server that syncs to disk as in production. Without it the server of the test process gives up
// durability for speed, which no test can see unless it kills the server.
func Durable() PostgresOption { return func(r *postgresRequest) { r.durable = true } }

// Template makes the database a copy of one that prepare filled, once per test process and name. Migrations are the
// usual filling. When prepare returns it must have closed its connections.
func Template(name string, prepare func(ctx context.Context, url string) error) PostgresOption {
	return func(r *postgresRequest) { r.template, r.prepare = name, prepare }
}

// Postgres returns the URL of a fresh database, dropped when the test ends. Its user is a superuser where the server
// is embedded.
func Postgres(t testing.TB, opts ...PostgresOption) string {
	t.Helper()
	var request postgresRequest
	for _, o := range opts {
		o(&request)
	}
	server, err := serverFor(request.durable)
	if err != nil {
		t.Fatalf("start postgres for tests: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	template, err := server.template(ctx, request)
	if err != nil {
		t.Fatalf("make template database: %v", err)
	}
	name, err := server.create(ctx, template)
	if err != nil {
		t.Fatalf("create test database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := server.drop(ctx, name); err != nil {
			t.Errorf("drop test database: %v", err)
		}
	})
	return server.databaseURL(name)
}

// PostgresBinaries returns the folder with initdb and postgres, for tests that run a server of their own.
func PostgresBinaries(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	dir, err := embedded.FindPostgres(ctx, embedded.FindOptions{Out: os.Stderr})
	if err != nil {
		t.Fatalf("find postgres for tests: %v", err)
	}
	return dir
}

// postgresServer is a server that the tests of this process share.
type postgresServer struct {
	url url.URL // of the maintenance database

	mu        sync.Mutex
	templates map[string]*sync.Once // protected by mu
	failed    map[string]error      // protected by mu
}

// The servers of this process: tests are functions of one process, so what they share has to be a variable.
var (
	ordinary = sync.OnceValues(func() (*postgresServer, error) { return startServer(false) })
	durable  = sync.OnceValues(func() (*postgresServer, error) { return startServer(true) })
	serial   atomic.Int64
)

func serverFor(wantDurable bool) (*postgresServer, error) {
	if wantDurable {
		return durable()
	}
	return ordinary()
}

func startServer(wantDurable bool) (*postgresServer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience) // the first run of a machine may fetch Postgres
	defer cancel()
	address := os.Getenv("TEST_DATABASE_URL")
	if address == "" {
		started, err := startCluster(ctx, wantDurable)
		if err != nil {
			return nil, err
		}
		address = started
	}
	parsed, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("parse TEST_DATABASE_URL: it is no URL") // the error itself would show the password
	}
	s := &postgresServer{url: *parsed, templates: map[string]*sync.Once{}, failed: map[string]error{}}
	return s, s.sweep(ctx)
}

// startCluster starts a throw-away cluster that ends with this process.
func startCluster(ctx context.Context, wantDurable bool) (string, error) {
	bin, err := embedded.FindPostgres(ctx, embedded.FindOptions{Out: os.Stderr})
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "orderflow-test-postgres-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o711); err != nil { // the user that runs Postgres for root must get in
		return "", err
	}
	p, err := embedded.StartPostgres(ctx, embedded.PostgresConfig{BinDir: bin, DataDir: dir, Fast: !wantDurable})
	if err != nil {
		os.RemoveAll(dir)
		return "", err
	}
	return p.DatabaseURL("postgres"), buryWithUs(p.Pid(), "INT", filepath.Join(p.ClusterDir(), "postmaster.pid"), dir)
}

func (s *postgresServer) databaseURL(name string) string {
	u := s.url
	u.Path = "/" + name
	return u.String()
}

func newName() string {
	return fmt.Sprintf("%s%d_%d_%d", databasePrefix, time.Now().Unix()/60, os.Getpid(), serial.Add(1))
}

// create makes a database, from a template if one is named.
func (s *postgresServer) create(ctx context.Context, template string) (string, error) {
	name := newName()
	sql := "CREATE DATABASE " + name
	if template != "" {
		sql += " TEMPLATE " + template
	}
	return name, s.exec(ctx, sql)
}

func (s *postgresServer) drop(ctx context.Context, name string) error {
	return s.exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
}

func (s *postgresServer) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, s.url.String())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

// template returns the name of the database to copy, "" for none.
func (s *postgresServer) template(ctx context.Context, r postgresRequest) (string, error) {
	if r.template == "" {
		return "", nil
	}
	name := fmt.Sprintf("%s%d_%d_template_%s", databasePrefix, processStart/60, os.Getpid(), r.template)
	s.mu.Lock()
	once := s.templates[name]
	if once == nil {
		once = new(sync.Once)
		s.templates[name] = once
	}
	s.mu.Unlock()
	once.Do(func() {
		err := s.exec(ctx, "CREATE DATABASE "+name)
		if err == nil {
			err = r.prepare(ctx, s.databaseURL(name))
		}
		s.mu.Lock()
		s.failed[name] = err
		s.mu.Unlock()
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	return name, s.failed[name]
}

var processStart = time.Now().Unix()

// sweep drops the test databases that earlier test processes left behind.
func (s *postgresServer) sweep(ctx context.Context) error {
	const oldest = 180 // minutes, longer than any test run
	conn, err := pgx.Connect(ctx, s.url.String())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT datname FROM pg_database WHERE starts_with(datname, $1)", databasePrefix)
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range names {
		minute, _, _ := strings.Cut(strings.TrimPrefix(name, databasePrefix), "_")
		made, err := strconv.ParseInt(minute, 10, 64)
		if err != nil || time.Now().Unix()/60-made < oldest {
			continue
		}
		if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)"); err != nil {
			return err
		}
	}
	return nil
}
