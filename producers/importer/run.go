package importer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// run is one import under way: one reader, some senders, one ledger.
type run struct {
	cfg    Config
	log    *slog.Logger
	source source
	client *client
	ledger *ledger
	jobs   chan job // read sends and closes, send receives
	batch  batch    // the reader's own
}

// job is one piece of work for a sender: orders to place, then cancellations
// whose orders are known.
type job struct {
	orders  []pending
	cancels []due
}

// pending is an order on its way to the API.
type pending struct {
	ref  string // client order id
	body []byte // one line of NDJSON, with its newline
	sale *sale  // nil when no cancellation can ever mean it
}

// batch is a job in the making.
type batch struct {
	job
	bytes int
	since time.Time // when its first order came
}

// read hands everything in the source to the senders, paced.
func (r *run) read(ctx context.Context) error {
	pace := newPacer(r.cfg)
	for offered := 0; r.cfg.Limit == 0 || offered < r.cfg.Limit; {
		it, err := r.source.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if it.order != nil || it.kind == kindCancellation {
			if err := r.wait(ctx, pace.delay(time.Now(), it)); err != nil {
				return err
			}
		}
		if err := r.take(ctx, it); err != nil {
			return err
		}
		if it.order != nil {
			offered++
		}
	}
	return r.flush(ctx)
}

// wait sleeps until the next order is due. What has gathered is sent first when
// it would otherwise be late.
func (r *run) wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	if len(r.batch.orders) > 0 && time.Since(r.batch.since)+d >= flushAfter {
		if err := r.flush(ctx); err != nil {
			return err
		}
	}
	return sleep(ctx, d)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func (r *run) take(ctx context.Context, it item) error {
	switch {
	case it.kind == kindCancellation:
		if d, ok := r.ledger.cancellation(it); ok {
			return r.hand(ctx, job{cancels: []due{d}})
		}
	case it.order != nil:
		return r.gather(ctx, it)
	default:
		r.ledger.turnedAway(it)
	}
	return nil
}

func (r *run) gather(ctx context.Context, it item) error {
	body, err := json.Marshal(it.order)
	if err != nil {
		return fmt.Errorf("encode %s: %w", it.ref, err)
	}
	body = append(body, '\n')
	if r.batch.bytes+len(body) > batchBytes {
		if err := r.flush(ctx); err != nil {
			return err
		}
	}
	if len(r.batch.orders) == 0 {
		r.batch.since = time.Now()
	}
	r.batch.bytes += len(body)
	r.batch.orders = append(r.batch.orders, pending{ref: it.ref, body: body, sale: r.ledger.offered(it)})
	if len(r.batch.orders) >= batchOrders {
		return r.flush(ctx)
	}
	return nil
}

func (r *run) flush(ctx context.Context) error {
	if len(r.batch.orders) == 0 {
		return nil
	}
	j := r.batch.job
	r.batch = batch{}
	return r.hand(ctx, j)
}

func (r *run) hand(ctx context.Context, j job) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case r.jobs <- j:
		return nil
	}
}

// send works through the jobs. A cancellation that came while its order was
// under way is sent by whoever gets that order's answer.
func (r *run) send(ctx context.Context) error {
	for j := range r.jobs {
		cancels := j.cancels
		err := r.client.place(ctx, j.orders, func(p pending, a answer) {
			if d, ok := r.ledger.answered(p, a); ok {
				cancels = append(cancels, d)
			}
		})
		if err != nil {
			return err
		}
		for _, d := range cancels {
			out, err := r.client.cancel(ctx, d)
			if err != nil {
				return err
			}
			r.ledger.cancelled(d, out)
		}
	}
	return nil
}
