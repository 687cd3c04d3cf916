package lag

import (
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// requests counts what was asked of Kafka.
type requests struct {
	mu     sync.Mutex
	counts map[request]uint64 // protected by mu
}

type request struct{ api, code string }

func newRequests() *requests { return &requests{counts: map[request]uint64{}} }

func (r *requests) add(api, code string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[request{api, code}]++
}

func (r *requests) all() map[request]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.counts)
}

// The labels of the series.
var (
	ofCluster   = []string{"cluster"}
	ofGroup     = []string{"cluster", "group", "protocol"}
	ofTopic     = []string{"cluster", "group", "topic"}
	ofPartition = []string{"cluster", "group", "topic", "partition"}
	ofLog       = []string{"cluster", "topic", "partition"}
)

func desc(name, help string, labels []string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc("orderflow_"+name, help, slices.Concat(labels, more), nil)
}

var (
	lagRecords = desc("consumer_group_lag_records",
		"Offsets between the group and the last stable offset, 0 when all that is left is aborted or a marker.", ofPartition)
	lagHWMRecords = desc("consumer_group_lag_hwm_records",
		"Offsets between the group and the high watermark.", ofPartition)
	lagSeconds = desc("consumer_group_lag_seconds",
		"Age of the record that the group reads next, 0 when it has read everything.", ofPartition)
	committedOffset = desc("consumer_group_committed_offset",
		"Offset that the group has committed.", ofPartition)
	lostRecords = desc("consumer_group_lost_records",
		"Offsets that retention took before the group read them.", ofPartition)
	aheadRecords = desc("consumer_group_ahead_records",
		"Offsets by which the group's commit lies beyond the end of the log, which was made anew or cut.", ofPartition)
	headroomRatio = desc("consumer_group_retention_headroom_ratio",
		"Place of the commit in the log: 1 at its end, 0 when retention takes unread records next.", ofPartition)
	lastProgress = desc("consumer_group_last_progress_timestamp_seconds",
		"When the group last moved its commit or had read everything.", ofPartition)
	uncommittedPartitions = desc("consumer_group_uncommitted_partitions",
		"Partitions for which the group has no commit.", ofTopic)
	groupMembers = desc("consumer_group_members",
		"Members of the group.", ofGroup)
	groupState = desc("consumer_group_state",
		"1 for the state that the group is in, 0 for the others.", ofGroup, "state")

	topicStart  = desc("topic_start_offset", "Offset of the oldest record.", ofLog)
	topicStable = desc("topic_stable_offset", "Last stable offset: readers of committed records get no further.", ofLog)
	topicEnd    = desc("topic_end_offset", "High watermark: the offset of the next record.", ofLog)

	collectorUp = desc("lag_collector_up",
		"1 when the latest cycle read everything it set out to read.", ofCluster)
	collectorSuccess = desc("lag_collector_last_success_timestamp_seconds",
		"When a cycle last read everything it set out to read.", ofCluster)
	collectorTook = desc("lag_collector_cycle_duration_seconds",
		"Duration of the latest cycle.", ofCluster)
	collectorRequests = desc("lag_collector_requests_total",
		"Requests to Kafka by name and error code.", ofCluster, "api", "code")
)

// groupStates are the states of both protocols. A state that is none of them
// shows as Unknown.
var groupStates = []string{
	"Stable", "Empty", "PreparingRebalance", "CompletingRebalance", "Assigning", "Reconciling", "Unknown",
}

// metrics shows the latest Snapshot. It never talks to Kafka, and what the
// Snapshot does not know has no series.
type metrics struct{ c *Collector }

