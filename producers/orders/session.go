package orders

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow/internal/pg"
)

// Names of the prepared statements that are not of a table.
const (
	stmtBegin  = "orders_begin"
	stmtHurry  = "orders_hurry"
	stmtKeys   = "orders_insert_keys"
	stmtCommit = "orders_commit"
)

const (
	// idleInTransaction bounds how long a writer that froze between its two
	// round trips can keep others waiting for the keys it holds.
	idleInTransaction = 5 * time.Second

	// copySuffix makes the name of a table's COPY of that of its INSERT.
	copySuffix = "_copy"
	// copyFrom is the number of orders from which a COPY of each table is
	// cheaper than its insert by unnest: a COPY costs more to begin.
	copyFrom = 16
)

// session is a connection of its own for one writer, with its statements
// prepared and its buffers kept. It is not safe for concurrent use.
type session struct {
	pool *pgxpool.Pool
	// lockWait is how long a batch waits for a key that another transaction
	// holds.
	lockWait time.Duration

	conn     *pgxpool.Conn // nil until opened and after close
	exchange exchange
	ids      []uuid.UUID // of the orders whose key was new
	keys     *rows
	arrays   [len(placedTables)]*rows
	copies   [len(placedTables)]*rows
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
		{stmtHurry, `SET LOCAL lock_timeout = '20ms'`},
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
		if _, err = conn.Conn().Prepare(ctx, t.name+copySuffix, t.copy); err != nil {
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
//
// hurry makes it wait only 20 ms for a key that another transaction holds, for
// the parts of a batch that has waited for that key already.
func (s *session) write(ctx context.Context, batch []*entry, hurry bool) ([]*entry, error) {
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	won, err := s.transact(ctx, batch, hurry)
	if err != nil {
		s.rollback(ctx, err)
		return nil, fmt.Errorf("write %d orders: %w", len(batch), err)
	}
	return won, nil
}

func (s *session) transact(ctx context.Context, batch []*entry, hurry bool) ([]*entry, error) {
	if err := s.exchange.begin(ctx, s.conn.Conn().PgConn()); err != nil {
		return nil, err
	}
	won, err := s.claim(batch, hurry)
	if err == nil {
		err = s.insert(won)
	}
	return won, errors.Join(err, s.exchange.end())
}

// rollback leaves the connection usable after the server refused something. It
// gives up one that is broken.
func (s *session) rollback(ctx context.Context, cause error) {
	conn := s.conn.Conn().PgConn()
	if pg.Code(cause) == "" || conn.IsClosed() || conn.Exec(ctx, `ROLLBACK`).Close() != nil {
		s.discard(ctx)
	}
}

// claim begins the transaction and inserts the keys. It returns the entries
// whose key was new.
func (s *session) claim(batch []*entry, hurry bool) ([]*entry, error) {
	s.keys.reset()
	for _, e := range batch {
		addKey(s.keys, e.prepared)
	}
	x, statements := &s.exchange, 2
	x.execute(stmtBegin, nil)
	if hurry {
		statements++
		x.execute(stmtHurry, nil)
	}
	x.execute(stmtKeys, s.keys.params())
	s.ids = s.ids[:0]
	_, err := x.send(goOn, statements, func(first []byte) {
		s.ids = append(s.ids, uuid.UUID(first))
	})
	return winners(batch, s.ids), err
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
func (s *session) insert(won []*entry) error {
	x, statements := &s.exchange, 1
	if len(won) > 0 {
		statements += len(placedTables)
		for i := range placedTables {
			s.add(&placedTables[i], s.arrays[i], s.copies[i], won)
		}
	}
	x.execute(stmtCommit, nil)
	tag, err := x.send(done, statements, func([]byte) {})
	if err == nil && tag != "COMMIT" { // the server made a rollback of it
		err = fmt.Errorf("the server answered %s to COMMIT", tag)
	}
	return err
}

// add adds the winners' rows of one table.
func (s *session) add(t *table, arrays, copies *rows, won []*entry) {
	rows := arrays
	if len(won) >= copyFrom {
		rows = copies
	}
	rows.reset()
	for _, e := range won {
		t.add(rows, e.prepared)
	}
	if rows.copying {
		s.exchange.copyIn(t.name+copySuffix, rows.stream())
	} else {
		s.exchange.execute(t.name, rows.params())
	}
}
