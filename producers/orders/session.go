package orders

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Names of the prepared statements that are not of a table.
const (
	stmtBegin    = "orders_begin"
	stmtLockWait = "orders_lock_wait"
	stmtKeys     = "orders_insert_keys"
	stmtCommit   = "orders_commit"
)

const (
	// idleInTransaction bounds how long a writer that froze between its two
	// round trips can keep others waiting for the keys it holds.
	idleInTransaction = 5 * time.Second

	// copyFrom is the number of orders from which a COPY of each table is
	// cheaper than its insert by unnest, although it takes more round trips.
	copyFrom = 128
)

// session is a connection of its own for one writer, with its statements
// prepared and its buffers kept. It is not safe for concurrent use.
type session struct {
	pool *pgxpool.Pool
	// lockWait is how long a batch waits for a key that another transaction
	// holds.
	lockWait time.Duration

	conn   *pgxpool.Conn // nil until opened and after close
	keys   *rows
	arrays [len(placedTables)]*rows
	copies [len(placedTables)]*rows
}

func newSession(pool *pgxpool.Pool, lockWait time.Duration) *session {
	return &session{pool: pool, lockWait: lockWait}
}

// open takes a connection and prepares it. It does nothing if there is one.
func (s *session) open(ctx context.Context) error {
	if s.conn != nil {
		return nil
	}
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("take a connection to write orders: %w", err)
	}
	if err := s.prepare(ctx, conn); err != nil {
		conn.Release()
		return fmt.Errorf("prepare a connection to write orders: %w", err)
	}
	s.conn = conn
	return nil
}

func (s *session) prepare(ctx context.Context, conn *pgxpool.Conn) error {
	if _, err := conn.Exec(ctx, `SELECT set_config('lock_timeout', $1, false),
		set_config('idle_in_transaction_session_timeout', $2, false)`,
		millis(s.lockWait), millis(idleInTransaction)); err != nil {
		return err
	}
	for _, plain := range [...][2]string{
		// A claim must see what others committed while it waited for them.
		{stmtBegin, `BEGIN ISOLATION LEVEL READ COMMITTED`},
		{stmtCommit, `COMMIT`},
		{stmtLockWait, `SELECT set_config('lock_timeout', $1, true)`},
	} {
		if _, err := conn.Conn().Prepare(ctx, plain[0], plain[1]); err != nil {
			return err
		}
	}
	var err error
	if s.keys, err = prepareArrays(ctx, conn, stmtKeys, insertKeys); err != nil {
		return err
	}
	for i := range placedTables {
		t := &placedTables[i]
		if s.arrays[i], err = prepareArrays(ctx, conn, t.name, t.insert); err != nil {
			return err
		}
		s.copies[i] = copyRows(t.columns)
	}
	return nil
}

func prepareArrays(ctx context.Context, conn *pgxpool.Conn, name, sql string) (*rows, error) {
	d, err := conn.Conn().Prepare(ctx, name, sql)
	if err != nil {
		return nil, err
	}
	return arrayRows(d)
}

func millis(d time.Duration) string { return fmt.Sprintf("%dms", d.Milliseconds()) }

// close gives the connection back. One that is inside a transaction or broken
// is closed by the pool.
func (s *session) close() {
	if s.conn != nil {
		s.conn.Release()
		s.conn = nil
	}
}

// discard closes the connection for good, so that the next one may lead to
// another server.
func (s *session) discard(ctx context.Context) {
	if s.conn != nil {
		_ = s.conn.Conn().Close(ctx)
		s.close()
	}
}

// write puts the orders of a batch and their events into the database in one
// transaction, except those whose key is stored already. It returns which were
// written. The batch must be sorted by key. After an error nothing was written,
// unless pg.Ambiguous says that this is unknown.
func (s *session) write(ctx context.Context, batch []*entry, lockWait time.Duration) (won []*entry, err error) {
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	conn := s.conn.Conn().PgConn()
	pipe := conn.StartPipeline(ctx)
	won, err = s.claim(pipe, batch, lockWait)
	if err == nil && len(won) < copyFrom {
		err = s.insert(pipe, won)
	} else if err == nil {
		err = suspend(pipe)
	}
	err = errors.Join(err, pipe.Close())
	if err == nil && len(won) >= copyFrom {
		err = s.copy(ctx, conn, won)
	}
	if err != nil {
		s.rollback(ctx, conn)
		return nil, err
	}
	return won, nil
}

// rollback leaves the connection usable after an error of the server. One
// that is broken goes back to the pool, which closes it.
func (s *session) rollback(ctx context.Context, conn *pgconn.PgConn) {
	if conn.IsClosed() || conn.Exec(ctx, `ROLLBACK`).Close() != nil {
		s.close()
	}
}