// Describe implements prometheus.Collector.
func (m metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		lagRecords, lagHWMRecords, lagSeconds, committedOffset, lostRecords, aheadRecords, headroomRatio, lastProgress,
		uncommittedPartitions, groupMembers, groupState, topicStart, topicStable, topicEnd,
		collectorUp, collectorSuccess, collectorTook, collectorRequests,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m metrics) Collect(ch chan<- prometheus.Metric) {
	s, success, fresh := m.c.shown()
	w := writer{ch: ch, cluster: s.Cluster}
	w.self(s, success, fresh, m.c.requests.all())
	if !fresh {
		return
	}
	for _, g := range s.Groups {
		w.group(g)
	}
	for _, p := range s.Partitions {
		w.partition(p)
	}
	w.uncommitted(s.Partitions)
	for _, l := range s.Logs {
		at := []string{l.Topic, strconv.Itoa(int(l.Partition))}
		w.gauge(topicStart, float64(l.Start), at...)
		w.gauge(topicStable, float64(l.Stable), at...)
		w.gauge(topicEnd, float64(l.End), at...)
	}
}

// shown returns the latest Snapshot, when a cycle last was complete, and
// whether the Snapshot is still to be believed: a loop that has ended or hangs
// leaves nothing behind that looks alive.
func (c *Collector) shown() (s Snapshot, success time.Time, fresh bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := 2*c.cfg.Interval + c.cfg.Timeout
	return c.latest, c.lastSuccess, !c.latest.At.IsZero() && c.now().Sub(c.latest.At) <= limit
}

// writer puts series of one cluster on a channel.
type writer struct {
	ch      chan<- prometheus.Metric
	cluster string
}

func (w writer) put(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels []string) {
	labels = append([]string{w.cluster}, labels...)
	w.ch <- prometheus.MustNewConstMetric(d, kind, value, labels...)
}

func (w writer) gauge(d *prometheus.Desc, value float64, labels ...string) {
	w.put(d, prometheus.GaugeValue, value, labels)
}

func (w writer) self(s Snapshot, success time.Time, fresh bool, asked map[request]uint64) {
	w.gauge(collectorUp, boolean(fresh && s.Complete))
	if !success.IsZero() {
		w.gauge(collectorSuccess, seconds(success))
	}
	if fresh {
		w.gauge(collectorTook, s.Took.Seconds())
	}
	for r, n := range asked {
		w.put(collectorRequests, prometheus.CounterValue, float64(n), []string{r.api, r.code})
	}
}

func (w writer) group(g Group) {
	if g.MembersKnown {
		w.gauge(groupMembers, float64(g.Members), g.Name, g.Protocol)
	}
	state := g.State
	if !slices.Contains(groupStates, state) {
		state = "Unknown"
	}
	for _, each := range groupStates {
		w.gauge(groupState, boolean(each == state), g.Name, g.Protocol, each)
	}
}

func (w writer) partition(p Partition) {
	at := []string{p.Group, p.Topic, strconv.Itoa(int(p.Partition))}
	if p.HasCommit() {
		w.gauge(committedOffset, float64(p.Committed), at...)
	}
	if !p.Known {
		return
	}
	w.gauge(lagRecords, float64(p.LagRecords), at...)
	w.gauge(lagHWMRecords, float64(p.LagEndRecords), at...)
	w.gauge(lostRecords, float64(p.LostRecords), at...)
	w.gauge(aheadRecords, float64(p.AheadRecords), at...)
	w.gauge(lastProgress, seconds(p.LastProgress), at...)
	if p.SecondsKnown {
		w.gauge(lagSeconds, p.LagSeconds, at...)
	}
	if ratio, known := p.Headroom(); known {
		w.gauge(headroomRatio, ratio, at...)
	}
}

// uncommitted counts per group and topic, which lie together. One partition
// that is unknown makes the count unknown.
func (w writer) uncommitted(parts []Partition) {
	for len(parts) > 0 {
		n, count, known := 0, 0, true
		for n < len(parts) && parts[n].Group == parts[0].Group && parts[n].Topic == parts[0].Topic {
			if !parts[n].HasCommit() {
				count++
			}
			known = known && parts[n].Known
			n++
		}
		if known {
			w.gauge(uncommittedPartitions, float64(count), parts[0].Group, parts[0].Topic)
		}
		parts = parts[n:]
	}
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }
