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
	ours, err := embedded.WasHeld(c.DataDir)
	if err != nil {
		return fmt.Errorf("look into %s: %w", c.DataDir, err)
	}
	if !ours {
		if _, err := os.Stat(c.DataDir); err == nil {
			return fmt.Errorf("clear %s: it is no directory of `orderflow up`", c.DataDir)
		}
		log.Info("no data directory to clear", "data_dir", c.DataDir)
	} else {
		// Held while it is cleared: a running up keeps it, and nothing else
		// is dropped then either.
		release, err := embedded.HoldDirectory(c.DataDir)
		if err != nil {
			return fmt.Errorf("clear %s: %w", c.DataDir, err)
		}
		defer func() { _ = release() }() // the file it was on is gone by then
	}
	if c.Database {
		if err := c.dropSchemas(ctx, log); err != nil {
			return err
		}
	}
	if !ours {
		return nil
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
