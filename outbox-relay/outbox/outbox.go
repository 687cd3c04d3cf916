// Package outbox is the table between a service's transaction and Kafka.
// Whoever changes an aggregate appends the event that tells of it in the same
// transaction; the relay streams committed events on. The package knows
// nothing of orders: any [schemas.Event] will do.
//
// A writer must lock or insert the aggregate's row before it appends. Only
// then do the sequence numbers of one aggregate's events follow the order of
// their commits, which is what the relay relies on.
package outbox

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow/internal/pg"
	"orderflow/schemas"
)

// Schema is the Postgres schema that holds the outbox.
const Schema = "outbox"

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate makes or updates the outbox in the pool's database.
func Migrate(ctx context.Context, pool *pgxpool.Pool) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("open outbox migrations: %w", err)
	}
	return pg.Migrate(ctx, pool, Schema, "outbox", files)
}

// InsertSQL appends rows. Its parameters are arrays, one element a row, in the
// order of [Row]'s fields. Rows get their sequence numbers in array order.
const InsertSQL = `
INSERT INTO outbox.events (event_id, aggregate_type, aggregate_id, aggregate_version,
                           event_type, topic, schema_fp, payload, headers)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[],
                     $5::text[], $6::text[], $7::bigint[], $8::bytea[], $9::bytea[])`

// CopyColumns are the columns to name in a COPY into outbox.events, in the
// order of [Row]'s fields.
func CopyColumns() []string {
	return []string{
		"event_id", "aggregate_type", "aggregate_id", "aggregate_version",
		"event_type", "topic", "schema_fp", "payload", "headers",
	}
}

// Append writes events within tx, in the order given. It fails, and with it
// the transaction, if an event could never be published: an incomplete
// envelope, a value that its schema refuses, more than [MaxEventBytes].
func Append(ctx context.Context, tx pg.DB, events ...schemas.Event) error {
	rows := make([]Row, len(events))
	for i, e := range events {
		row, err := Prepare(ctx, e)
		if err != nil {
			return err
		}
		rows[i] = row
	}
	return AppendRows(ctx, tx, rows)
}

// AppendRows writes prepared rows within tx in one statement.
func AppendRows(ctx context.Context, tx pg.DB, rows []Row) error {
	if len(rows) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, InsertSQL, Columns(rows)...); err != nil {
		return fmt.Errorf("append %d events to the outbox: %w", len(rows), err)
	}
	return nil
}

// Columns turns rows into the parameters of [InsertSQL].
func Columns(rows []Row) []any {
	var (
		ids        = make([]uuid.UUID, len(rows))
		aggTypes   = make([]string, len(rows))
		aggIDs     = make([]string, len(rows))
		versions   = make([]int64, len(rows))
		eventTypes = make([]string, len(rows))
		topics     = make([]string, len(rows))
		schemaFPs  = make([]int64, len(rows))
		payloads   = make([][]byte, len(rows))
		headers    = make([][]byte, len(rows))
	)
	for i := range rows {
		r := &rows[i]
		ids[i], aggTypes[i], aggIDs[i], versions[i] = r.EventID, r.AggregateType, r.AggregateID, r.AggregateVersion
		eventTypes[i], topics[i], schemaFPs[i] = r.EventType, r.Topic, r.SchemaFP
		payloads[i], headers[i] = r.Payload, r.Headers
	}
	return []any{ids, aggTypes, aggIDs, versions, eventTypes, topics, schemaFPs, payloads, headers}
}
