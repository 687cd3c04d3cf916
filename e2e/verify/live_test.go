package verify_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow/e2e/verify"
	"orderflow/internal/pg"
	"orderflow/internal/testenv"
	"orderflow/outbox-relay/outbox"
	"orderflow/schemas"
)

func TestAPlatformAtWorkIsFoundHealthyEveryTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bulk(30_000) // so that a look takes a while
	w.exec(`CREATE TABLE aggregates (id text PRIMARY KEY, version bigint NOT NULL)`)
	w.exec(`INSERT INTO aggregates SELECT 'busy-' || n, 0 FROM generate_series(0, 39) n`)
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for n := range 6 {
		writers.Go(func() {
			if err := w.writeUntil(ctx, rand.New(rand.NewPCG(1, uint64(n)))); err != nil {
				t.Errorf("write: %v", err)
			}
		})
	}
	stopRelay, stopGroup := w.relay(), w.group()
	var applied int64
	for n := range 5 {
		w.waitForMore(applied)
		if n%2 == 1 { // looked at while a relay and a group end and others begin
			go func() {
				stopRelay()
				stopGroup()
			}()
		}
		r := w.verify(groupName)
		checkOK(t, r)
		g := r.Groups[0]
		t.Logf("%d rows, %d in the backlog; %d records; applied %d, %d waiting", r.Outbox.Rows, r.Outbox.Backlog, r.Log.Events, g.Applied, g.Waiting)
		if g.Applied <= applied {
			t.Errorf("%d applied, want more than last time's %d", g.Applied, applied)
		}
		applied = g.Applied
		if n%2 == 1 {
			stopRelay, stopGroup = w.relay(), w.group()
		}
	}
	cancel()
	writers.Wait()
	w.waitApplied()
	r := w.verify(groupName)
	checkOK(t, r)
	if r.Outbox.Backlog != 0 || r.Groups[0].Waiting != 0 || r.Outbox.Rows == 0 {
		t.Errorf("at rest: %d rows, %d in the backlog, %d waiting; want all applied",
			r.Outbox.Rows, r.Outbox.Backlog, r.Groups[0].Waiting)
	}
}

// writeUntil appends events in transactions of all kinds until ctx ends: long
// and short ones, some with their transaction id drawn early, some undone.
func (w *world) writeUntil(ctx context.Context, r *rand.Rand) error {
	for ctx.Err() == nil {
		err := pgx.BeginFunc(context.WithoutCancel(ctx), w.db, func(tx pgx.Tx) error { return writeOne(tx, r) })
		if err != nil && !errors.Is(err, errUndone) {
			return err
		}
	}
	return nil
}

var errUndone = errors.New("undone on purpose")

func writeOne(tx pgx.Tx, r *rand.Rand) error {
	ctx := context.Background()
	if r.IntN(2) == 0 {
		if _, err := tx.Exec(ctx, `SELECT pg_current_xact_id()`); err != nil {
			return err
		}
	}
	id := fmt.Sprintf("busy-%d", r.IntN(40))
	var version int64
	err := tx.QueryRow(ctx, `UPDATE aggregates SET version = version + $2 WHERE id = $1 RETURNING version`, id, 3).Scan(&version)
	if err != nil {
		return err
	}
	events := []schemas.Event{placed(id, version-2), cancelled(id, version-1), cancelled(id, version)}
	if err := outbox.Append(ctx, tx, events...); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `SELECT pg_sleep($1)`, r.Float64()*0.01); err != nil {
		return err
	}
	if r.IntN(10) == 0 {
		return errUndone
	}
	return nil
}

// waitForMore waits until the group has applied a good deal more than that.
func (w *world) waitForMore(applied int64) {
	w.t.Helper()
	testenv.Wait(w.t, waitLong, "more events to be applied", func() bool {
		return w.count(`SELECT sum(applied_count) FROM ledger.consumer_position`) > applied+500
	})
}

// TestWhateverHappensBetweenTwoStepsIsNoFault writes, publishes and applies
// events before each query of the check, so each step sees a later world than
// the one before it.
func TestWhateverHappensBetweenTwoStepsIsNoFault(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(10)
	w.relay()
	w.group()
	w.waitApplied()
	between := 0
	cfg := w.config(groupName)
	cfg.DB = w.traced(func() {
		between++
		w.append(orders(fmt.Sprintf("between-%d", between), 4)...)
		w.waitApplied()
	})
	r := must(verify.Run(t.Context(), cfg))(t)
	checkOK(t, r)
	if between < 5 || r.Outbox.Rows != int64(25+10*between) {
		t.Errorf("%d rows after %d interruptions, want 10 for each", r.Outbox.Rows, between)
	}
}

// traced is a pool that calls before ahead of each query.
func (w *world) traced(before func()) *pgxpool.Pool {
	w.t.Helper()
	c := must(pg.Config{URL: w.url}.Parse())(w.t)
	c.ConnConfig.Tracer = tracer(before)
	pool := must(pgxpool.NewWithConfig(w.t.Context(), c))(w.t)
	w.t.Cleanup(pool.Close)
	return pool
}

type tracer func()

func (f tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	f()
	return ctx
}

func (tracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
