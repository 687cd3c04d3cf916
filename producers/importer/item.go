package importer

import (
	"crypto/sha256"
	"time"
)

// kind tells what an item is about.
type kind int

const (
	kindOrder        kind = iota // an order, to be placed or turned away
	kindCancellation             // a cancellation of an earlier order
	kindNote                     // counts only
)

// item is one decision about the source: an order to place, an order that
// cannot be placed (reason), or a cancellation, to be applied or not (reason).
type item struct {
	kind   kind
	ref    string // client order id, or the cancellation's own name
	at     time.Time
	order  *order // nil: turned away, or no order at all
	reason Reason // why there is no order, or why the cancellation changes nothing
	sale   saleKey
	by     string // who cancelled
	why    string // the cancellation's reason, as the API is told
	tally  tally
}

// saleKey says which sale a cancellation means: equal keys, equal sales. The
// zero key means none.
type saleKey [16]byte

func newSaleKey(parts []byte) saleKey {
	sum := sha256.Sum256(parts)
	return saleKey(sum[:16])
}

// tally counts what was seen, changed and left out on the way to an item.
type tally struct {
	lines   int
	seen    counts
	mapped  counts
	dropped counts
}

// counts is a set of counters by reason, made on first use.
type counts map[Reason]int

func (c *counts) add(r Reason, n int) {
	if n == 0 {
		return
	}
	if *c == nil {
		*c = counts{}
	}
	(*c)[r] += n
}

func (c *counts) addAll(other counts) {
	for r, n := range other {
		c.add(r, n)
	}
}

func (t *tally) addAll(other tally) {
	t.lines += other.lines
	t.seen.addAll(other.seen)
	t.mapped.addAll(other.mapped)
	t.dropped.addAll(other.dropped)
}
