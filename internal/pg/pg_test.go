package pg_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5/pgconn"

	"orderflow/internal/pg"
	"orderflow/internal/testenv"
)

func TestErrorsAreAskedByBehaviour(t *testing.T) {
	t.Parallel()
	state := func(code string) error { return fmt.Errorf("verb: %w", &pgconn.PgError{Code: code}) }
	for name, c := range map[string]struct {
		err                        error
		retryable, data, ambiguous bool
	}{
		"nothing":               {nil, false, false, false},
		"serialization failure": {state("40001"), true, false, false},
		"deadlock":              {state("40P01"), true, false, false},
		"lock not available":    {state("55P03"), true, false, false},
		"too many connections":  {state("53300"), true, false, false},
		"admin shutdown":        {state("57P01"), true, false, true},
		"unique violation":      {state("23505"), false, true, false},
		"bad text":              {state("22021"), false, true, false},
		"syntax error":          {state("42601"), false, false, false},
		"connection cut":        {fmt.Errorf("verb: %w", io.ErrUnexpectedEOF), true, false, true},
		"deadline":              {context.DeadlineExceeded, true, false, true},
		"told to stop":          {context.Canceled, false, false, true},
	} {
		if got := pg.Retryable(c.err); got != c.retryable {
			t.Errorf("%s: retryable %t, want %t", name, got, c.retryable)
		}
		if got := pg.DataError(c.err); got != c.data {
			t.Errorf("%s: data error %t, want %t", name, got, c.data)
		}
		if got := pg.Ambiguous(c.err); got != c.ambiguous {
			t.Errorf("%s: ambiguous %t, want %t", name, got, c.ambiguous)
		}
	}
}

func TestNoPasswordInErrors(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"postgres://user:secret@127.0.0.1:1/db", "postgres://user:secret@127.0.0.1:port/db", "user=u password=secret host=127.0.0.1 port=x",
	} {
		_, err := pg.Open(t.Context(), pg.Config{URL: url})
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error %v", url, err)
		}
	}
}

func TestMigrationsRunOnceHoweverManyStart(t *testing.T) {
	t.Parallel()
	url := testenv.Postgres(t)
	files := fstest.MapFS{
		"00001_a.sql": {Data: []byte("-- +goose Up\nCREATE TABLE a (n int);\nINSERT INTO a VALUES (1);\n")},
		"00002_b.sql": {Data: []byte("-- +goose Up\nINSERT INTO a VALUES (2);\n")},
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			pool, err := pg.Open(t.Context(), pg.Config{URL: url})
			if err != nil {
				t.Error(err)
				return
			}
			defer pool.Close()
			if err := pg.Migrate(t.Context(), pool, "house", "owner", files); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	pool, err := pg.Open(t.Context(), pg.Config{URL: url, Schema: "house"})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var n int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM a`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	if n != 2 {
		t.Errorf("%d rows, want 2", n)
	}
}

func TestSettingsReachTheServer(t *testing.T) {
	t.Parallel()
	pool, err := pg.Open(t.Context(), pg.Config{URL: testenv.Postgres(t), Name: "a-name", Settings: map[string]string{"lock_timeout": "1234ms"}})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var name, timeout string
	err = pool.QueryRow(t.Context(), `SELECT current_setting('application_name'), current_setting('lock_timeout')`).Scan(&name, &timeout)
	if err != nil || name != "a-name" || timeout != "1234ms" {
		t.Errorf("name %q, lock_timeout %q, error %v", name, timeout, err)
	}
}
