package consumers

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"orderflow/schemas"
)

// Whatever a handler does first opens the transaction, and its effects are
// committed with the position.
func TestAnyFirstStatementOpensTheTransaction(t *testing.T) {
	t.Parallel()
	const insert = "INSERT INTO effects (part, off, key) VALUES (0, $1, $2)"
	for name, use := range map[string]func(ctx context.Context, tx pgx.Tx) error{
		"nothing": func(context.Context, pgx.Tx) error { return nil },
		"exec": func(ctx context.Context, tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, insert, 1, "x")
			if err == nil && tag.RowsAffected() != 1 {
				return Permanent(fmt.Errorf("tag %s, want that of the insert", tag))
			}
			return err
		},
		"several statements": func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "SET LOCAL work_mem = '1MB'; INSERT INTO effects (part, off, key) VALUES (0, 1, 'x')")
			return err
		},
		"options": func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, insert, pgx.QueryExecModeSimpleProtocol, 1, "x")
			return err
		},
		"query": func(ctx context.Context, tx pgx.Tx) error {
			rows, _ := tx.Query(ctx, insert+" RETURNING key", 1, "x")
			_, err := pgx.CollectRows(rows, pgx.RowTo[string])
			return err
		},
		"query row": func(ctx context.Context, tx pgx.Tx) error {
			var key string
			return tx.QueryRow(ctx, insert+" RETURNING key", 1, "x").Scan(&key)
		},
		"batch": func(ctx context.Context, tx pgx.Tx) error {
			b := &pgx.Batch{}
			b.Queue(insert, 1, "x")
			var key string
			b.Queue("SELECT key FROM effects").QueryRow(func(row pgx.Row) error { return row.Scan(&key) })
			if err := tx.SendBatch(ctx, b).Close(); err != nil {
				return err
			}
			if key != "x" {
				return Permanent(fmt.Errorf("the second query of the batch saw %q", key))
			}
			return nil
		},
		"copy": func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.CopyFrom(ctx, pgx.Identifier{"effects"}, []string{"part", "off", "key"}, pgx.CopyFromRows([][]any{{int32(0), int64(1), "x"}}))
			return err
		},
		"savepoint": func(ctx context.Context, tx pgx.Tx) error {
			return pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, insert, 1, "x")
				return err
			})
		},
		"prepare": func(ctx context.Context, tx pgx.Tx) error {
			if _, err := tx.Prepare(ctx, "first", insert); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "first", 1, "x")
			return err
		},
		"conn": func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Conn().Exec(ctx, insert, 1, "x")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 1)
			b.write(placedOrders(0, 3))
			b.run(withHandlers(OnBatch(func(ctx context.Context, tx pgx.Tx, _ []Event[*schemas.OrderPlaced]) error {
				return use(ctx, tx)
			})))
			b.waitApplied(3)
			want := 1
			if name == "nothing" {
				want = 0
			}
			if n := b.count("SELECT count(*) FROM effects"); n != want {
				t.Errorf("%d effects, want %d", n, want)
			}
			if n := len(b.holds()); n != 0 {
				t.Errorf("%d holds: %+v", n, b.holds())
			}
		})
	}
}

// A handler that makes light of the fence's refusal, or calls it permanent,
// must not get past it.
func TestARefusedFenceStaysRefusedWhateverTheHandlerMakesOfIt(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(error) error{
		"swallowed":   func(error) error { return nil },
		"permanent":   Permanent,
		"another one": func(error) error { return errors.New("something else") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 1)
			b.write(placedOrders(0, 5))
			m := b.run(withHandlers(OnBatch(func(ctx context.Context, tx pgx.Tx, events []Event[*schemas.OrderPlaced]) error {
				if err := record(ctx, tx, events); err != nil {
					return answer(err)
				}
				return nil
			})), withFaults(&faults{begin: once(func(*partition) { b.exec("UPDATE consumer_position SET fence = fence + 1") })}))
			m.waitMetric(1, "orderflow_consumer_fence_rejections_total")
			b.waitApplied(5)
			b.checkOnceInOrder(all)
			if n := len(b.holds()); n != 0 {
				t.Errorf("%d holds, want none", n)
			}
		})
	}
}

// once lets the first call through.
func once(do func(*partition)) func(*partition) {
	g := newGate()
	g.open()
	return func(p *partition) {
		g.first.Do(func() { do(p) })
	}
}
