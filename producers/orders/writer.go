package orders

import (
	"context"
	"time"
)

// Bounds of one batch of single requests. More than a batch holds waits for
// the next one.
const maxBatchBytes = 4 << 20

// waiting is an order on the queue and the request that waits for it.
type waiting struct {
	entry
	// done receives once, when the entry is settled; it has room for one, so
	// the writer never waits for a request that went away.
	done chan struct{}
}

// singleLockWait is how long single orders wait for a key that another
// transaction holds: long enough for a commit on a busy disk, short enough not
// to hold up the others in the batch.
const singleLockWait = 200 * time.Millisecond

// writer takes orders off the queue and writes them, all that wait in one
// transaction. It never waits for more: the batch is what arrived while the
// previous commit ran. So one lone order is written at once, and the busier
// the service, the cheaper an order gets.
type writer struct {
	committer
	queue <-chan *waiting
	limit int // orders in a batch

	batch   []*waiting
	entries []*entry
}

// run writes until ctx ends and the queue is empty. Orders are written
// whatever becomes of the requests they came with.
func (w *writer) run(ctx context.Context) {
	defer w.session.close()
	lasting := context.WithoutCancel(ctx)
	for {
		select {
		case first := <-w.queue:
			w.write(lasting, first)
		case <-ctx.Done():
			w.drain(lasting)
			return
		}
	}
}

// drain writes what is left on the queue.
func (w *writer) drain(ctx context.Context) {
	for {
		select {
		case first := <-w.queue:
			w.write(ctx, first)
		default:
			return
		}
	}
}

func (w *writer) write(ctx context.Context, first *waiting) {
	w.gather(first)
	reached := w.commit(ctx, w.entries)
	w.release()
	if reached {
		return
	}
	// The database is away. Whoever waits behind this batch has waited as long
	// and gets the same answer, or waits would add up.
	for range len(w.queue) {
		select {
		case o := <-w.queue:
			o.problem = problemOf(codeUnavailable, "")
			o.done <- struct{}{}
		default:
			return
		}
	}
}

// gather takes what else is on the queue at this moment.
func (w *writer) gather(first *waiting) {
	w.batch, w.entries = append(w.batch[:0], first), append(w.entries[:0], &first.entry)
	size := first.bytes()
	for len(w.batch) < w.limit && size < maxBatchBytes {
		select {
		case o := <-w.queue:
			w.batch, w.entries = append(w.batch, o), append(w.entries, &o.entry)
			size += o.bytes()
		default:
			return
		}
	}
}

// release lets the requests of a batch go on.
func (w *writer) release() {
	for _, o := range w.batch {
		o.done <- struct{}{}
	}
	clear(w.batch)
	clear(w.entries)
}
