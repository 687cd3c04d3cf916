package consumers

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow/internal/pg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate makes or upgrades the group's schema: the runtime's tables first,
// then the service's own. It may be repeated, and concurrent callers wait for
// one another.
func (c Consumer) Migrate(ctx context.Context, pool *pgxpool.Pool) error {
	runtime, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("read migrations of the runtime: %w", err)
	}
	if err := pg.Migrate(ctx, pool, c.Group, "consumers", runtime); err != nil {
		return err
	}
	if c.Migrations != nil {
		if err := pg.Migrate(ctx, pool, c.Group, c.Group, c.Migrations); err != nil {
			return err
		}
	}
	if c.AfterMigrate != nil {
		if err := c.AfterMigrate(ctx, pool, c.Group); err != nil {
			return fmt.Errorf("migrate %s: %w", c.Group, err)
		}
	}
	return nil
}
