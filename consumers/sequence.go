package consumers

import (
	"maps"

	"orderflow/internal/kafka"
)

// numbered is the last number seen of one source in one partition.
type numbered struct {
	incarnation uint32
	n           uint64
}

// sequence is the self-check of one partition: the last number of each source.
// In a committed log the numbers of a source have no hole and no repeat, so
// one that does not follow means that events were lost or written twice.
type sequence map[string]numbered

// check returns nil when pos is the next number of its source, and notes it.
// The first record of a source is taken as it is: what came before it may have
// left the log long ago. A higher incarnation, which a restored database
// begins, starts at 1.
func (s sequence) check(pos kafka.Position) *stopError {
	last, known := s[pos.Source]
	want := uint64(0)
	switch {
	case !known:
		want = pos.N
	case pos.Incarnation > last.incarnation:
		want = 1
	case pos.Incarnation == last.incarnation:
		want = last.n + 1
	default:
		return &stopError{reason: stopIncarnation, source: pos.Source, err: stopf(stopIncarnation,
			"source %q is at incarnation %d, found incarnation %d, n=%d: "+
				"a relay on an old copy of the database is publishing", pos.Source, last.incarnation, pos.Incarnation, pos.N)}
	}
	if pos.N != want {
		return misnumbered(pos, want)
	}
	s.note(pos)
	return nil
}

func (s sequence) note(pos kafka.Position) { s[pos.Source] = numbered{pos.Incarnation, pos.N} }

func misnumbered(pos kafka.Position, want uint64) *stopError {
	var e *stopError
	if pos.N > want {
		e = stopf(stopSequenceGap, "source %q, incarnation %d: expected n=%d, found n=%d: %d events are missing from the log",
			pos.Source, pos.Incarnation, want, pos.N, pos.N-want)
	} else {
		e = stopf(stopSequenceRepeat, "source %q, incarnation %d: expected n=%d, found n=%d again: the log holds events twice",
			pos.Source, pos.Incarnation, want, pos.N)
	}
	e.source = pos.Source
	return e
}

func (s sequence) clone() sequence { return maps.Clone(s) }
