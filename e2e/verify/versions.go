package verify

import (
	"cmp"
	"context"
	"math"
	"slices"
)

// followVersions checks each aggregate's versions in the order of the log:
// 1, 2, 3 ... without a hole or a repeat.
func (c *check) followVersions(ctx context.Context) error {
	var events []tuple
	for n := range c.space.buckets {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		var err error
		if events, err = c.ordered.load(n, events); err != nil {
			return err
		}
		slices.SortFunc(events, inLogOrder)
		for from := 0; from < len(events); {
			to := from + 1
			for to < len(events) && events[to].aggregate == events[from].aggregate && events[to].topic == events[from].topic {
				to++
			}
			if !unbroken(events[from:to]) {
				c.examine(events[from:to])
			}
			from = to
		}
	}
	return nil
}

// inLogOrder sorts by aggregate and topic, and within by place in the log.
func inLogOrder(a, b tuple) int {
	if a.aggregate[0] != b.aggregate[0] {
		return cmp.Compare(a.aggregate[0], b.aggregate[0])
	}
	return cmp.Or(cmp.Compare(a.aggregate[1], b.aggregate[1]), cmp.Compare(a.topic, b.topic),
		cmp.Compare(a.partition, b.partition), cmp.Compare(a.offset, b.offset))
}

func unbroken(events []tuple) bool {
	for i := range events {
		if events[i].has(unversioned) || events[i].version != int64(i)+1 {
			return false
		}
	}
	return true
}

// examine says what is wrong with one aggregate's versions in one topic, if
// anything is: an event without a known version takes the place of one.
func (c *check) examine(events []tuple) {
	first := c.firstVersion(events)
	highest, unknown := first-1, int64(0)
	var afterHole *tuple
	seen := make(map[int64]bool, len(events))
	for i := range events {
		e := &events[i]
		switch {
		case e.has(unversioned):
			unknown++
			continue
		case seen[e.version]:
			c.report.VersionRepeats.add(1, c.place(e, "version %d again", e.version))
			continue
		case e.version < highest:
			c.report.Reordered.add(1, c.place(e, "version %d after %d", e.version, highest))
		default:
			if e.version > highest+1 && afterHole == nil {
				afterHole = e
			}
			highest = e.version
		}
		seen[e.version] = true
	}
	if holes := highest - first + 1 - int64(len(seen)) - unknown; holes > 0 {
		c.report.VersionGaps.add(holes, c.place(afterHole, "version %d, and %d before it are not in the log", afterHole.version, holes))
	}
}

// firstVersion is 1, unless the log may have lost its beginning.
func (c *check) firstVersion(events []tuple) int64 {
	p := c.topics.list[events[0].topic].part(events[0].partition)
	if p == nil || !p.truncated() {
		return 1
	}
	first := int64(math.MaxInt64)
	for i := range events {
		if !events[i].has(unversioned) {
			first = min(first, events[i].version)
		}
	}
	return first
}
