package lag

import (
	"slices"
	"time"
)

// Snapshot is what one cycle found. Everything in it belongs to its holder.
type Snapshot struct {
	// Cluster names the Kafka cluster: Config.Cluster, or the id that the
	// brokers report; "" while no broker has been reached.
	Cluster string
	// At is when the cycle had read the groups' commits, which is the moment
	// that LagSeconds counts back from. Zero before the first cycle.
	At time.Time
	// Took is how long the cycle took.
	Took time.Duration
	// Complete says that the cycle read everything it set out to read.
	Complete bool
	// Groups are the groups that exist, by name.
	Groups []Group
	// Partitions are what the groups read, by group, topic and partition.
	Partitions []Partition
	// Logs are the bounds of the partitions that some group reads, by topic
	// and partition. A partition whose bounds are unknown is not among them.
	Logs []Log
	// Errors say what could not be read, one per cause.
	Errors []error
}

// Group is a consumer group as its coordinator describes it.
type Group struct {
	Name string
	// Protocol is how the group divides its partitions: "classic" or
	// "consumer" (KIP-848); other kinds are named as the broker names them.
	Protocol string
	// State is the broker's word: Stable, Empty, PreparingRebalance,
	// CompletingRebalance, Assigning, Reconciling.
	State string
	// Members is how many consumers are in the group; MembersKnown says
	// whether that could be read.
	Members      int
	MembersKnown bool
}

// Log is the extent of one topic partition.
type Log struct {
	Topic     string
	Partition int32
	// Start is the offset of the oldest record that is still there.
	Start int64
	// Stable is the last stable offset: where the oldest open transaction
	// begins, or End. Readers of committed records get no further.
	Stable int64
	// End is the high watermark: the offset the next record will get.
	End int64
}

// Total is a group's lag over all its partitions.
type Total struct {
	Group string
	// Records is the sum of the partitions' lags. RecordsKnown is false when
	// one of them is unknown, and Records then the sum of the others, or when
	// the group has no partition.
	Records      int64
	RecordsKnown bool
	// Seconds is the lag of the partition that is furthest behind, and
	// SecondsKnown as RecordsKnown.
	Seconds      float64
	SecondsKnown bool
}

// Totals adds up each group's partitions, by group name.
func (s Snapshot) Totals() []Total {
	totals := make([]Total, len(s.Groups))
	at := make(map[string]int, len(s.Groups))
	for i, g := range s.Groups {
		totals[i].Group = g.Name
		at[g.Name] = i
	}
	seen := make([]bool, len(totals))
	for _, p := range s.Partitions {
		i, ok := at[p.Group]
		if !ok {
			continue
		}
		t := &totals[i]
		if !seen[i] {
			seen[i], t.RecordsKnown, t.SecondsKnown = true, true, true
		}
		t.Records += p.LagRecords
		t.RecordsKnown = t.RecordsKnown && p.Known
		t.Seconds = max(t.Seconds, p.LagSeconds)
		t.SecondsKnown = t.SecondsKnown && p.SecondsKnown
	}
	return totals
}

// clone copies what the Snapshot refers to.
func (s Snapshot) clone() Snapshot {
	s.Groups = slices.Clone(s.Groups)
	s.Partitions = slices.Clone(s.Partitions)
	s.Logs = slices.Clone(s.Logs)
	s.Errors = slices.Clone(s.Errors)
	return s
}
