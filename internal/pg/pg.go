// Package pg opens Postgres pools, applies the migrations of a table's owner
// and answers questions about errors by behaviour, so that callers never
// compare SQLSTATEs themselves.
package pg

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// connectTimeout bounds one attempt to reach the server.
const connectTimeout = 10 * time.Second

// DB is what a pool, a connection and a transaction have in common.
type DB interface {
	Begin(ctx context.Context) (pgx.Tx, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// Config says how to reach a database. The zero value of every field but URL
// is usable.
type Config struct {
	// URL is a connection string, postgres://user@host:port/database. It may
	// hold a password and is therefore never printed.
	URL string
	// Schema becomes the search_path. Empty keeps the server's default.
	Schema string
	// MaxConns bounds the pool, in connections. Zero means 4.
	MaxConns int32
	// Name is the application_name that pg_stat_activity shows.
	Name string
	// Settings are further run-time parameters of every connection, such as
	// idle_in_transaction_session_timeout.
	Settings map[string]string
}

// Parse turns the Config into pgx's own, without connecting.
func (c Config) Parse() (*pgxpool.Config, error) {
	pc, err := pgxpool.ParseConfig(c.URL)
	if err != nil {
		// pgx's error repeats the connection string, passwords blanked but
		// not reliably for every malformed input.
		return nil, fmt.Errorf("parse database URL: want postgres://user@host:port/database")
	}
	pc.MaxConns = c.MaxConns
	if pc.MaxConns == 0 {
		pc.MaxConns = 4
	}
	if pc.ConnConfig.ConnectTimeout == 0 {
		pc.ConnConfig.ConnectTimeout = connectTimeout
	}
	params := pc.ConnConfig.RuntimeParams
	if c.Schema != "" {
		params["search_path"] = pgx.Identifier{c.Schema}.Sanitize()
	}
	if c.Name != "" {
		params["application_name"] = c.Name
	}
	for k, v := range c.Settings {
		params[k] = v
	}
	return pc, nil
}

// Open makes a pool and proves that it reaches the server.
func Open(ctx context.Context, c Config) (*pgxpool.Pool, error) {
	pc, err := c.Parse()
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open pool %s: %w", address(pc), err)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("reach database %s: %w", address(pc), err)
	}
	return pool, nil
}

func address(pc *pgxpool.Config) string {
	c := pc.ConnConfig
	return fmt.Sprintf("%s:%d/%s", c.Host, c.Port, c.Database)
}
