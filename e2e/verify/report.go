package verify

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"orderflow/schemas"
)

// firstPlaces bounds how many places of each fault are named.
const firstPlaces = 20

// Report is what a run found. Counts are events unless said otherwise.
type Report struct {
	// Source is the outbox's name.
	Source string `json:"source"`
	// Checkpoint is the relay's restart point that was compared with.
	Checkpoint Checkpoint `json:"checkpoint"`
	Outbox     Outbox     `json:"outbox"`
	Log        Log        `json:"log"`

	// Missing rows are published by the checkpoint and not in Kafka.
	Missing Finding `json:"missing"`
	// Duplicated records are in Kafka more often than in the outbox.
	Duplicated Finding `json:"duplicated"`
	// Phantoms are in Kafka under this source's name and not in the outbox.
	Phantoms Finding `json:"phantoms"`
	// Early records are counted by a checkpoint whose point does not cover
	// their row.
	Early Finding `json:"early"`
	// RepeatedRows share their event id with another row of the outbox.
	RepeatedRows Finding `json:"repeated_rows"`
	// Misplaced records are in another topic or partition or under another
	// key than their row asks for.
	Misplaced Finding `json:"misplaced"`
	// Unreadable records have no event id or no position of a relay.
	Unreadable Finding `json:"unreadable"`
	// NumberGaps counts numbers that a partition lacks, NumberRepeats
	// records whose number is not above the one before.
	NumberGaps    Finding `json:"number_gaps"`
	NumberRepeats Finding `json:"number_repeats"`
	// VersionGaps counts versions that an aggregate lacks in a topic,
	// VersionRepeats events with a version that another has, Reordered
	// events that come behind a later version.
	VersionGaps    Finding `json:"version_gaps"`
	VersionRepeats Finding `json:"version_repeats"`
	Reordered      Finding `json:"reordered"`

	Groups []GroupReport `json:"groups"`
	// Unchecked says what could not be compared, such as what has expired.
	Unchecked []string `json:"unchecked"`
	// Seconds is how long the run took.
	Seconds float64 `json:"seconds"`
}

// Checkpoint tells how far the relay is.
type Checkpoint struct {
	// Number counts the source's transactions; 0 before the first.
	Number      int64  `json:"number"`
	Term        int64  `json:"term"`
	Incarnation uint32 `json:"incarnation"`
	// LostInKafka says that Kafka has no checkpoint or an older one than the
	// database has seen committed. The database's copy was compared with.
	LostInKafka bool `json:"lost_in_kafka"`
}

// Outbox counts rows.
type Outbox struct {
	Rows      int64 `json:"rows"`
	Published int64 `json:"published"`
	// Backlog rows are not published yet, as of the checkpoint.
	Backlog int64 `json:"backlog"`
}

// Log counts records.
type Log struct {
	Events int64 `json:"events"`
	// OtherSources are events that other relays published. Their numbers are
	// checked, and that groups applied them; their outbox is not at hand.
	OtherSources int64   `json:"other_sources"`
	Topics       []Topic `json:"topics"`
}

// Topic counts one topic's events.
type Topic struct {
	Topic      string `json:"topic"`
	Partitions int    `json:"partitions"`
	Events     int64  `json:"events"`
	// PublishedRows are the outbox's, for comparison.
	PublishedRows int64 `json:"published_rows"`
	// Expired rows were published and have left the log since.
	Expired int64 `json:"expired"`
}

// Finding is one kind of fault.
type Finding struct {
	Count int64 `json:"count"`
	// First holds the first places found, 20 at most.
	First []Place `json:"first,omitempty"`
}

func (f *Finding) add(n int64, p Place) {
	f.Count += n
	if len(f.First) < firstPlaces {
		f.First = append(f.First, p)
	}
}

