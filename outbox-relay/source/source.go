// Package source hands committed outbox events to the relay. It promises two
// things: every committed event is handed out, and the events of one aggregate
// come in the order of their commits. After a restart from a [Point] it goes
// on exactly behind the events that were handed out before that point.
package source

import (
	"context"
	"time"
)

// Point is a place in a source's order, written by the source and kept by the
// relay in its checkpoint. The empty Point is the beginning.
type Point string

// Source is one way to read the outbox. It is used by one goroutine.
type Source interface {
	// Next returns the next events. It waits until there are some, and fails
	// only when the source cannot go on without a new start: ctx ended, the
	// database is away, or its answer makes no sense.
	Next(ctx context.Context) (*Batch, error)
	// Close gives up the connection.
	Close()
}

// Event is one committed row of the outbox. Its byte slices belong to the
// Batch it came in.
type Event struct {
	Seq         int64
	CreatedAt   time.Time
	ID          [16]byte
	AggregateID []byte
	Type        string
	Topic       string
	SchemaFP    int64
	// Payload begins with five bytes for the registry's frame.
	Payload []byte
	// Headers are in the outbox's compact form.
	Headers []byte
}

// Batch is a run of events, in the source's order.
type Batch struct {
	Events []Event
	// After is the point behind the last event.
	After Point
	// Horizon is a transaction id at or beyond every one that After speaks of.
	Horizon uint64
	// Bytes is the size of the rows, for the relay's budget.
	Bytes int

	chunks [][]byte // chunks[:used] hold the rows' bytes, the last one open
	used   int
	free   chan<- *Batch
}

// chunkSize is the unit in which a batch takes memory; a larger value gets a
// chunk of its own, which is not kept.
const chunkSize = 256 << 10

// Release gives the batch's memory back to its source. The events must not be
// used afterwards.
func (b *Batch) Release() {
	if b.free == nil {
		return
	}
	b.reset()
	b.free <- b // never blocks: the channel has room for every batch
}

func (b *Batch) reset() {
	clear(b.Events)
	b.Events, b.After, b.Horizon, b.Bytes, b.used = b.Events[:0], "", 0, 0, 0
	kept := b.chunks[:0]
	for _, c := range b.chunks {
		if cap(c) == chunkSize {
			kept = append(kept, c[:0])
		}
	}
	b.chunks = kept
}

// keep copies v into the batch.
func (b *Batch) keep(v []byte) []byte {
	b.Bytes += len(v)
	if b.used == 0 || cap(b.chunks[b.used-1])-len(b.chunks[b.used-1]) < len(v) {
		b.nextChunk(len(v))
	}
	c := &b.chunks[b.used-1]
	start := len(*c)
	*c = append(*c, v...)
	return (*c)[start:len(*c):len(*c)]
}

func (b *Batch) nextChunk(need int) {
	if need > chunkSize {
		b.chunks = append(b.chunks, nil)
		copy(b.chunks[b.used+1:], b.chunks[b.used:])
		b.chunks[b.used] = make([]byte, 0, need)
	} else if b.used == len(b.chunks) {
		b.chunks = append(b.chunks, make([]byte, 0, chunkSize))
	}
	b.used++
}
