package consumers

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"orderflow/internal/pg"
	"orderflow/schemas"
)

// Causes of a retry; label values.
const (
	causeHandler        = "handler"
	causeInfrastructure = "infrastructure"
)

// maxSavepoints bounds the savepoints of one transaction. Postgres keeps up to
// 64 subtransactions per backend at hand (PGPROC_MAX_CACHED_SUBXIDS); beyond,
// every snapshot taken anywhere gets slower.
const maxSavepoints = 50

const rollbackTimeout = 5 * time.Second

// mode is how a transaction runs its handlers.
type mode int

const (
	together mode = iota // many events a call
	oneByOne             // each event under a savepoint, so that one can fail alone
)

// outcome is what a committed transaction did.
type outcome struct {
	move    move
	applied []*item
	skipped int
	holds   []hold
}

// apply commits the effects of items, in one transaction as a rule. When a
// handler calls the batch's failure permanent, the batch is cut into pieces
// small enough for savepoints, and the pieces that fail again run one event at
// a time, so that only the culprit is set aside. A batch that takes too long
// is cut in half, since all of it again would take too long again.
//
// The error is errStopping or a fencedError.
func (p *partition) apply(items []item) error {
	err := p.insist(items, together)
	if IsPermanent(err) && len(items) <= maxSavepoints {
		err = p.insist(items, oneByOne)
	}
	var size int
	switch {
	case IsPermanent(err):
		size = maxSavepoints
	case errors.Is(err, errTooLong):
		size = (len(items) + 1) / 2
	default:
		return err
	}
	for piece := range slices.Chunk(items, size) {
		if err := p.apply(piece); err != nil {
			return err
		}
	}
	return nil
}

var errTooLong = errors.New("batch takes too long")

// insist tries the transaction until it commits or cannot: fenced, stopping,
// or, together with others, Permanent or too long.
func (p *partition) insist(items []item, how mode) error {
	defer p.metricAttempts(0)
	for attempt := 1; ; attempt++ {
		began := time.Now()
		out, err := p.transact(items, how)
		var fenced *fencedError
		switch {
		case err == nil:
			p.committed(out, time.Since(began), len(items))
			return nil
		case errors.As(err, &fenced):
			p.group.metrics.records.WithLabelValues(p.topic, resultFenced).Add(float64(moveOver(items).count))
			return err
		case IsPermanent(err), errors.Is(err, errStopping):
			return err
		case p.isStopping():
			return errStopping
		}
		p.retrying(attempt, err)
		if len(items) > 1 && time.Since(began) >= p.group.limits.BatchTimeout {
			p.size = max(p.size/2, 1)
			return errTooLong
		}
		if !p.pause(p.group.backoff(attempt)) {
			return errStopping
		}
	}
}

func (p *partition) retrying(attempt int, err error) {
	cause := causeHandler
	if pg.Retryable(err) || schemas.Unavailable(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		cause = causeInfrastructure
	}
	p.group.metrics.retries.WithLabelValues(p.topic, cause).Inc()
	p.metricAttempts(attempt)
	p.log.Warn("retry batch", "attempt", attempt, "cause", cause, "offset", p.next, "error", err)
}

// transact runs one transaction: fence, effects, holds, commit. A crash
// anywhere before the commit leaves nothing; after it, everything.
func (p *partition) transact(items []item, how mode) (*outcome, error) {
	ctx, cancel := context.WithTimeout(p.ctx, p.group.limits.BatchTimeout)
	defer cancel()
	out := &outcome{move: moveOver(items)}
	p.group.faults.beforeBegin(p)
	tx := &batchTx{p: p, ctx: ctx, move: out.move}
	defer tx.end(ctx)
	err := p.effects(ctx, tx, items, how, out)
	if err == nil {
		err = tx.open(ctx) // where there was nothing to say
	}
	if err == nil {
		err = tx.commit(ctx)
	}
	if tx.err != nil {
		err = tx.err // whatever a handler made of it
	}
	if err != nil {
		return nil, fmt.Errorf("apply %s[%d]@%d..%d: %w", p.topic, p.id, p.next, out.move.next-1, err)
	}
	return out, nil
}

// effects runs the handlers and writes what they set aside. Which keys are
// held is asked only where the partition has holds.
func (p *partition) effects(ctx context.Context, tx *batchTx, items []item, how mode, out *outcome) error {
	held := map[string]bool{}
	if p.openHolds > 0 {
		var err error
		if held, err = tx.openHeld(ctx, items); err != nil {
			return err
		}
	}
	run := p.applyTogether
	if how == oneByOne {
		run = p.applyOneByOne
	}
	if err := run(ctx, tx, items, held, out); err != nil {
		return err
	}
	return p.writeHolds(ctx, tx, out.holds)
}

func (p *partition) applyTogether(ctx context.Context, tx pgx.Tx, items []item, held map[string]bool, out *outcome) error {
	todo := make([]*item, 0, len(items))
	for n := range items {
		if i := &items[n]; !out.setAside(i, held) {
			todo = append(todo, i)
		}
	}
	for _, c := range layers(todo) {
		if err := p.call(ctx, tx, c); err != nil {
			return err
		}
	}
	out.applied = todo
	return nil
}

func (p *partition) applyOneByOne(ctx context.Context, tx pgx.Tx, items []item, held map[string]bool, out *outcome) error {
	for n := range items {
		i := &items[n]
		if out.setAside(i, held) {
			continue
		}
		err := p.savepoint(ctx, tx, call{i.handler, []*item{i}})
		switch {
		case err == nil:
			out.applied = append(out.applied, i)
		case IsPermanent(err):
			out.kill(i, err, held)
		default:
			return err
		}
	}
	return nil
}

// setAside deals with an item that no handler gets.
func (o *outcome) setAside(i *item, held map[string]bool) bool {
	switch {
	case i.marker:
	case !i.handled():
		o.skipped++
	case len(held) > 0 && held[string(i.record.Key)]:
		o.holds = append(o.holds, hold{item: i, state: stateParked})
	case i.undecoded != nil:
		o.kill(i, i.undecoded, held)
	default:
		return false
	}
	return true
}

func (o *outcome) kill(i *item, err error, held map[string]bool) {
	held[string(i.record.Key)] = true
	o.holds = append(o.holds, hold{item: i, state: stateDead, err: err})
}

func (p *partition) savepoint(ctx context.Context, tx pgx.Tx, c call) error {
	nested, err := tx.Begin(ctx)
	if err != nil {
		return fmt.Errorf("set savepoint: %w", err)
	}
	if err := p.call(ctx, nestedTx{nested}, c); err != nil {
		if rerr := nested.Rollback(ctx); rerr != nil {
			return fmt.Errorf("roll back to savepoint: %w", rerr)
		}
		return err
	}
	if err := nested.Commit(ctx); err != nil {
		return fmt.Errorf("release savepoint: %w", err)
	}
	return nil
}

// call runs a handler. A panic is a bug, and a bug is no verdict about the
// event: it becomes an error that the partition waits on, in plain sight,
// while the process and the other partitions go on.
func (p *partition) call(ctx context.Context, tx pgx.Tx, c call) (err error) {
	began := time.Now()
	defer func() {
		if r := recover(); r != nil {
			p.log.Error("handler panicked", "event_type", c.handler.schema.FullName, "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("handler of %s panicked: %v", c.handler.schema.FullName, r)
		}
		p.group.metrics.handlerSeconds.WithLabelValues(p.topic, c.handler.schema.FullName).Observe(time.Since(began).Seconds())
	}()
	return c.handler.apply(ctx, tx, c.batch)
}

func handledKeys(items []item) [][]byte {
	var keys [][]byte
	for n := range items {
		if items[n].handled() {
			keys = append(keys, sequenceKey(items[n].record))
		}
	}
	return keys
}

// rollback also gives the connection back, and does nothing after a commit.
func rollback(ctx context.Context, tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	_ = tx.Rollback(ctx) // the error that led here is the one to report
}
