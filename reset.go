package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/jackc/pgx/v5"

	"orderflow/consumers/notification"
	"orderflow/internal/embedded"
	"orderflow/outbox-relay/outbox"
	"orderflow/producers/orders"
)

// resetCommand clears a development directory, and on request the tables of
// a database that is not in it.
type resetCommand struct {
	DataDir     string `help:"The directory that up was run with." default:".orderflow" type:"path"`
	Database    bool   `help:"Also drop every orderflow schema of the database at DATABASE_URL, orders included."`
	DatabaseURL string `help:"The database for --database." env:"DATABASE_URL"`
}

func (c *resetCommand) Run(ctx context.Context, log *slog.Logger) error {
	if c.Database {
		if err := c.dropSchemas(ctx, log); err != nil {
			return err
		}
	}
	if _, err := os.Stat(c.DataDir); errors.Is(err, os.ErrNotExist) {
		log.Info("no data directory to clear", "data_dir", c.DataDir)
		return nil
	}
	if err := checkOurs(c.DataDir); err != nil {
		return err
	}
	if err := embedded.RemovePostgres(filepath.Join(c.DataDir, "postgres")); err != nil {
		return err
	}
	if err := os.RemoveAll(c.DataDir); err != nil {
		return fmt.Errorf("clear %s: %w", c.DataDir, err)
	}
	log.Info("cleared", "data_dir", c.DataDir)
	return nil
}

func (c *resetCommand) dropSchemas(ctx context.Context, log *slog.Logger) error {
	if c.DatabaseURL == "" {
		return errors.New("reset --database: set DATABASE_URL to the database to clear")
	}
	p, err := newPlatform(c.DatabaseURL, nil, "", log)
	if err != nil {
		return err
	}
	pool, err := p.pool(ctx, "", 1)
	if err != nil {
		return err
	}
	defer pool.Close()
	names := []string{outbox.Schema, orders.Schema}
	for _, g := range services(notification.Config{}) {
		names = append(names, g.Group)
	}
	for _, name := range names {
		if _, err := pool.Exec(ctx, "DROP SCHEMA IF EXISTS "+pgx.Identifier{name}.Sanitize()+" CASCADE"); err != nil {
			return fmt.Errorf("drop schema %s: %w", name, err)
		}
	}
	log.Info("dropped", "schemas", names)
	return nil
}

// checkOurs refuses to clear a directory that up did not make.
func checkOurs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look into %s: %w", dir, err)
	}
	for _, e := range entries {
		switch e.Name() {
		case "postgres", "kafka", "registry", "mails":
		default:
			return fmt.Errorf("clear %s: it holds %q, which is none of ours; name the directory of `orderflow up`", dir, e.Name())
		}
	}
	return nil
}
