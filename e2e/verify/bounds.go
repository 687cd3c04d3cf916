package verify

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"

	"orderflow/schemas"
)

// topic is a topic of either side.
type topic struct {
	index uint16
	name  string
	// pinned is the number of partitions that keys are spread over; 0 where
	// Kafka does not know the topic.
	pinned int32
	// compacted topics lose records by design, so they are not compared.
	compacted bool
	parts     []*partition

	rows int64 // published rows; counted by the reader of the outbox
}

// part finds a partition; nil where Kafka has none.
func (t *topic) part(id int32) *partition {
	if id < 0 || int(id) >= len(t.parts) {
		return nil
	}
	return t.parts[id]
}

// topicTable knows topics by name and index. After findBounds only the reader
// of the outbox adds to it, until both sides are read.
type topicTable struct {
	list   []*topic
	byName map[string]*topic
}

func newTopicTable() *topicTable { return &topicTable{byName: map[string]*topic{}} }

func (tt *topicTable) named(name string) (*topic, error) {
	if t, ok := tt.byName[name]; ok {
		return t, nil
	}
	if len(tt.list) > 1<<16-1 {
		return nil, fmt.Errorf("more than %d topics: somebody writes ids into the topic's name", len(tt.list))
	}
	t := &topic{index: uint16(len(tt.list)), name: name}
	tt.list = append(tt.list, t)
	tt.byName[name] = t
	return t, nil
}

// findBounds lists the topics and up to where each partition is read. It comes
// after the checkpoint: what that covers lies below the ends.
func (c *check) findBounds(ctx context.Context) error {
	ctx, _, stop := waitFor(ctx, "the ends of the log", c.cfg.Patience)
	defer stop()
	names := c.topicNames()
	adm := kadm.NewClient(c.client)
	var lists [3]map[string]map[int32]int64
	for i, list := range []func(context.Context, ...string) (kadm.ListedOffsets, error){
		adm.ListStartOffsets, adm.ListCommittedOffsets, adm.ListEndOffsets,
	} {
		var err error
		if lists[i], err = listOffsets(ctx, list, names...); err != nil {
			return causeOf(ctx, err)
		}
	}
	compacted := compactedTopics()
	for _, name := range names {
		t, err := c.topics.named(name)
		if err != nil {
			return err
		}
		t.compacted = compacted[name]
		if err := c.addPartitions(t, lists[0][name], lists[1][name], lists[2][name]); err != nil {
			return err
		}
	}
	c.addMarks()
	return nil
}

// topicNames are the topics that a relay of this platform writes, that this
// one has written, and that the groups read.
func (c *check) topicNames() []string {
	names := map[string]bool{}
	for _, t := range schemas.Topics() {
		names[t.Name] = true
	}
	for name := range c.checkpoint.Published {
		names[name] = true
	}
	for _, g := range c.groups {
		for _, name := range g.Topics {
			names[name] = true
		}
		for _, p := range g.positions {
			names[p.Topic] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

func compactedTopics() map[string]bool {
	compacted := map[string]bool{}
	for _, t := range schemas.Topics() {
		compacted[t.Name] = t.Config["cleanup.policy"] == "compact"
	}
	return compacted
}

func (c *check) addPartitions(t *topic, starts, stables, ends map[int32]int64) error {
	published := c.checkpoint.Published[t.name]
	t.pinned = int32(len(ends))
	if len(published) > 0 {
		t.pinned = int32(len(published)) // what the relay spread the keys over
	}
	for id := range int32(len(ends)) {
		start, ok1 := starts[id]
		stable, ok2 := stables[id]
		end, ok3 := ends[id]
		if !ok1 || !ok2 || !ok3 {
			return fmt.Errorf("list offsets of %s: no answer for partition %d", t.name, id)
		}
		p := &partition{
			check: c, topic: t, id: id, start: start, stable: stable, end: end,
			reached: start, numbers: map[string]*numbers{},
		}
		if int(id) < len(published) {
			p.published = published[id]
		}
		t.parts = append(t.parts, p)
	}
	return nil
}

// addMarks notes in each partition where the groups' counts are taken.
func (c *check) addMarks() {
	for g, group := range c.groups {
		for i := range group.positions {
			pos := &group.positions[i]
			if p := c.topics.byName[pos.Topic].part(pos.Partition); p != nil {
				p.marks = append(p.marks, mark{group: g, position: pos})
			}
		}
	}
	for _, t := range c.topics.list {
		for _, p := range t.parts {
			slices.SortStableFunc(p.marks, func(a, b mark) int {
				return cmp.Compare(a.position.NextOffset, b.position.NextOffset)
			})
			if n := len(p.marks); n > 0 {
				// After a change of leader the last stable offset can be below
				// what was read before, for a moment.
				p.stable = max(p.stable, min(p.marks[n-1].position.NextOffset, p.end))
			}
		}
	}
}

// makeRoom cuts the temporary files by what is to be read at most.
func (c *check) makeRoom(ctx context.Context) error {
	ctx, _, stop := waitFor(ctx, "the outbox", c.cfg.Patience)
	defer stop()
	var rows, records int64
	err := c.cfg.DB.QueryRow(ctx, `SELECT coalesce(max(seq) - min(seq) + 1, 0) FROM outbox.events`).Scan(&rows)
	if err != nil {
		return causeOf(ctx, fmt.Errorf("look at the outbox: %w", err))
	}
	for _, t := range c.topics.list {
		for _, p := range t.parts {
			records += p.end - p.start
		}
	}
	if err := checkSpace(c.cfg.TempDir, rows, records); err != nil {
		return err
	}
	c.space = sizesFor(max(rows, records))
	for _, s := range []**spill{&c.rows, &c.records, &c.ordered} {
		if *s, err = newSpill(c.cfg.TempDir, c.space); err != nil {
			return err
		}
	}
	return nil
}
