package importer

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Summary says what became of everything an import read. At the end of a whole
// import
//
//	Read          = Accepted + Replayed + the sum of Rejected
//	Cancellations = Cancelled + CancelledBefore + the sum of CancellationsIgnored
//
// and one that was stopped early lacks what was under way.
type Summary struct {
	Format string `json:"format"`
	// Lines are the rows read: order lines for UCI, orders and items for Olist.
	Lines int `json:"lines"`
	// Read are the orders the source tells of, cancellations not among them.
	Read     int `json:"read"`
	Accepted int `json:"accepted"`
	// Replayed are orders the API had already, from an earlier import or from a
	// request of this one whose answer was lost.
	Replayed int            `json:"replayed"`
	Rejected map[Reason]int `json:"rejected"`

	Cancellations int `json:"cancellations"`
	Cancelled     int `json:"cancelled"`
	// CancelledBefore are cancellations of orders that were cancelled already,
	// by an earlier import or by a request of this one whose answer was lost.
	CancelledBefore      int            `json:"cancelled_before"`
	CancellationsIgnored map[Reason]int `json:"cancellations_ignored"`

	// LinesDropped are lines left out of orders that were placed, and rows that
	// belong to no order that can be told.
	LinesDropped map[Reason]int `json:"lines_dropped"`
	// Mapped counts, over the orders offered, what was changed on the way.
	Mapped map[Reason]int `json:"mapped"`
	// Seen counts oddities that were taken as they are, of everything read (of
	// Olist's items and totals: of the orders placed).
	Seen map[Reason]int `json:"seen"`

	Duration time.Duration `json:"duration_nanoseconds"`
}

func newSummary(format string) Summary {
	return Summary{
		Format: format, Rejected: map[Reason]int{}, CancellationsIgnored: map[Reason]int{},
		LinesDropped: map[Reason]int{}, Mapped: map[Reason]int{}, Seen: map[Reason]int{},
	}
}

// Placed are the orders the API has: accepted now or before.
func (s Summary) Placed() int { return s.Accepted + s.Replayed }

func (s *Summary) book(t tally) {
	s.Lines += t.lines
	(*counts)(&s.LinesDropped).addAll(t.dropped)
	(*counts)(&s.Mapped).addAll(t.mapped)
	(*counts)(&s.Seen).addAll(t.seen)
}

func (s Summary) clone() Summary {
	s.Rejected = maps.Clone(s.Rejected)
	s.CancellationsIgnored = maps.Clone(s.CancellationsIgnored)
	s.LinesDropped = maps.Clone(s.LinesDropped)
	s.Mapped = maps.Clone(s.Mapped)
	s.Seen = maps.Clone(s.Seen)
	return s
}

// String is the summary as a table of several lines.
func (s Summary) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(indent, name string, n int) { fmt.Fprintf(w, "%s%s\t%d\t\n", indent, name, n) }
	group := func(name string, m map[Reason]int) {
		row("", name, total(m))
		for _, r := range slices.Sorted(maps.Keys(m)) {
			row("  ", string(r), m[r])
		}
	}
	row("", "lines read", s.Lines)
	row("", "orders read", s.Read)
	row("  ", "accepted", s.Accepted)
	row("  ", "replayed", s.Replayed)
	group("  rejected", s.Rejected)
	row("", "cancellations read", s.Cancellations)
	row("  ", "cancelled", s.Cancelled)
	row("  ", "cancelled before", s.CancelledBefore)
	group("  ignored", s.CancellationsIgnored)
	group("lines dropped", s.LinesDropped)
	group("mapped", s.Mapped)
	group("seen", s.Seen)
	_ = w.Flush() // into memory
	fmt.Fprintf(&b, "in %s, %.0f orders a second\n", s.Duration.Round(time.Millisecond), s.perSecond())
	return b.String()
}

func (s Summary) perSecond() float64 {
	if s.Duration <= 0 {
		return 0
	}
	return float64(s.Placed()) / s.Duration.Seconds()
}

func total(m map[Reason]int) int {
	n := 0
	for _, v := range m {
		n += v
	}
	return n
}
