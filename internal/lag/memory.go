package lag

import (
	"cmp"
	"slices"
	"time"
)

// memory is what a Collector keeps from one cycle to the next: when each group
// last moved, and the timestamps it has read already. Both shrink to what the
// latest complete cycle used, so they are as large as the groups' partitions.
type memory struct {
	cluster string
	cycle   int64
	places  map[placeKey]*place
	spots   map[spot]*finding
}

// placeKey names a group's place in a partition.
type placeKey struct {
	group string
	log   logKey
}

type place struct {
	committed int64
	progress  time.Time
	seen      int64 // cycle of the last sight
	lookedUp  int64 // cycle of the last look-up on its behalf
}

// spot is where a read of committed records begins. What it finds never
// changes, since records do not, unless retention or compaction takes it.
type spot struct {
	topic     topicID
	name      string // tells topics apart where brokers have no ids
	partition int32
	offset    int64
}

// finding is the first record at or after a spot.
type finding struct {
	found   bool
	at      time.Time // of the record, if found
	scanned int64     // the first offset not looked at yet, if not found
	seen    int64     // cycle of the last use
}

func newMemory() *memory {
	return &memory{places: map[placeKey]*place{}, spots: map[spot]*finding{}}
}

// lookup is one spot to look at, on behalf of every group that stands there.
type lookup struct {
	spot   spot
	leader int32
	until  int64 // the last stable offset: there is nothing to read from here on
	from   int64 // where the next read begins
	tried  bool  // a broker was asked
	err    error // why the look-up was given up
	places []*place
}

func (l *lookup) log() logKey { return l.spot.log() }

// begin opens a cycle.
func (m *memory) begin() { m.cycle++ }

// settle fills in the lag in seconds as far as the memory goes, and corrects
// the lag in records where nothing readable is left. It returns the spots that
// have to be looked at, those that have waited longest first and no more than
// limit.
func (m *memory) settle(r *reading, parts []Partition, limit int) []*lookup {
	open := map[spot]*lookup{}
	for i := range parts {
		p := &parts[i]
		at := r.spotOf(p)
		pl := m.placeOf(p)
		if m.age(p, at, r.at) {
			continue
		}
		l := open[at]
		if l == nil {
			l = &lookup{spot: at, leader: r.logs[at.log()].leader, until: p.Stable, from: p.Position()}
			if f := m.spots[at]; f != nil {
				l.from = max(l.from, f.scanned)
			}
			open[at] = l
		}
		l.places = append(l.places, pl)
	}
	todo := make([]*lookup, 0, len(open))
	for _, l := range open {
		todo = append(todo, l)
	}
	slices.SortFunc(todo, func(a, b *lookup) int {
		return cmp.Or(cmp.Compare(a.waiting(), b.waiting()), compareLogs(a.log(), b.log()),
			cmp.Compare(a.spot.offset, b.spot.offset))
	})
	return todo[:min(len(todo), limit)]
}

// age sets the lag in seconds and says whether that is settled: known, or not
// to be known because the lag in records is not.
func (m *memory) age(p *Partition, at spot, now time.Time) bool {
	if !p.Known {
		return true
	}
	if p.LagRecords == 0 {
		p.SecondsKnown = true
		return true
	}
	f := m.spots[at]
	if f == nil {
		return false
	}
	f.seen = m.cycle
	switch {
	case f.found && f.at.UnixMilli() < 0:
		p.Problem = "the next record has no timestamp"
	case f.found:
		p.LagSeconds, p.SecondsKnown = max(0, now.Sub(f.at).Seconds()), true
	case f.scanned >= p.Stable:
		p.LagRecords, p.SecondsKnown = 0, true
	default:
		return false
	}
	return true
}

// answer takes in what look-ups found and settles the partitions that waited
// for it. What is still open says why.
func (m *memory) answer(r *reading, parts []Partition, todo []*lookup) {
	failed := make(map[spot]error, len(todo))
	for _, l := range todo {
		failed[l.spot] = l.err
		for _, pl := range l.places {
			if l.tried {
				pl.lookedUp = m.cycle
			}
		}
	}
	for i := range parts {
		p := &parts[i]
		at := r.spotOf(p)
		if p.SecondsKnown || m.age(p, at, r.at) {
			continue
		}
		p.Problem = "the next record's timestamp has not been read yet"
		if err := failed[at]; err != nil {
			p.Problem = "read timestamp: " + err.Error()
		}
	}
}

// note records the first readable record after a spot, or, if none was found,
// that there is none below scanned.
func (m *memory) note(l *lookup, f finding) {
	f.seen = m.cycle
	m.spots[l.spot] = &f
}

// progress dates each partition's latest progress. It comes after the lag is
// settled.
func (m *memory) progress(r *reading, parts []Partition) {
	for i := range parts {
		p := &parts[i]
		pl := m.placeOf(p)
		moved := pl.progress.IsZero() || pl.committed != p.Committed || p.LagRecords == 0
		if p.Known && moved {
			pl.progress, pl.committed = r.at, p.Committed
		}
		p.LastProgress = pl.progress
	}
}

// forget drops what the cycle did not meet. Only a complete cycle may: in
// another, what was not met may still be there.
func (m *memory) forget() {
	for k, pl := range m.places {
		if pl.seen != m.cycle {
			delete(m.places, k)
		}
	}
	for k, f := range m.spots {
		if f.seen != m.cycle {
			delete(m.spots, k)
		}
	}
}

func (m *memory) placeOf(p *Partition) *place {
	key := placeKey{p.Group, logKey{p.Topic, p.Partition}}
	pl := m.places[key]
	if pl == nil {
		pl = &place{committed: p.Committed}
		m.places[key] = pl
	}
	pl.seen = m.cycle
	return pl
}

func (r *reading) spotOf(p *Partition) spot {
	return spot{topic: r.topics[p.Topic].id, name: p.Topic, partition: p.Partition, offset: p.Position()}
}

func (s spot) log() logKey { return logKey{s.name, s.partition} }

// waiting is the cycle since which a group has waited at this spot.
func (l *lookup) waiting() int64 {
	longest := l.places[0].lookedUp
	for _, pl := range l.places {
		longest = min(longest, pl.lookedUp)
	}
	return longest
}

func compareLogs(a, b logKey) int {
	return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.partition, b.partition))
}