// Place is where a fault is.
type Place struct {
	// EventID is empty where no event is there to be named.
	EventID   string `json:"event_id"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	// Offset is -1 for a row of the outbox.
	Offset int64  `json:"offset"`
	Note   string `json:"note,omitempty"`
}

func (c *check) place(t *tuple, note string, args ...any) Place {
	return Place{
		EventID: idText(t.id), Topic: c.topics.list[t.topic].name, Partition: t.partition, Offset: t.offset,
		Note: fmt.Sprintf(note, args...),
	}
}

func idText(id uuid.UUID) string {
	if id == uuid.Nil {
		return ""
	}
	return id.String()
}

// GroupReport compares one group's positions with the log.
type GroupReport struct {
	Group string `json:"group"`
	// OK says that each event below the positions was applied once.
	OK bool `json:"ok"`
	// Applied is what the positions count, Expected what the log holds below
	// them, both without the unchecked partitions.
	Applied  int64 `json:"applied"`
	Expected int64 `json:"expected"`
	// Waiting events lie behind the positions.
	Waiting int64 `json:"waiting"`
	// Held events were set aside and still are; Holds counts them by state,
	// Dead names the first dead letters.
	Held  int64            `json:"held"`
	Holds map[string]int64 `json:"holds"`
	Dead  []string         `json:"dead,omitempty"`
	// UncheckedPartitions have lost their beginning, so their counts cannot
	// be computed again; UncheckedApplied is what their positions count.
	UncheckedPartitions int   `json:"unchecked_partitions"`
	UncheckedApplied    int64 `json:"unchecked_applied"`
	// Mismatches are the first positions that differ, 20 at most.
	Mismatches []Mismatch `json:"mismatches,omitempty"`

	broken      int // positions that differ
	lost, twice int64
}

// Mismatch is a position that differs from the log.
type Mismatch struct {
	Topic      string `json:"topic"`
	Partition  int32  `json:"partition"`
	NextOffset int64  `json:"next_offset"`
	Applied    int64  `json:"applied"`
	Expected   int64  `json:"expected"`
	Found      string `json:"found"`
	// EventID names the event where the position is off by one.
	EventID string `json:"event_id,omitempty"`

	hash int64 // how far the hash is off
}

// faults lists the findings in the order of the table.
func (r *Report) faults() []fault {
	return []fault{
		{"missing in Kafka", &r.Missing},
		{"more than once in Kafka", &r.Duplicated},
		{"phantoms (in Kafka, not in the outbox)", &r.Phantoms},
		{"ahead of the checkpoint's point", &r.Early},
		{"ids repeated in the outbox", &r.RepeatedRows},
		{"in the wrong place", &r.Misplaced},
		{"unreadable", &r.Unreadable},
		{"numbers missing", &r.NumberGaps},
		{"numbers repeated", &r.NumberRepeats},
		{"versions missing", &r.VersionGaps},
		{"versions repeated", &r.VersionRepeats},
		{"out of order", &r.Reordered},
	}
}

type fault struct {
	name string
	*Finding
}

// OK reports whether everything that was compared is as it should be. Holds,
// backlog and waiting events do not count against it, nor does what Unchecked
// names.
func (r *Report) OK() bool {
	for _, f := range r.faults() {
		if f.Count > 0 {
			return false
		}
	}
	for i := range r.Groups {
		if !r.Groups[i].OK {
			return false
		}
	}
	return !r.Checkpoint.LostInKafka
}

// Lost counts events that are missing in Kafka, or that a group passed
// without applying them, once for each group.
func (r *Report) Lost() int64 {
	lost := r.Missing.Count
	for i := range r.Groups {
		lost += r.Groups[i].lost
	}
	return lost
}

// Twice counts events that are in Kafka again, or that a group applied again.
func (r *Report) Twice() int64 {
	twice := r.Duplicated.Count + r.RepeatedRows.Count
	for i := range r.Groups {
		twice += r.Groups[i].twice
	}
	return twice
}

// OutOfOrder counts events that come behind a later version of their
// aggregate, or have a version that was there before.
func (r *Report) OutOfOrder() int64 { return r.Reordered.Count + r.VersionRepeats.Count }

// Held counts events that groups have set aside.
func (r *Report) Held() int64 {
	var held int64
	for i := range r.Groups {
		held += r.Groups[i].Held
	}
	return held
}

// MarshalJSON adds the verdict to the fields.
func (r Report) MarshalJSON() ([]byte, error) {
	type fields Report
	return json.Marshal(struct {
		OK         bool  `json:"ok"`
		Lost       int64 `json:"lost"`
		Twice      int64 `json:"twice"`
		OutOfOrder int64 `json:"out_of_order"`
		Held       int64 `json:"held"`
		fields
	}{r.OK(), r.Lost(), r.Twice(), r.OutOfOrder(), r.Held(), fields(r)})
}

// finish sums up the topics.
func (r *Report) finish(c *check, took time.Duration) {
	r.Seconds = took.Seconds()
	for _, t := range c.topics.list {
		if t.name == schemas.RelaysTopic {
			continue
		}
		sum := Topic{Topic: t.name, Partitions: len(t.parts), PublishedRows: t.rows}
		truncated, used := 0, t.rows > 0
		for _, p := range t.parts {
			sum.Events += p.count
			sum.Expired += min(p.missing, p.expired)
			used = used || p.end > p.start
			if p.truncated() {
				truncated++
			}
		}
		switch {
		case t.compacted && used:
			r.Unchecked = append(r.Unchecked, fmt.Sprintf("%s is compacted: its events are not compared", t.name))
		case truncated > 0:
			r.Unchecked = append(r.Unchecked, fmt.Sprintf("%d of %d partitions of %s begin above offset 0: "+
				"%d published events have expired from them, and what groups applied there cannot be counted again",
				truncated, len(t.parts), t.name, sum.Expired))
		}
		r.Log.Events += sum.Events
		r.Log.Topics = append(r.Log.Topics, sum)
	}
}
