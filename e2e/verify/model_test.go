package verify

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// event is what the model knows of a row or a record.
type event struct {
	id        int
	aggregate string
	version   int64
	covered   bool
}

// TestTheComparisonAgreesWithAModelOfIt draws rows and records that have ids
// and aggregates in common by chance, and counts the faults by hand.
func TestTheComparisonAgreesWithAModelOfIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		rows, records := drawWorld(t)
		c := compare(t, dir, rows, records)
		got := map[string]int64{}
		for _, f := range c.report.faults() {
			if f.Count > 0 {
				got[f.name] = f.Count
			}
		}
		if diff := cmp.Diff(model(rows, records), got); diff != "" {
			t.Fatalf("rows %+v\nrecords %+v\nfaults (-model +found):\n%s", rows, records, diff)
		}
	})
}

// drawWorld makes a well-behaved world and then damages it.
func drawWorld(t *rapid.T) (rows, records []event) {
	versions := map[string]int64{}
	for id := range rapid.IntRange(0, 30).Draw(t, "rows") {
		a := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "aggregate")
		versions[a]++
		rows = append(rows, event{id: id, aggregate: a, version: versions[a]})
	}
	published := rapid.IntRange(0, len(rows)).Draw(t, "published")
	covered := rapid.IntRange(0, published).Draw(t, "covered")
	for i := range covered {
		rows[i].covered = true
	}
	records = slices.Clone(rows[:published])
	for range rapid.IntRange(0, 3).Draw(t, "damages") {
		records = damageOne(t, records)
	}
	for range rapid.IntRange(0, 2).Draw(t, "damages of rows") {
		if len(rows) == 0 {
			break
		}
		i := rapid.IntRange(0, len(rows)-1).Draw(t, "row")
		if rapid.Bool().Draw(t, "delete it") {
			rows = slices.Delete(rows, i, i+1)
		} else {
			rows[i].version = int64(rapid.IntRange(1, 9).Draw(t, "version"))
		}
	}
	return rows, records
}

func damageOne(t *rapid.T, records []event) []event {
	if len(records) == 0 {
		return records
	}
	i, j := rapid.IntRange(0, len(records)-1).Draw(t, "i"), rapid.IntRange(0, len(records)-1).Draw(t, "j")
	switch rapid.SampledFrom([]string{"drop", "repeat", "swap", "invent"}).Draw(t, "damage") {
	case "drop":
		return slices.Delete(records, i, i+1)
	case "repeat":
		return slices.Insert(records, j, records[i])
	case "swap":
		records[i], records[j] = records[j], records[i]
	case "invent":
		records[i].id = 1000 + rapid.IntRange(0, 3).Draw(t, "id")
	}
	return records
}

// model counts faults without buckets, digests or files.
func model(rows, records []event) map[string]int64 {
	faults := map[string]int64{}
	byID := map[int]event{}
	for _, r := range rows {
		byID[r.id] = r
	}
	seen, counted := map[int]bool{}, map[int]bool{}
	inLog := map[string][]int64{} // versions by aggregate, 0 for unknown
	for _, r := range records {
		row, ok := byID[r.id]
		switch {
		case !ok:
			faults["phantoms (in Kafka, not in the outbox)"]++
			inLog[r.aggregate] = append(inLog[r.aggregate], 0)
		case seen[r.id]:
			faults["more than once in Kafka"]++
		default:
			if r.covered && !row.covered {
				faults["ahead of the checkpoint's point"]++
			}
			inLog[r.aggregate] = append(inLog[r.aggregate], row.version)
			counted[r.id] = r.covered
		}
		seen[r.id] = seen[r.id] || ok
	}
	for _, r := range rows {
		if r.covered && !counted[r.id] {
			faults["missing in Kafka"]++
		}
	}
	for _, versions := range inLog {
		modelVersions(versions, faults)
	}
	return faults
}

func modelVersions(versions []int64, faults map[string]int64) {
	highest, unknown, known := int64(0), int64(0), map[int64]bool{}
	for _, v := range versions {
		switch {
		case v == 0:
			unknown++
		case known[v]:
			faults["versions repeated"]++
		case v < highest:
			faults["out of order"]++
		}
		if v > 0 {
			known[v] = true
		}
		highest = max(highest, v)
	}
	holes := int64(0)
	for v := int64(1); v <= highest; v++ {
		if !known[v] {
			holes++
		}
	}
	if holes > unknown {
		faults["versions missing"] += holes - unknown
	}
}

// compare runs the real comparison over rows and records.
func compare(t *rapid.T, dir string, rows, records []event) *check {
	c := &check{hash: newHasher(), topics: newTopicTable(), space: sizes{buckets: 4, block: 3 * tupleSize}}
	topic, err := c.topics.named("topic")
	fatal(t, err)
	topic.parts = []*partition{{check: c, topic: topic}}
	for _, s := range []**spill{&c.rows, &c.records, &c.ordered} {
		*s, err = newSpill(dir, c.space)
		fatal(t, err)
		defer (*s).close()
	}
	for _, r := range rows {
		one := c.tuple(r, -1)
		one.version = r.version
		fatal(t, c.rows.add(c.hash.id(one.id), &one))
	}
	for i, r := range records {
		one := c.tuple(r, int64(i))
		fatal(t, c.records.add(c.hash.id(one.id), &one))
	}
	fatal(t, c.rows.seal())
	fatal(t, c.records.seal())
	fatal(t, c.match(t.Context()))
	fatal(t, c.followVersions(t.Context()))
	return c
}

func (c *check) tuple(e event, offset int64) tuple {
	one := tuple{
		id: uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, e.id)), aggregate: c.hash.digest([]byte(e.aggregate)), offset: offset,
	}
	if e.covered {
		one.flags = covered
	}
	return one
}

func fatal(t *rapid.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}
