package orders

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"orderflow/internal/pg"
)

// lockNotAvailable is the SQLSTATE of a lock_timeout.
const lockNotAvailable = "55P03"

// answer is what a request that changed an order is told.
type answer struct {
	status   int
	orderID  uuid.UUID
	version  int64
	body     []byte
	replayed bool // told before, to an earlier request with the same key
}

// entry is one order on its way through a batch, and what became of it:
// exactly one of answer, taken and problem is set once the batch is settled.
type entry struct {
	*prepared
	answer  answer
	taken   bool // the key was stored before: resolve has the answer
	problem *problem
}

func (e *entry) placed() {
	e.answer = answer{status: http.StatusCreated, orderID: e.id, version: 1, body: e.receipt}
}

// sortByKey keeps two batches with the same keys from a deadlock: both wait for
// each other's keys in the same sequence. A key that is twice in a batch stays
// so: the first one claims it and the other finds it taken.
func sortByKey(batch []*entry) {
	slices.SortStableFunc(batch, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(a.client, b.client), cmp.Compare(a.key, b.key))
	})
}

// committer writes batches through one session. Single requests and bulk
// ingests share it; a batch of one is the plain case.
type committer struct {
	session *session
	// patience bounds a batch, all attempts together.
	patience time.Duration
	log      *slog.Logger
	metrics  *metrics
	door     door

	lost bool // the database was not reached by the batch at hand
}

// commit writes a batch and settles every entry: what cannot be written has a
// problem to say so. It reports false if the database could not be reached.
func (c *committer) commit(ctx context.Context, batch []*entry) bool {
	c.lost = false
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	begun := time.Now()
	sortByKey(batch)
	c.settle(ctx, batch, false)
	c.metrics.committed(c.door, len(batch), time.Since(begun))
	return !c.lost
}

// settle writes entries sorted by key. If the database refuses the data of
// one, or one key is held by another transaction, it halves the batch until
// only that one is left without its order.
func (c *committer) settle(ctx context.Context, batch []*entry, hurry bool) {
	won, err := c.attempt(ctx, batch, hurry)
	held := pg.Code(err) == lockNotAvailable
	switch {
	case err == nil:
		for _, e := range batch {
			e.taken = true
		}
		for _, e := range won {
			e.taken = false
			e.placed()
		}
	case len(batch) > 1 && (held || badData(err)):
		c.metrics.split(held)
		half := len(batch) / 2
		c.settle(ctx, batch[:half], true)
		c.settle(ctx, batch[half:], true)
	case held:
		batch[0].problem = problemOf(codeInProgress, "")
	case badData(err):
		// A hole in our validation; the client cannot help it.
		c.log.Error("refuse an order that the database does not take", "order_id", batch[0].id, "err", err)
		batch[0].problem = problemOf(codeNotStorable, "")
	default:
		c.lost = true
		c.log.Error("give up a batch of orders", "orders", len(batch), "err", err)
		for _, e := range batch {
			e.problem = problemOf(codeUnavailable, "")
		}
	}
}

// badData reports whether the database refused one of the rows. A missing
// partition of the outbox has the same SQLSTATE as a violated check, but
// names no constraint, and no row is at fault.
func badData(err error) bool {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == "23514" && pe.ConstraintName == "" {
		return false
	}
	return pg.DataError(err) || pg.Code(err) == "54000"
}

// attempt writes until it succeeds, the data is refused or ctx ends.
//
// A commit whose outcome is unknown is simply tried again: the transaction
// waits for the lost one if that is still running, and finds the keys if it
// did commit. Those entries come back as not won and their lookup shows that
// the stored order is their own.
func (c *committer) attempt(ctx context.Context, batch []*entry, hurry bool) ([]*entry, error) {
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		once, cancel := context.WithTimeout(ctx, c.patience/2)
		won, err := c.session.write(once, batch, hurry)
		cancel()
		if err == nil || pg.Code(err) == lockNotAvailable || !pg.Retryable(err) && !pg.Ambiguous(err) {
			return won, err
		}
		c.session.discard(ctx)
		c.log.Warn("retry a batch of orders", "orders", len(batch), "err", err)
		c.metrics.retries.Inc()
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(wait):
		}
	}
}
