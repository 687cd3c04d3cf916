package relay

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/internal/kafka"
	"orderflow/schemas"
)

// memLog is a model of Kafka's transactional log for one source. It fails,
// delays and fences by plan, never by accident.
type memLog struct {
	mu         sync.Mutex // protects all below
	rand       *rand.Rand
	epoch      int // of the newest session; older ones are fenced
	committed  []*kgo.Record
	checkpoint *Checkpoint
	faults     int  // how many more may be injected
	outside    bool // control: the checkpoint is not part of the transaction
}

var errInjected = errors.New("injected")

// chance spends a fault with probability p.
func (m *memLog) chance(p float64) bool {
	if m.faults > 0 && m.rand.Float64() < p {
		m.faults--
		return true
	}
	return false
}

func (m *memLog) truncate(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.committed, m.checkpoint = m.committed[:len(m.committed)-n], nil
}

// gated is a session of one relay process; gate stands still while the
// process is frozen.
type gated struct {
	log  *memLog
	gate *gate
}

func (g gated) open(ctx context.Context) (session, error) {
	g.gate.pass()
	m := g.log
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.chance(0.1) {
		return nil, errInjected
	}
	m.epoch++
	return &memSession{log: m, gate: g.gate, epoch: m.epoch}, nil
}

type memSession struct {
	log   *memLog
	gate  *gate
	epoch int

	mu      sync.Mutex // protects pending
	pending []*kgo.Record
	broken  bool
}

func (s *memSession) checkpoint(context.Context) (*Checkpoint, error) {
	s.gate.pass()
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	if s.log.checkpoint == nil {
		return nil, nil
	}
	c := *s.log.checkpoint
	return &c, nil
}

func (s *memSession) partitions(context.Context, string) (int32, error) { return 3, nil }

func (s *memSession) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = nil
	return nil
}

func (s *memSession) produce(_ context.Context, r *kgo.Record, done func(*kgo.Record, error)) {
	s.gate.pass()
	s.log.mu.Lock()
	fenced, failed, late := s.epoch != s.log.epoch, s.log.chance(0.01), s.log.rand.IntN(4) == 0
	s.log.mu.Unlock()
	clone := *r // the relay uses the memory again
	clone.Key, clone.Value = append([]byte(nil), r.Key...), append([]byte(nil), r.Value...)
	clone.Headers = nil
	for _, h := range r.Headers {
		clone.Headers = append(clone.Headers, kgo.RecordHeader{Key: h.Key, Value: append([]byte(nil), h.Value...)})
	}
	s.mu.Lock()
	var err error
	switch {
	case fenced:
		err = kerr.InvalidProducerEpoch
	case failed || s.broken:
		err, s.broken = errInjected, true
	default:
		s.pending = append(s.pending, &clone)
	}
	s.mu.Unlock()
	if late {
		go done(r, err)
		return
	}
	done(r, err)
}

// commit applies the pending records at once, or does not, and may leave the
// caller in doubt either way.
func (s *memSession) commit(context.Context) error {
	s.gate.pass()
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.log
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case s.epoch != m.epoch:
		return kerr.ProducerFenced
	case s.broken || m.chance(0.05):
		return errInjected
	}
	for _, r := range s.pending {
		if r.Topic != schemas.RelaysTopic {
			m.committed = append(m.committed, r)
		}
	}
	if m.outside && m.chance(0.2) {
		return errInjected // crash after the events, before the checkpoint
	}
	for _, r := range s.pending {
		if r.Topic == schemas.RelaysTopic {
			m.checkpoint, _ = decodeCheckpoint(r.Value)
		}
	}
	if m.chance(0.05) {
		return errInjected // committed, but the answer is lost
	}
	return nil
}

func (s *memSession) flush(context.Context) {}

func (s *memSession) close() {}

// gate lets a frozen process stand still at its next step.
type gate struct {
	mu   sync.Mutex // protects open
	open chan struct{}
}

func (g *gate) freeze(d time.Duration) {
	c := make(chan struct{})
	g.mu.Lock()
	g.open = c
	g.mu.Unlock()
	time.AfterFunc(d, func() { close(c) })
}

func (g *gate) pass() {
	g.mu.Lock()
	c := g.open
	g.mu.Unlock()
	if c != nil {
		<-c
	}
}

func position(r *kgo.Record) kafka.Position {
	for _, h := range r.Headers {
		if h.Key == kafka.HeaderPosition {
			p, _ := kafka.ParsePosition(h.Value)
			return p
		}
	}
	return kafka.Position{}
}
