package verify

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/consumers"
	"orderflow/internal/kafka"
)

// partition is one partition of the log while it is read.
type partition struct {
	check *check
	topic *topic
	id    int32
	// start, stable and end are the log's start, last stable offset and high
	// watermark, read in this order after the checkpoint.
	start, stable, end int64
	published          uint64 // n of the source's last event, by the checkpoint

	reached int64
	numbers map[string]*numbers // by source
	// expired is how many events of the source left the log before its start,
	// at most; unlimited when an earlier life of the database is gone.
	expired int64
	missing int64 // rows that the log does not hold; counted by match

	count, hash int64 // of the events read so far, as a group would count them
	marks       []mark
	passed      int // marks behind reached
}

// mark is where a group stands: the count and hash up to there are kept.
type mark struct {
	group       int
	position    *consumers.Position
	count, hash int64
	beyond      bool // the log ends before the position
}

// numbers is the relay's numbering of one source in one partition.
type numbers struct {
	incarnation uint32
	n           uint64
}

const unlimited = int64(1) << 62

// truncated tells that events have expired from the log.
func (p *partition) truncated() bool { return p.start > 0 }

// readLog reads every partition that is compared.
func (c *check) readLog(ctx context.Context) error {
	var parts []*partition
	var spans []*span
	for _, t := range c.topics.list {
		if t.compacted {
			continue
		}
		for _, p := range t.parts {
			parts = append(parts, p)
			if !p.complete() {
				spans = append(spans, &span{topic: t.name, id: p.id, from: p.start, see: p.see})
			}
		}
	}
	if err := c.read(ctx, spans); err != nil {
		return err
	}
	for _, p := range parts {
		p.finish()
	}
	return nil
}

// complete tells whether enough is read: everything that was committed when
// the bounds were taken, and everything that the checkpoint covers. The
// markers that commit a transaction are written to its partitions one after
// the other, so the checkpoint can be readable a moment before the events are.
func (p *partition) complete() bool {
	if p.reached < p.stable {
		return false
	}
	own := p.numbers[p.check.cfg.Source]
	covered := p.published == 0 || own != nil && own.incarnation == p.check.checkpoint.Incarnation && own.n >= p.published
	return covered || p.reached >= p.end
}

// see takes the next record. One behind the end is newer than the outbox is
// going to be read, and only tells that the end was reached.
func (p *partition) see(r *kgo.Record) (last bool, err error) {
	p.pass(r.Offset)
	p.reached = r.Offset + 1
	if !r.Attrs.IsControl() && r.Offset < p.end {
		err = p.take(r)
	}
	return p.complete(), err
}

// pass settles the marks at or before an offset.
func (p *partition) pass(offset int64) {
	for p.passed < len(p.marks) && p.marks[p.passed].position.NextOffset <= offset {
		p.marks[p.passed].count, p.marks[p.passed].hash = p.count, p.hash
		p.passed++
	}
}

// finish settles what the last record leaves open.
func (p *partition) finish() {
	p.pass(p.reached)
	for i := p.passed; i < len(p.marks); i++ {
		p.marks[i].count, p.marks[i].hash, p.marks[i].beyond = p.count, p.hash, true
	}
	own, cp := p.numbers[p.check.cfg.Source], &p.check.checkpoint
	last := uint64(0)
	if own != nil && own.incarnation == cp.Incarnation {
		last = own.n
	}
	switch {
	case last >= p.published:
	case own == nil && p.truncated():
		p.expired = int64(p.published)
	default:
		p.check.report.NumberGaps.add(int64(p.published-last), p.place(uuid.Nil, p.reached,
			"the log ends with n=%d, the checkpoint says %d", last, p.published))
	}
}

func (p *partition) place(id uuid.UUID, offset int64, note string, args ...any) Place {
	return Place{EventID: idText(id), Topic: p.topic.name, Partition: p.id, Offset: offset, Note: fmt.Sprintf(note, args...)}
}

// take checks a record by itself and keeps it for the comparison.
func (p *partition) take(r *kgo.Record) error {
	c := p.check
	p.count++
	id, pos, err := identify(r)
	if err != nil {
		c.report.Unreadable.add(1, p.place(id, r.Offset, "%v", err))
		return nil
	}
	if p.passed < len(p.marks) { // nobody asks for the hash beyond
		p.hash += consumers.EventHash(id)
	}
	p.follow(id, pos, r.Offset)
	if pos.Source != c.cfg.Source {
		c.report.Log.OtherSources++
		return nil
	}
	t := tuple{id: id, aggregate: c.hash.digest(r.Key), offset: r.Offset, partition: p.id, topic: p.topic.index}
	if pos.Incarnation < c.checkpoint.Incarnation || pos.Incarnation == c.checkpoint.Incarnation && pos.N <= p.published {
		t.flags = covered
	}
	return c.records.add(c.hash.id(id), &t)
}

// identify reads a record's id and number.
func identify(r *kgo.Record) (id uuid.UUID, pos kafka.Position, err error) {
	var idText, position []byte
	for _, h := range r.Headers {
		switch h.Key {
		case kafka.HeaderID:
			idText = h.Value
		case kafka.HeaderPosition:
			position = h.Value
		}
	}
	if id, err = uuid.ParseBytes(idText); err != nil {
		return id, pos, fmt.Errorf("header %s is no event id: %w", kafka.HeaderID, err)
	}
	if pos, err = kafka.ParsePosition(position); err != nil {
		return id, pos, fmt.Errorf("header %s: %w", kafka.HeaderPosition, err)
	}
	return id, pos, nil
}

// follow checks a number against the last one of its source.
func (p *partition) follow(id uuid.UUID, pos kafka.Position, offset int64) {
	last := p.numbers[pos.Source]
	if last == nil {
		last = &numbers{incarnation: pos.Incarnation}
		p.numbers[pos.Source] = last
		if p.truncated() {
			p.begin(pos)
			last.n = pos.N - 1
		}
	}
	if pos.Incarnation > last.incarnation {
		last.incarnation, last.n = pos.Incarnation, 0
	}
	r := &p.check.report
	switch {
	case pos.AtLeastOnce: // may be repeated; the version guard is for that
		last.n = max(last.n, pos.N)
		return
	case pos.Incarnation < last.incarnation:
		r.NumberRepeats.add(1, p.place(id, offset, "incarnation %d after %d", pos.Incarnation, last.incarnation))
		return
	case pos.N <= last.n:
		r.NumberRepeats.add(1, p.place(id, offset, "n=%d after %d", pos.N, last.n))
		return
	case pos.N > last.n+1:
		r.NumberGaps.add(int64(pos.N-last.n-1), p.place(id, offset, "n=%d after %d", pos.N, last.n))
	}
	last.n = pos.N
}

// begin learns from the first number in a truncated log what came before.
func (p *partition) begin(first kafka.Position) {
	if first.Source != p.check.cfg.Source {
		return
	}
	p.expired = int64(first.N - 1)
	if first.Incarnation > 1 {
		p.expired = unlimited
	}
}
