package orders

import (
	"bytes"
	"time"
)

// bulk is one batch of an ingest: its lines, in their order, and the orders
// among them.
type bulk struct {
	slots   []slot
	entries []*entry
	size    int           // bytes of the orders
	done    chan struct{} // closed by the writer when every entry is settled
}

// slot is one line: an order on its way, or what was wrong with the line.
type slot struct {
	line    int
	entry   *entry
	problem *problem
}

func newBulk() *bulk { return &bulk{done: make(chan struct{})} }

func (b *bulk) full() bool { return len(b.slots) >= bulkOrders || b.size >= bulkBytes }

func (s *slot) outcome() (answer, *problem) {
	if s.entry == nil {
		return answer{}, s.problem
	}
	return s.entry.answer, s.entry.problem
}

// parse makes lines into batches and hands them to the writers.
func (st *stream) parse() {
	defer close(st.order)
	defer close(st.work)
	b := newBulk()
	for {
		var in *block
		var open bool
		if in, open, b = st.next(b); !open {
			break
		}
		for _, l := range in.lines {
			if len(bytes.TrimSpace(l.text)) == 0 && !l.tooLong {
				continue
			}
			st.add(b, l)
			if b.full() {
				b = st.hand(b)
			}
		}
		st.free <- in
	}
	if len(b.slots) > 0 {
		st.hand(b)
	}
}

// next returns the next block of lines. While it would have to wait for one it
// hands what there is to a writer as soon as one is free. So a batch is, as
// with single orders, what arrived while the writers were busy, and a client
// that sends one line and waits for its result gets it.
func (st *stream) next(b *bulk) (*block, bool, *bulk) {
	select {
	case in, open := <-st.blocks:
		return in, open, b
	default:
	}
	if len(b.slots) > 0 {
		select {
		case in, open := <-st.blocks:
			return in, open, b
		case st.work <- b:
			st.order <- b
			b = newBulk()
		}
	}
	in, open := <-st.blocks
	return in, open, b
}

// hand waits for a writer to take the batch and returns a new one.
func (st *stream) hand(b *bulk) *bulk {
	st.work <- b
	st.order <- b
	return newBulk()
}

// add makes one line into an order or a problem.
func (st *stream) add(b *bulk, l line) {
	p, err := st.prepare(l)
	if err != nil {
		b.slots = append(b.slots, slot{line: l.no, problem: asProblem(err)})
		return
	}
	e := &entry{prepared: p}
	b.slots = append(b.slots, slot{line: l.no, entry: e})
	b.entries = append(b.entries, e)
	b.size += p.bytes()
}

func (st *stream) prepare(l line) (*prepared, error) {
	if l.tooLong {
		return nil, problemOf(codeBodyTooLarge, "A line may be up to 256 KiB.")
	}
	in := ingestLine{Order: Order{Lines: room(l.text)}}
	if err := decode(l.text, &in); err != nil {
		return nil, err
	}
	var f faults
	f.required(in.ClientOrderID, maxClientOrderID, at("/client_order_id"))
	if len(f) > 0 {
		f = append(f, in.validate(time.Now())...)
		return nil, invalidOrder(f[:min(len(f), maxFaults)])
	}
	return st.scratch.prepare(st.ctx, keyOf{st.client, in.ClientOrderID}, &in.Order, time.Now())
}
