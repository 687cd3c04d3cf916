package lag

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// logKey names a topic partition.
type logKey struct {
	topic     string
	partition int32
}

func (k logKey) String() string { return fmt.Sprintf("%s[%d]", k.topic, k.partition) }

// topicID is the broker's own id of a topic, which a topic made anew under the
// old name does not share.
type topicID = [16]byte

// topic is what the brokers' metadata says of a topic that exists.
type topic struct {
	id         topicID
	partitions int32
	err        error // why it cannot be read, nil if it can
}

// reading is what the brokers answered in one cycle, from which all figures in
// records follow without asking anybody again.
type reading struct {
	cluster string
	at      time.Time // when the commits had been read
	groups  map[string]*group
	topics  map[string]topic
	logs    map[logKey]logRead
}

// group is what its coordinator said of one group.
type group struct {
	Group
	topics map[string]bool // that its members subscribe to or are assigned

	commits map[logKey]int64
	broken  map[logKey]error // commits that could not be read
	unread  bool             // no commit could be read
}

// logRead is the extent of a log, or why it is unknown.
type logRead struct {
	Log
	leader int32 // the broker that answered
	err    error
}

// partitions works out every group's place in every partition it reads. A
// topic that a group has committed to, subscribes to or is assigned counts
// with all its partitions; a topic that no longer exists does not count.
func (r *reading) partitions() []Partition {
	var all []Partition
	for _, name := range slices.Sorted(maps.Keys(r.groups)) {
		g := r.groups[name]
		if g.unread {
			continue // nobody knows which partitions these would be
		}
		for _, read := range g.reads() {
			all = r.appendPlaces(all, g, read)
		}
	}
	return all
}

// reads lists the topics of a group, by name.
func (g *group) reads() []string {
	topics := maps.Clone(g.topics)
	if topics == nil {
		topics = map[string]bool{}
	}
	for k := range g.commits {
		topics[k.topic] = true
	}
	return slices.Sorted(maps.Keys(topics))
}

func (r *reading) appendPlaces(all []Partition, g *group, name string) []Partition {
	t, exists := r.topics[name]
	if !exists {
		return all
	}
	for part := range t.partitions {
		key := logKey{name, part}
		l := r.logs[key]
		if gone(l.err) {
			continue
		}
		p := Partition{Group: g.Name, Topic: name, Partition: part, Committed: NoCommit}
		if offset, ok := g.commits[key]; ok {
			p.Committed = offset
		}
		switch {
		case t.err != nil:
			p.Problem = "read topic: " + t.err.Error()
		case g.broken[key] != nil:
			p.Problem = "fetch offset: " + g.broken[key].Error()
		case l.err != nil:
			p.Problem = "list offsets: " + l.err.Error()
		default:
			p.measure(l.Log)
		}
		all = append(all, p)
	}
	return all
}

// measure works out the figures in records.
func (p *Partition) measure(l Log) {
	p.Known = true
	p.Start, p.Stable, p.End = l.Start, l.Stable, l.End
	at := p.Position()
	p.LagRecords = max(0, p.Stable-at)
	p.LagEndRecords = max(0, p.End-at)
	if p.HasCommit() {
		p.LostRecords = max(0, p.Start-p.Committed)
		p.AheadRecords = max(0, p.Committed-p.End)
	}
}

// extents lists the logs whose bounds are known, by topic and partition.
func (r *reading) extents() []Log {
	var all []Log
	for _, l := range r.logs {
		if l.err == nil {
			all = append(all, l.Log)
		}
	}
	slices.SortFunc(all, func(a, b Log) int {
		return compareLogs(logKey{a.Topic, a.Partition}, logKey{b.Topic, b.Partition})
	})
	return all
}

// newLog makes a Log of three answers given one after the other. Between them
// a log only grows at its end and shrinks at its start, so whatever is out of
// order is due to that.
func newLog(key logKey, start, stable, end int64) Log {
	stable = max(start, stable)
	return Log{Topic: key.topic, Partition: key.partition, Start: start, Stable: stable, End: max(stable, end)}
}

// gone says that a topic or partition does not exist, which is an answer and
// no failure.
func gone(err error) bool {
	return errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// described lists the groups, by name.
func (r *reading) described() []Group {
	all := make([]Group, 0, len(r.groups))
	for _, name := range slices.Sorted(maps.Keys(r.groups)) {
		all = append(all, r.groups[name].Group)
	}
	return all
}
