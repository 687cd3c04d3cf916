package notification

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow/internal/pg"
	"orderflow/outbox-relay/outbox"
	"orderflow/schemas"
)

const (
	settleTimeout = 3 * time.Second
	settleRetry   = 100 * time.Millisecond
	maxSettle     = 100 // mails of one transaction
)

// settler commits what became of mails. Mails that are ready while one
// transaction commits share the next.
type settler struct {
	db      *pgxpool.Pool
	log     *slog.Logger
	metrics *metrics
	jobs    func(ctx context.Context, tx pgx.Tx, jobs []mailJob) error
	in      chan *settlement // unbuffered: what is taken is answered
}

// settlement is one mail that waits to be settled.
type settlement struct {
	letter  *letter
	outcome outcome
	done    chan error // buffered, one answer
}

// settle returns when the outcome is committed, together with the event that
// tells of it.
func (s *settler) settle(ctx context.Context, l *letter, o outcome) error {
	one := &settlement{l, o, make(chan error, 1)}
	select {
	case s.in <- one:
		return <-one.done // within settleTimeout
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run settles until ctx ends, which must be after the last call of settle.
func (s *settler) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case one := <-s.in:
			batch := s.gather(one)
			err := s.insist(ctx, batch)
			for _, b := range batch {
				b.done <- err
			}
		}
	}
}

// gather adds those that wait already.
func (s *settler) gather(first *settlement) []*settlement {
	batch := []*settlement{first}
	for len(batch) < maxSettle {
		select {
		case next := <-s.in:
			batch = append(batch, next)
		default:
			return batch
		}
	}
	return batch
}

// insist tries again while the database is in the way: these mails are sent,
// and giving up means to send them again.
func (s *settler) insist(ctx context.Context, batch []*settlement) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	for wait := settleRetry; ; wait *= 2 {
		settled, err := s.transact(ctx, batch)
		if err == nil {
			s.count(batch, settled)
			return nil
		}
		if !pg.Retryable(err) || ctx.Err() != nil {
			return fmt.Errorf("settle %d mails: %w", len(batch), err)
		}
		s.log.WarnContext(ctx, "retry settling mails", "count", len(batch), "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func (s *settler) count(batch []*settlement, settled map[mailJob]bool) {
	for _, b := range batch {
		if settled[b.letter.mailJob] {
			s.metrics.intents.WithLabelValues(b.outcome.state).Inc()
		}
	}
}

// lockSQL comes first and alone: the statements after it see what was
// committed while it waited.
const lockSQL = `SELECT order_id FROM orders WHERE order_id = ANY ($1) ORDER BY order_id FOR UPDATE`

const settleSQL = `
UPDATE mails AS m SET state = o.state, settled_at = clock_timestamp(), content = NULL
FROM unnest($1::text[], $2::bigint[], $3::text[]) AS o (order_id, number, state)
WHERE m.order_id = o.order_id AND m.number = o.number AND m.state = 'queued'
RETURNING m.order_id, m.number`

// nextSQL queues the next mail of each order that has none under way.
const nextSQL = `
UPDATE mails AS m SET state = 'queued'
FROM (SELECT order_id, min(number) AS number FROM mails WHERE order_id = ANY ($1) AND state = 'waiting' GROUP BY order_id) AS n
WHERE m.order_id = n.order_id AND m.number = n.number
  AND NOT EXISTS (SELECT FROM mails AS q WHERE q.order_id = m.order_id AND q.state = 'queued')
RETURNING m.order_id, m.number`

// transact returns which mails it settled. One that is settled already, by a
// worker that was thought dead, gets no second event. The jobs are no part of
// it: a job that runs again finds its mail settled and ends, so the queue may
// complete jobs in its own time, many at once.
func (s *settler) transact(ctx context.Context, batch []*settlement) (settled map[mailJob]bool, err error) {
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		var next []mailJob
		if settled, next, err = move(ctx, tx, batch); err != nil {
			return err
		}
		var told []schemas.Event
		for _, b := range batch {
			if settled[b.letter.mailJob] {
				told = append(told, b.event())
			}
		}
		if err := outbox.Append(ctx, tx, told...); err != nil {
			return err
		}
		return s.jobs(ctx, tx, next)
	})
	return settled, err
}

// move settles the mails and queues those that waited for them, in one round
// trip.
func move(ctx context.Context, tx pgx.Tx, batch []*settlement) (settled map[mailJob]bool, next []mailJob, err error) {
	var orders, states []string
	var numbers []int64
	for _, b := range batch {
		orders, numbers = append(orders, b.letter.Order), append(numbers, b.letter.Number)
		states = append(states, b.outcome.state)
	}
	settled = map[mailJob]bool{}
	statements := &pgx.Batch{}
	statements.Queue(lockSQL, orders)
	statements.Queue(settleSQL, orders, numbers, states).Query(func(rows pgx.Rows) error {
		moved, err := pgx.CollectRows(rows, pgx.RowToStructByPos[mailJob])
		for _, j := range moved {
			settled[j] = true
		}
		return err
	})
	statements.Queue(nextSQL, orders).Query(func(rows pgx.Rows) error {
		next, err = pgx.CollectRows(rows, pgx.RowToStructByPos[mailJob])
		return err
	})
	return settled, next, tx.SendBatch(ctx, statements).Close()
}

// event is what tells of the outcome. The mail's number is its version: an
// order's mails are settled one after the other, and each tells once.
func (b *settlement) event() schemas.Event {
	l := b.letter
	id := uuid.NewSHA1(uuid.NameSpaceOID, []byte(l.key+"|EMAIL")).String()
	var e schemas.Event
	switch b.outcome.state {
	case stateSent:
		e = &schemas.NotificationSent{
			NotificationID: id, Channel: schemas.NotificationChannelEmail, Template: l.template, DedupeKey: l.key,
		}
	case stateSuppressed:
		e = &schemas.NotificationSuppressed{
			NotificationID: id, Channel: schemas.NotificationChannelEmail, Template: l.template,
			Cause: schemas.SuppressionCauseUnknown,
		}
	default:
		e = &schemas.NotificationFailed{
			NotificationID: id, Channel: schemas.NotificationChannelEmail, Template: l.template,
			Permanent: true, Attempts: b.outcome.attempts, Reason: &b.outcome.reason,
		}
	}
	outbox.Follow(&l.cause, Group, e, l.Number, 0)
	return e
}
