package verify

import (
	"context"
	"fmt"

	"github.com/google/uuid"
)

// match compares the two sides event by event, and hands the records on with
// the versions of their rows. The outbox's version is taken, not the
// envelope's in the record: it is the one the order was promised for, and
// reading the envelope would need each writer's schema from the registry.
func (c *check) match(ctx context.Context) error {
	m := matcher{check: c, index: map[uuid.UUID]int32{}}
	for n := range c.space.buckets {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := m.bucket(n); err != nil {
			return err
		}
	}
	return c.ordered.seal()
}

// matcher compares bucket by bucket; its memory serves every bucket.
type matcher struct {
	check   *check
	rows    []tuple
	records []tuple
	index   map[uuid.UUID]int32 // into pairs
	pairs   []pair
}

// pair is what the two sides hold of one event id. Ids are compared as a
// multiset: an id that was committed twice has to be published twice.
type pair struct {
	row                   int32 // the first of them
	rows, coveredRows     int32
	records, coveredFound int32
}

func (m *matcher) bucket(n int) (err error) {
	if m.rows, err = m.check.rows.load(n, m.rows); err != nil {
		return err
	}
	if m.records, err = m.check.records.load(n, m.records); err != nil {
		return err
	}
	clear(m.index)
	m.pairs = m.pairs[:0]
	for i := range m.rows {
		m.takeRow(i)
	}
	for i := range m.records {
		if err := m.takeRecord(&m.records[i]); err != nil {
			return err
		}
	}
	for i := range m.pairs {
		if p := &m.pairs[i]; p.coveredFound < p.coveredRows {
			m.miss(&m.rows[p.row], int64(p.coveredRows-p.coveredFound))
		}
	}
	return nil
}

func (m *matcher) takeRow(i int) {
	row := &m.rows[i]
	at, ok := m.index[row.id]
	if !ok {
		at = int32(len(m.pairs))
		m.index[row.id] = at
		m.pairs = append(m.pairs, pair{row: int32(i)})
	} else {
		m.check.report.RepeatedRows.add(1, m.check.place(row, "the outbox holds this id more than once"))
	}
	p := &m.pairs[at]
	p.rows++
	if row.has(covered) {
		p.coveredRows++
	}
}

func (m *matcher) takeRecord(r *tuple) error {
	report := &m.check.report
	at, ok := m.index[r.id]
	if !ok {
		report.Phantoms.add(1, m.check.place(r, ""))
		r.flags |= unversioned
		return m.check.ordered.add(r.aggregate[0], r)
	}
	p := &m.pairs[at]
	p.records++
	if p.records > p.rows {
		report.Duplicated.add(1, m.check.place(r, ""))
		return nil
	}
	if r.has(covered) {
		if p.coveredFound++; p.coveredFound > p.coveredRows {
			report.Early.add(1, m.check.place(r, "the checkpoint counts the record and its point not the row: it will be published again"))
		}
	}
	row := &m.rows[p.row]
	r.version = row.version
	if fault := m.misplaced(row, r); fault != "" {
		report.Misplaced.add(1, m.check.place(r, "%s", fault))
		// Its place in the log says nothing; it takes that of its version.
		r.flags |= unversioned
		r.topic, r.aggregate = row.topic, row.aggregate
	}
	return m.check.ordered.add(r.aggregate[0], r)
}

// misplaced says how a record's place differs from where its row belongs.
func (m *matcher) misplaced(row, r *tuple) string {
	switch {
	case row.topic != r.topic:
		return "the outbox has it for topic " + m.check.topics.list[row.topic].name
	case row.aggregate != r.aggregate:
		return "its key is not the outbox's"
	case row.partition != r.partition:
		return fmt.Sprintf("its key belongs to partition %d", row.partition)
	}
	return ""
}

// miss counts a published row that is not in the log. Where the log's
// beginning has expired, as many may be missing as were numbered before it.
func (m *matcher) miss(row *tuple, n int64) {
	p := m.check.topics.list[row.topic].part(row.partition)
	if p != nil && p.expired > p.missing {
		p.missing += n
		return
	}
	note := ""
	if p != nil {
		p.missing += n
		if p.truncated() {
			note = "this event, or another of the partition in its place: the log's beginning has expired"
		}
	}
	m.check.report.Missing.add(n, m.check.place(row, "%s", note))
}
