package verify

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/consumers"
)

// settleGroups compares what each group says it applied with the log.
func (c *check) settleGroups(ctx context.Context) error {
	for n, g := range c.groups {
		r := GroupReport{Group: g.Name, Holds: g.holds}
		for _, held := range g.holds {
			r.Held += held
		}
		for _, id := range g.dead {
			r.Dead = append(r.Dead, id.String())
		}
		c.settlePositions(n, g, &r)
		r.Waiting = c.waiting(n, g)
		r.OK = r.broken == 0
		if err := c.findCulprits(ctx, &r); err != nil {
			return err
		}
		c.report.Groups = append(c.report.Groups, r)
	}
	return nil
}

func (c *check) settlePositions(n int, g *groupCheck, r *GroupReport) {
	for i := range g.positions {
		pos := &g.positions[i]
		t := c.topics.byName[pos.Topic]
		p := t.part(pos.Partition)
		switch {
		case t.compacted || p != nil && p.truncated():
			r.UncheckedPartitions++
			r.UncheckedApplied += pos.AppliedCount
			continue
		case p == nil:
			r.mismatch(Mismatch{
				Topic: pos.Topic, Partition: pos.Partition, NextOffset: pos.NextOffset,
				Applied: pos.AppliedCount, Found: "the log has no such partition",
			})
			continue
		}
		at := slices.IndexFunc(p.marks, func(m mark) bool { return m.group == n })
		r.compare(pos, &p.marks[at])
	}
}

// compare checks one position.
func (r *GroupReport) compare(pos *consumers.Position, m *mark) {
	r.Applied += pos.AppliedCount
	r.Expected += m.count
	miss := Mismatch{
		Topic: pos.Topic, Partition: pos.Partition, NextOffset: pos.NextOffset,
		Applied: pos.AppliedCount, Expected: m.count, hash: pos.AppliedHash - m.hash,
	}
	switch {
	case m.beyond:
		miss.Found = "the position is beyond the log's end: the log was truncated, or is another"
	case pos.AppliedCount < m.count:
		miss.Found = fmt.Sprintf("%d events were not applied", m.count-pos.AppliedCount)
		r.lost += m.count - pos.AppliedCount
	case pos.AppliedCount > m.count:
		miss.Found = fmt.Sprintf("%d events were applied twice", pos.AppliedCount-m.count)
		r.twice += pos.AppliedCount - m.count
	case pos.AppliedHash != m.hash:
		miss.Found = "as many events were applied, but not the same ones: at least one twice, and one not"
		r.lost++
		r.twice++
	default:
		return
	}
	r.mismatch(miss)
}

func (r *GroupReport) mismatch(m Mismatch) {
	r.broken++
	if len(r.Mismatches) < firstPlaces {
		r.Mismatches = append(r.Mismatches, m)
	}
}

// waiting counts the events behind the group's positions. A partition without
// a position waits as a whole.
func (c *check) waiting(n int, g *groupCheck) int64 {
	var waiting int64
	for _, name := range g.Topics {
		for _, p := range c.topics.byName[name].parts {
			waiting += p.count
			for i := range p.marks {
				if p.marks[i].group == n {
					waiting -= p.marks[i].count
				}
			}
		}
	}
	return waiting
}

// findCulprits names the event where a position is off by exactly one: then
// the hashes differ by that event's. It reads those partitions once more,
// which only a fault costs.
func (c *check) findCulprits(ctx context.Context, r *GroupReport) error {
	var spans []*span
	for i := range r.Mismatches {
		m := &r.Mismatches[i]
		off := m.Applied - m.Expected
		if off != 1 && off != -1 {
			continue
		}
		p := c.topics.byName[m.Topic].part(m.Partition)
		if p == nil || p.start >= m.NextOffset || m.NextOffset > p.reached {
			continue
		}
		spans = append(spans, &span{topic: m.Topic, id: m.Partition, from: p.start, see: func(rec *kgo.Record) (bool, error) {
			if id, _, err := identify(rec); err == nil && !rec.Attrs.IsControl() && consumers.EventHash(id)*off == m.hash {
				m.EventID = id.String()
				return true, nil
			}
			return rec.Offset+1 >= m.NextOffset, nil
		}})
	}
	return c.read(ctx, spans)
}
