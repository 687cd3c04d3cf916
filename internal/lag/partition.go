package lag

import "time"

// NoCommit is the Committed of a partition for which the group has committed
// nothing yet.
const NoCommit = -1

// Partition is one group's place in one topic partition.
type Partition struct {
	Group     string
	Topic     string
	Partition int32

	// Committed is the offset of the record the group reads next, as stored in
	// Kafka, or NoCommit.
	Committed int64
	// Start, Stable and End are the bounds of the log, as in Log.
	Start, Stable, End int64

	// LagRecords is how many offsets lie between the group and the last
	// stable offset, not counting what retention took. It is 0 as well where
	// all that remains is known to be aborted or a transaction's marker, which
	// no reader of committed records ever sees.
	LagRecords int64
	// LagEndRecords is the same up to the high watermark, so it counts open
	// transactions, aborted records and markers.
	LagEndRecords int64
	// LagSeconds is the age of the record that the group reads next, 0 when it
	// has read everything.
	LagSeconds float64
	// LostRecords is how many offsets retention took before the group read
	// them.
	LostRecords int64
	// AheadRecords is how far the commit lies beyond the end of the log: the
	// topic was made anew, or lost its tail. The group reads nothing until the
	// log has grown past it.
	AheadRecords int64
	// LastProgress is when the group was last seen to move its commit or to
	// have read everything. A collector that has just begun has seen nothing
	// earlier than its first cycle.
	LastProgress time.Time

	// Known says that the bounds and all figures in records were read; if not,
	// they are 0 and Problem says why.
	Known bool
	// SecondsKnown says the same of LagSeconds. It is false while no timestamp
	// could be had within the limits of a cycle.
	SecondsKnown bool
	// Problem is why something is unknown, "" when nothing is.
	Problem string
}

// HasCommit says whether the group has committed an offset.
func (p Partition) HasCommit() bool { return p.Committed >= 0 }

// Position is where the group's next read begins: its commit, or the start of
// the log when it has none or retention has passed it.
func (p Partition) Position() int64 { return max(p.Committed, p.Start) }

// Headroom is how far the group is from losing records to retention: 1 at the
// end of the log, 0 when the next record to be deleted is one it has not read.
// It is unknown without a commit, since nothing says yet where the group begins.
func (p Partition) Headroom() (ratio float64, known bool) {
	if !p.Known || !p.HasCommit() {
		return 0, false
	}
	if p.End == p.Start {
		return 1, true
	}
	ratio = float64(p.Committed-p.Start) / float64(p.End-p.Start)
	return min(1, max(0, ratio)), true
}
