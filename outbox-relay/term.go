package relay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/outbox-relay/source"
	"orderflow/schemas"
)

// stopGrace is how long a transaction may take to end once the relay is told
// to stop. Ended, it hides nothing from readers; left open, it would until the
// broker's timeout.
const stopGrace = 5 * time.Second

// term is one leadership, from a begin to the first failure. Two goroutines
// share the work: one reads and packs ahead, the other publishes.
type term struct {
	relay      *Relay
	session    session
	source     source.Source
	checkpoint *Checkpoint // the last committed one
	packer     *packer
}

func newTerm(r *Relay, s session, src source.Source, c *Checkpoint) *term {
	return &term{relay: r, session: s, source: src, checkpoint: c, packer: newPacker(r, s, c)}
}

func (t *term) close() {
	t.session.close()
	t.source.Close()
}

// run publishes until it fails or ctx ends.
func (t *term) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	ready := make(chan *parcel, maxParcels) // closed by the reading goroutine
	var reading sync.WaitGroup
	reading.Add(1)
	go func() {
		defer reading.Done()
		defer close(ready)
		if err := t.read(ctx, ready); err != nil {
			cancel(err)
		}
	}()
	err := t.publish(ctx, ready)
	cancel(err)
	reading.Wait()
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// read hands packed batches over until ctx ends.
func (t *term) read(ctx context.Context, ready chan<- *parcel) error {
	for {
		b, err := t.source.Next(ctx)
		if err != nil {
			return err
		}
		p, err := t.packer.pack(ctx, b)
		if err != nil {
			return err
		}
		select {
		case ready <- p:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// publish commits one transaction after the other.
func (t *term) publish(ctx context.Context, ready <-chan *parcel) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case p, ok := <-ready:
			if !ok {
				return nil
			}
			if err := t.transact(ctx, p, ready); err != nil {
				return fmt.Errorf("publish transaction %d of source %s: %w", t.checkpoint.Number+1, t.relay.cfg.Source, err)
			}
		}
	}
}

// transact publishes p, what else is at hand, and the checkpoint behind them.
// Crash points: before the commit is sent, Kafka aborts the transaction and
// the events are read again; after it, the checkpoint is behind them.
func (t *term) transact(ctx context.Context, p *parcel, ready <-chan *parcel) error {
	began := time.Now()
	if err := t.session.begin(); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	x := newTransaction(t)
	for p != nil {
		x.send(p)
		p = x.more(ready, began)
	}
	next, err := x.seal()
	if err != nil {
		return err
	}
	flushing, flushed := context.WithCancel(context.WithoutCancel(ctx))
	go t.session.flush(flushing) // ends with the transaction
	err = x.wait(ctx)
	flushed()
	if err != nil {
		return err
	}
	// A commit is seen through even if ctx ended: its outcome matters.
	if err := t.session.commit(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	t.checkpoint = next
	t.relay.lease.note(next)
	t.relay.metrics.committed(x, began)
	return nil
}

// transaction is one Kafka transaction on its way.
type transaction struct {
	term      *term
	events    int
	bytes     int
	oldest    time.Time
	after     source.Point // of the last parcel, as the next two
	horizon   uint64
	published map[string][]uint64

	unacked atomic.Int64  // records not acknowledged yet, plus one until sealed
	acked   chan struct{} // closed when unacked is 0
	once    sync.Once
	failed  chan struct{} // closed on the first record that failed
	err     error         // why; read after failed is closed
}

func newTransaction(t *term) *transaction {
	x := &transaction{term: t, acked: make(chan struct{}), failed: make(chan struct{})}
	x.unacked.Store(1)
	return x
}

func (x *transaction) send(p *parcel) {
	if x.events == 0 {
		x.oldest = p.batch.Events[0].CreatedAt
	}
	// Taken now: once its last record is acknowledged, p is packed anew.
	x.after, x.horizon, x.published = p.batch.After, p.batch.Horizon, p.published
	n := len(p.records)
	x.events += n
	x.bytes += p.batch.Bytes
	x.unacked.Add(int64(n))
	p.unacked.Store(int64(n))
	done := func(_ *kgo.Record, err error) {
		if err != nil {
			x.fail(err)
			return
		}
		if p.unacked.Add(-1) == 0 {
			p.release()
		}
		x.settle()
	}
	for i := range p.records {
		// Cancelling a record in flight would leave the producer's sequence
		// numbers in doubt; whoever gives up closes the session instead.
		x.term.session.produce(context.Background(), &p.records[i], done)
	}
}

func (x *transaction) settle() {
	if x.unacked.Add(-1) == 0 {
		close(x.acked)
	}
}

func (x *transaction) fail(err error) {
	x.once.Do(func() {
		x.err = err
		close(x.failed)
	})
}

// more returns the next parcel if there is one now and the transaction has
// room for it.
func (x *transaction) more(ready <-chan *parcel, began time.Time) *parcel {
	cfg := &x.term.relay.cfg
	if x.bytes >= cfg.TxnBytes || time.Since(began) >= cfg.TxnInterval {
		return nil
	}
	select {
	case p := <-ready: // nil once closed
		return p
	default:
		return nil
	}
}

// seal sends the checkpoint as the transaction's last record.
func (x *transaction) seal() (*Checkpoint, error) {
	next := *x.term.checkpoint
	next.Number++
	next.Point, next.Horizon, next.Published = x.after, x.horizon, x.published
	value, err := next.encode()
	if err != nil {
		return nil, fmt.Errorf("encode checkpoint: %w", err)
	}
	x.unacked.Add(1)
	x.term.session.produce(context.Background(), &kgo.Record{
		Topic: schemas.RelaysTopic, Key: []byte(next.Source), Value: value,
	}, func(_ *kgo.Record, err error) {
		if err != nil {
			x.fail(err)
			return
		}
		x.settle()
	})
	x.settle()
	return &next, nil
}

// wait returns when every record is acknowledged. It has no deadline of its
// own while the relay runs: a broker that is away is waited for, and the
// broker's transaction timeout fails the records of a transaction it gave up.
func (x *transaction) wait(ctx context.Context) error {
	select {
	case <-x.acked:
		return nil
	case <-x.failed:
		return x.err
	case <-ctx.Done():
	}
	grace := time.NewTimer(stopGrace)
	defer grace.Stop()
	select {
	case <-x.acked:
		return nil
	case <-x.failed:
		return x.err
	case <-grace.C:
		return fmt.Errorf("stop with %d records unacknowledged: %w", x.unacked.Load(), context.Cause(ctx))
	}
}
