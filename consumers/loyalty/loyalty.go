// Package loyalty gives a customer one point for each whole pound, real or
// euro of an order, and takes the points back when the order is cancelled.
//
// It is the example of a service that joins later. Whoever adds one writes
//
//  1. a folder like this one: tables in migrations/, and handlers, which get
//     many events at once and write them with one statement;
//  2. one line in main.go, next to the other services;
//  3. one entry under consumers in helm/orderflow/values.yaml;
//  4. a test.
//
// Nothing else changes. On its first start the group reads the topic from the
// beginning, so it knows every order there ever was, and nobody else notices.
// A handler may run again after a rollback, so it touches the database through
// tx only; an event that arrives after its opposite (a cancelled order that is
// placed) must find a trace of it.
package loyalty

import (
	"context"
	"embed"
	"io/fs"
	"math"

	"github.com/jackc/pgx/v5"

	"orderflow/consumers"
	"orderflow/schemas"
)

//go:embed migrations/*.sql
var files embed.FS

// New returns the service.
func New() consumers.Consumer {
	migrations, _ := fs.Sub(files, "migrations") // fails for a malformed name only
	return consumers.Consumer{
		Group: "loyalty", Migrations: migrations,
		Handlers: []consumers.Handler{consumers.OnBatch(award), consumers.OnBatch(takeBack)},
	}
}

func award(ctx context.Context, tx pgx.Tx, placed []consumers.Event[*schemas.OrderPlaced]) error {
	var orders, customers []string
	var points []int64
	for _, e := range placed {
		total := e.Value.Totals.Grand
		orders, customers = append(orders, e.Value.Meta.OrderID), append(customers, e.Value.CustomerID)
		points = append(points, total.Minor/int64(math.Pow10(total.Scale)))
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO points (order_id, customer_id, points) SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])
		ON CONFLICT (order_id) DO NOTHING`, orders, customers, points)
	return err
}

func takeBack(ctx context.Context, tx pgx.Tx, cancelled []consumers.Event[*schemas.OrderCancelled]) error {
	var orders []string
	for _, e := range cancelled {
		orders = append(orders, e.Value.Meta.OrderID)
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO points (order_id, points) SELECT DISTINCT id, 0 FROM unnest($1::text[]) AS id
		ON CONFLICT (order_id) DO UPDATE SET points = 0`, orders)
	return err
}
