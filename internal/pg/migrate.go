package pg

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"
)

// Migrate creates schema if it is missing and applies the owner's migrations
// (the *.sql at the root of files) to it, in order and once. Each owner has a
// version table of its own, schema.goose_<owner>, so that several owners may
// share a schema. Concurrent callers wait for one another.
//
// Migrations name their tables without a schema: they run with schema as the
// search_path.
func Migrate(ctx context.Context, pool *pgxpool.Pool, schema, owner string, files fs.FS) error {
	create := "CREATE SCHEMA IF NOT EXISTS " + pgx.Identifier{schema}.Sanitize()
	// IF NOT EXISTS is not atomic: two starters may both try.
	if _, err := pool.Exec(ctx, create); err != nil && Code(err) != "23505" {
		return fmt.Errorf("create schema %s: %w", schema, err)
	}
	cfg := pool.Config().ConnConfig.Copy()
	cfg.RuntimeParams["search_path"] = pgx.Identifier{schema}.Sanitize()
	db := stdlib.OpenDB(*cfg)
	defer func() { _ = db.Close() }()

	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 120))
	if err != nil {
		return fmt.Errorf("make migration lock: %w", err)
	}
	store, err := database.NewStore(database.DialectPostgres, schema+".goose_"+owner)
	if err != nil {
		return fmt.Errorf("open version table of %s: %w", owner, err)
	}
	provider, err := goose.NewProvider("", db, files,
		goose.WithStore(store), goose.WithSessionLocker(locker),
		goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read migrations of %s: %w", owner, err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate %s in schema %s: %w", owner, schema, err)
	}
	return nil
}
