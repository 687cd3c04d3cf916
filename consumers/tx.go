package consumers

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"orderflow/internal/pg"
)

// openingQueries are begin, settings and fence.
const openingQueries = 3

// batchTx is the transaction of a batch, as the handlers see it. It opens with
// the first statement that somebody sends, in one round trip: begin, fence,
// statement. Until then it holds no connection, so what a handler computes
// beforehand costs the others nothing. The runtime ends it, nobody else.
type batchTx struct {
	p    *partition
	ctx  context.Context // of the batch, for the methods of pgx.Tx that take none
	move move
	tx   pgx.Tx // nil until it is open
	err  error  // why it could not open; stays
}

var errNotYours = errors.New("the runtime ends this transaction; a handler returns an error to roll it back")

// Commit is refused.
func (t *batchTx) Commit(context.Context) error { return errNotYours }

// Rollback is refused.
func (t *batchTx) Rollback(context.Context) error { return errNotYours }

// opening is the batch that every transaction begins with.
func (t *batchTx) opening() *pgx.Batch {
	g, p, m := t.p.group, t.p, t.move
	b := &pgx.Batch{}
	b.BeginTx(pgx.TxOptions{})
	b.Queue(settingsSQL, milliseconds(g.limits.IdleInTransaction), milliseconds(g.limits.LockTimeout))
	b.Queue(g.faults.fenceSQL(), g.name, p.topic, p.id, p.fence, p.next, m.next, m.epoch,
		m.count, m.hash, m.recordTS, m.sources, m.incarnations, m.ns)
	return b
}

// send opens the transaction with b, which opening made. What b holds beyond
// is left in the results, for the caller to read and close. A refused fence is
// a fencedError.
func (t *batchTx) send(ctx context.Context, b *pgx.Batch) (pgx.BatchResults, error) {
	br := t.p.group.db.SendBatch(ctx, b)
	for range openingQueries {
		if _, err := br.Exec(); err != nil {
			_ = br.Close() // says the same
			rollback(ctx, br.Tx())
			t.err = fmt.Errorf("begin: %w", err)
			if pg.Code(err) == sqlstateFenced {
				t.err = &fencedError{err}
			}
			return nil, t.err
		}
	}
	t.tx = br.Tx()
	return br, nil
}

// open makes sure that the transaction is open.
func (t *batchTx) open(ctx context.Context) error {
	if t.tx != nil || t.err != nil {
		return t.err
	}
	br, err := t.send(ctx, t.opening())
	if err != nil {
		return err
	}
	return br.Close()
}

// openHeld opens it and returns which keys of items are held.
func (t *batchTx) openHeld(ctx context.Context, items []item) (map[string]bool, error) {
	b := t.opening()
	b.Queue(heldKeysSQL, t.p.group.name, t.p.topic, t.p.id, handledKeys(items))
	br, err := t.send(ctx, b)
	if err != nil {
		return nil, err
	}
	held := map[string]bool{}
	rows, err := br.Query()
	if err == nil {
		var keys [][]byte
		keys, err = pgx.CollectRows(rows, pgx.RowTo[[]byte])
		for _, k := range keys {
			held[string(k)] = true
		}
	}
	if cerr := br.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("look up held keys: %w", err)
	}
	return held, nil
}

// Exec sends one statement, behind the opening if it is the first.
func (t *batchTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if t.tx == nil && t.err == nil && queueable(args) {
		b := t.opening()
		b.Queue(sql, args...)
		br, err := t.send(ctx, b)
		if err != nil {
			return pgconn.CommandTag{}, err
		}
		tag, err := br.Exec()
		if cerr := br.Close(); err == nil {
			err = cerr
		}
		return tag, err
	}
	if err := t.open(ctx); err != nil {
		return pgconn.CommandTag{}, err
	}
	return t.tx.Exec(ctx, sql, args...)
}

// queueable reports whether pgx treats a statement with args the same in a
// batch: without args it may be several statements, and options are not taken.
func queueable(args []any) bool {
	if len(args) == 0 {
		return false
	}
	switch args[0].(type) {
	case pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID:
		return false
	}
	return true
}

// SendBatch sends b, behind the opening if it is the first.
func (t *batchTx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if t.err != nil {
		return pgx.FailedBatchResults(b, t.err)
	}
	if t.tx != nil {
		return t.tx.SendBatch(ctx, b)
	}
	first := t.opening()
	first.QueuedQueries = append(first.QueuedQueries, b.QueuedQueries...)
	br, err := t.send(ctx, first)
	if err != nil {
		return pgx.FailedBatchResults(b, err)
	}
	return br
}

// Begin sets a savepoint.
func (t *batchTx) Begin(ctx context.Context) (pgx.Tx, error) {
	if err := t.open(ctx); err != nil {
		return nil, err
	}
	return t.tx.Begin(ctx)
}

// CopyFrom is pgx's own.
func (t *batchTx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error) {
	if err := t.open(ctx); err != nil {
		return 0, err
	}
	return t.tx.CopyFrom(ctx, table, columns, rows)
}

// Prepare is pgx's own.
func (t *batchTx) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	if err := t.open(ctx); err != nil {
		return nil, err
	}
	return t.tx.Prepare(ctx, name, sql)
}

// Query is pgx's own.
func (t *batchTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := t.open(ctx); err != nil {
		return failed(err).Query() // rows, since many ask them for the error
	}
	return t.tx.Query(ctx, sql, args...)
}

// QueryRow is pgx's own.
func (t *batchTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if err := t.open(ctx); err != nil {
		return failed(err).QueryRow()
	}
	return t.tx.QueryRow(ctx, sql, args...)
}

func failed(err error) pgx.BatchResults { return pgx.FailedBatchResults(&pgx.Batch{}, err) }

// LargeObjects is pgx's own. It is empty where the transaction cannot open.
func (t *batchTx) LargeObjects() pgx.LargeObjects {
	if err := t.open(t.ctx); err != nil {
		return pgx.LargeObjects{}
	}
	return t.tx.LargeObjects()
}

// Conn is pgx's own, nil where the transaction cannot open.
func (t *batchTx) Conn() *pgx.Conn {
	if err := t.open(t.ctx); err != nil {
		return nil
	}
	return t.tx.Conn()
}

// commit ends the transaction. When the answer is lost it reads the row back:
// either the position moved and so did everything else, or nothing did.
func (t *batchTx) commit(ctx context.Context) error {
	t.p.group.faults.beforeCommit(t.p)
	err := t.tx.Commit(ctx)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return fmt.Errorf("commit: a handler went on after a failed statement: %w", err)
	case !pg.Ambiguous(err):
		return fmt.Errorf("commit: %w", err)
	}
	t.p.log.WarnContext(ctx, "lost the answer to a commit, reading the position back", "error", err)
	return t.p.readBack(t.move, err)
}

// end gives the connection back, whatever happened.
func (t *batchTx) end(ctx context.Context) {
	if t.tx != nil {
		rollback(ctx, t.tx)
	}
}

// nestedTx is a savepoint as a handler sees it.
type nestedTx struct{ pgx.Tx }

// Commit is refused.
func (nestedTx) Commit(context.Context) error { return errNotYours }

// Rollback is refused.
func (nestedTx) Rollback(context.Context) error { return errNotYours }
