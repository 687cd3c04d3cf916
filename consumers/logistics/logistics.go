// Package logistics is the service that finds a carrier for each package. What
// one seller sends for one order is one package; its weight, its size and
// where it goes decide who carries it, by the table in carriers.go. The
// service tells of CarrierAssigned or, when nobody takes the package, of
// CarrierUnavailable, and of ShipmentCancelled when the order is cancelled.
package logistics

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"

	"orderflow/consumers"
	"orderflow/internal/pg"
	"orderflow/outbox-relay/outbox"
	"orderflow/schemas"
)

// Group is the service's consumer group and its Postgres schema.
const Group = "logistics"

//go:embed migrations/*.sql
var files embed.FS

// New returns the service.
func New() consumers.Consumer {
	migrations, _ := fs.Sub(files, "migrations") // fails for a malformed name only
	return consumers.Consumer{
		Group:      Group,
		Migrations: migrations,
		Handlers: []consumers.Handler{
			consumers.OnBatch(assign),
			consumers.OnBatch(cancel),
		},
	}
}

// tell appends the service's own events. One that cannot be encoded follows
// from the content of its cause, so trying again cannot help.
func tell(ctx context.Context, tx pgx.Tx, events []schemas.Event) error {
	rows := make([]outbox.Row, len(events))
	for i, e := range events {
		row, err := outbox.Prepare(ctx, e)
		if err != nil {
			return consumers.Permanent(err)
		}
		rows[i] = row
	}
	return outbox.AppendRows(ctx, tx, rows)
}

// storing wraps an error of the database. One that the data itself causes,
// such as text with a zero byte, is final.
func storing(what string, err error) error {
	if err == nil {
		return nil
	}
	wrapped := fmt.Errorf("%s: %w", what, err)
	if pg.DataError(err) {
		return consumers.Permanent(wrapped)
	}
	return wrapped
}
