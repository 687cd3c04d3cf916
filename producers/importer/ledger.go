package importer

import (
	"log/slog"
	"sync"
	"time"
)

const (
	// rememberedSales bounds the sales kept for cancellations to find: the whole
	// UCI set four times over, some 40 MB. The oldest are forgotten first; a
	// cancellation of a forgotten sale counts as NoEqualSale.
	rememberedSales = 100_000
	refusalCodes    = 16 // distinct codes of the API that get a counter of their own
	refusalsLogged  = 10
)

// ledger keeps the books of one import: what became of everything read, and
// which sales a cancellation could still mean.
type ledger struct {
	log     *slog.Logger
	started time.Time

	mu      sync.Mutex // protects all below
	sum     Summary
	refused map[Reason]bool // codes met, at most refusalCodes
	logged  int
	sales   map[saleKey]*sale
	oldest  []saleKey // a ring of the keys in sales, by age
	next    int       // the slot of oldest to overwrite
}

// sale is the first of all sales with one key.
type sale struct {
	state     saleState
	orderID   string
	version   int64
	equal     int  // sales with this key so far
	cancelled bool // a cancellation took it
	waiting   *item
}

type saleState int

const (
	saleUnderWay saleState = iota // offered, not yet answered
	salePlaced
	saleNotPlaced
)

// due is a cancellation whose order is known.
type due struct {
	item    item
	orderID string
	version int64
}

func newLedger(cfg Config, log *slog.Logger) *ledger {
	return &ledger{
		log: log, started: time.Now(), sum: newSummary(cfg.Format),
		refused: map[Reason]bool{}, sales: map[saleKey]*sale{},
	}
}

// offered books an order that goes to the API and returns its sale, if a
// cancellation could mean it.
func (l *ledger) offered(it item) *sale {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum.Read++
	l.sum.book(it.tally)
	return l.remember(it.sale, saleUnderWay)
}

// turnedAway books an order that is not placed, or mere counts.
func (l *ledger) turnedAway(it item) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum.book(it.tally)
	if it.kind == kindOrder {
		l.sum.Read++
		l.sum.Rejected[it.reason]++
		l.remember(it.sale, saleNotPlaced)
	}
}

// remember returns the new sale, or nil when there was an equal one already: a
// cancellation can then mean neither.
func (l *ledger) remember(key saleKey, state saleState) *sale {
	if key == (saleKey{}) {
		return nil
	}
	if s, ok := l.sales[key]; ok {
		s.equal++
		return nil
	}
	if len(l.oldest) < rememberedSales {
		l.oldest = append(l.oldest, key)
	} else {
		delete(l.sales, l.oldest[l.next])
		l.oldest[l.next] = key
		l.next = (l.next + 1) % rememberedSales
	}
	s := &sale{state: state, equal: 1}
	l.sales[key] = s
	return s
}

// cancellation decides what a cancellation means now that everything before it
// was read. It returns the cancellation to send, if its order is known; while
// the order is under way the cancellation waits with it.
func (l *ledger) cancellation(it item) (due, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum.Cancellations++
	l.sum.book(it.tally)
	s := l.sales[it.sale]
	switch {
	case it.reason != "":
		l.sum.CancellationsIgnored[it.reason]++
	case s == nil:
		l.sum.CancellationsIgnored[NoEqualSale]++
	case s.equal > 1:
		l.sum.CancellationsIgnored[SeveralEqual]++
	case s.cancelled:
		l.sum.CancellationsIgnored[AlreadyCancelled]++
	case s.state == saleNotPlaced:
		l.sum.CancellationsIgnored[SaleNotPlaced]++
	default:
		s.cancelled = true
		if s.state == salePlaced {
			return due{item: it, orderID: s.orderID, version: s.version}, true
		}
		s.waiting = &it
	}
	return due{}, false
}

// answered books the API's answer to an order. It returns the cancellation that
// waited for it, if any.
func (l *ledger) answered(p pending, a answer) (due, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case a.refused():
		l.refuse(p, a)
	case a.Replayed:
		l.sum.Replayed++
	default:
		l.sum.Accepted++
	}
	s := p.sale
	if s == nil {
		return due{}, false
	}
	s.state, s.orderID, s.version = salePlaced, a.OrderID, a.Version
	if a.refused() {
		s.state = saleNotPlaced
	}
	if s.waiting == nil {
		return due{}, false
	}
	it := *s.waiting
	s.waiting = nil
	if a.refused() {
		l.sum.CancellationsIgnored[SaleNotPlaced]++
		return due{}, false
	}
	return due{item: it, orderID: s.orderID, version: s.version}, true
}

func (l *ledger) refuse(p pending, a answer) {
	code := RefusedPrefix + Reason(a.Problem.name(a.Status))
	if !l.refused[code] && len(l.refused) == refusalCodes {
		code = RefusedOther
	} else {
		l.refused[code] = true
	}
	l.sum.Rejected[code]++
	if l.logged < refusalsLogged {
		l.logged++
		l.log.Warn("order refused by the api", "client_order_id", p.ref, "code", string(code), "detail", a.Problem.what())
	}
}

// cancelled books the API's answer to a cancellation.
func (l *ledger) cancelled(d due, out cancelOutcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch out {
	case cancelDone:
		l.sum.Cancelled++
	case cancelBefore:
		l.sum.CancelledBefore++
	case cancelRefused:
		l.sum.CancellationsIgnored[CancelRefused]++
		l.log.Warn("cancellation refused by the api", "cancellation", d.item.ref, "order_id", d.orderID)
	}
}

// summary is a copy of the books as they stand.
func (l *ledger) summary() Summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sum.clone()
	s.Duration = time.Since(l.started)
	return s
}