// claim begins the transaction and inserts the keys. It returns the entries
// whose key was new.
func (s *session) claim(pipe *pgconn.Pipeline, batch []*entry, lockWait time.Duration) ([]*entry, error) {
	s.keys.reset()
	for _, e := range batch {
		addKey(s.keys, e.prepared)
	}
	pipe.SendQueryPrepared(stmtBegin, nil, nil, nil)
	if lockWait != s.lockWait {
		pipe.SendQueryPrepared(stmtLockWait, [][]byte{[]byte(millis(lockWait))}, nil, nil)
	}
	pipe.SendQueryPrepared(stmtKeys, s.keys.params(), formats, formats)
	pipe.SendFlushRequest()
	if err := pipe.Flush(); err != nil {
		return nil, fmt.Errorf("send keys: %w", err)
	}
	if _, err := finish(pipe); err != nil {
		return nil, err
	}
	if lockWait != s.lockWait {
		if _, err := finish(pipe); err != nil {
			return nil, err
		}
	}
	ids, err := claimed(pipe, len(batch))
	if err != nil {
		return nil, err
	}
	return winners(batch, ids), nil
}

// formats says binary for every parameter and result of a statement.
var formats = []int16{1}

func claimed(pipe *pgconn.Pipeline, most int) ([]uuid.UUID, error) {
	r, err := reader(pipe)
	if err != nil {
		return nil, err
	}
	ids := make([]uuid.UUID, 0, most)
	for r.NextRow() {
		ids = append(ids, uuid.UUID(r.Values()[0]))
	}
	if _, err := r.Close(); err != nil {
		return nil, fmt.Errorf("claim keys: %w", err)
	}
	return ids, nil
}

// winners returns the entries with one of the ids, in the batch's order.
func winners(batch []*entry, ids []uuid.UUID) []*entry {
	if len(ids) == len(batch) {
		return batch
	}
	won := make(map[uuid.UUID]bool, len(ids))
	for _, id := range ids {
		won[id] = true
	}
	list := make([]*entry, 0, len(ids))
	for _, e := range batch {
		if won[e.id] {
			list = append(list, e)
		}
	}
	return list
}

// insert adds the winners' rows and commits, in one round trip.
func (s *session) insert(pipe *pgconn.Pipeline, won []*entry) error {
	statements := 1
	if len(won) > 0 {
		statements += len(placedTables)
		for i := range placedTables {
			t, rows := &placedTables[i], s.arrays[i]
			rows.reset()
			for _, e := range won {
				t.add(rows, e.prepared)
			}
			pipe.SendQueryPrepared(t.name, rows.params(), formats, nil)
		}
	}
	pipe.SendQueryPrepared(stmtCommit, nil, nil, nil)
	if err := pipe.Sync(); err != nil {
		return fmt.Errorf("send orders: %w", err)
	}
	var tag pgconn.CommandTag
	for range statements {
		var err error
		if tag, err = finish(pipe); err != nil {
			return err
		}
	}
	return committed(tag)
}

// copy adds the winners' rows by COPY and commits.
func (s *session) copy(ctx context.Context, conn *pgconn.PgConn, won []*entry) error {
	for i := range placedTables {
		t, rows := &placedTables[i], s.copies[i]
		rows.reset()
		for _, e := range won {
			t.add(rows, e.prepared)
		}
		if _, err := conn.CopyFrom(ctx, bytes.NewReader(rows.stream()), t.copy); err != nil {
			return fmt.Errorf("copy orders: %w", err)
		}
	}
	results, err := conn.Exec(ctx, `COMMIT`).ReadAll()
	if err != nil {
		return fmt.Errorf("commit orders: %w", err)
	}
	return committed(results[0].CommandTag)
}

// committed tells a COMMIT from one that the server turned into a rollback.
func committed(tag pgconn.CommandTag) error {
	if tag.String() != "COMMIT" {
		return fmt.Errorf("commit orders: the server answered %s", tag)
	}
	return nil
}

// finish reads the results of one statement of a pipeline.
func finish(pipe *pgconn.Pipeline) (pgconn.CommandTag, error) {
	r, err := reader(pipe)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := r.Close()
	if err != nil {
		return tag, fmt.Errorf("write orders: %w", err)
	}
	return tag, nil
}

func reader(pipe *pgconn.Pipeline) (*pgconn.ResultReader, error) {
	results, err := pipe.GetResults()
	if err != nil {
		return nil, fmt.Errorf("write orders: %w", err)
	}
	r, ok := results.(*pgconn.ResultReader)
	if !ok {
		return nil, fmt.Errorf("write orders: unexpected answer %T", results)
	}
	return r, nil
}

// suspend ends a pipeline whose transaction goes on.
func suspend(pipe *pgconn.Pipeline) error {
	if err := pipe.Sync(); err != nil {
		return fmt.Errorf("send keys: %w", err)
	}
	return nil
}
