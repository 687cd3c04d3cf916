package lag

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// What a snapshot does not know has no series; an alert on 0 would be blind,
// and one on the absence of a series sees it.
func TestWhatIsUnknownHasNoSeries(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	c := New(Config{}, slog.New(slog.DiscardHandler), reg)
	at := time.Unix(1000, 0)
	c.now = func() time.Time { return at }
	c.latest = Snapshot{
		Cluster: "test", At: at, Took: 250 * time.Millisecond,
		Groups: []Group{
			{Name: "seller", Protocol: "classic", State: "Stable", Members: 2, MembersKnown: true},
			{Name: "tracker", Protocol: "streams", State: "NotReady"},
		},
		Partitions: []Partition{
			{Group: "seller", Topic: "orders", Partition: 0, Committed: 5, Start: 0, Stable: 10, End: 12, LagRecords: 5, LagEndRecords: 7, LagSeconds: 2.5, LastProgress: at, Known: true, SecondsKnown: true},
			{Group: "seller", Topic: "orders", Partition: 1, Committed: 7, Problem: "list offsets: away"},
			{Group: "seller", Topic: "sellers", Partition: 0, Committed: NoCommit, Stable: 3, End: 3, LagRecords: 3, LagEndRecords: 3, LastProgress: at, Known: true, Problem: "not read yet"},
		},
	}
	want := `
# HELP orderflow_consumer_group_ahead_records Offsets by which the group's commit lies beyond the end of the log, which was made anew or cut.
# TYPE orderflow_consumer_group_ahead_records gauge
orderflow_consumer_group_ahead_records{cluster="test",group="seller",partition="0",topic="orders"} 0
orderflow_consumer_group_ahead_records{cluster="test",group="seller",partition="0",topic="sellers"} 0
# HELP orderflow_consumer_group_committed_offset Offset that the group has committed.
# TYPE orderflow_consumer_group_committed_offset gauge
orderflow_consumer_group_committed_offset{cluster="test",group="seller",partition="0",topic="orders"} 5
orderflow_consumer_group_committed_offset{cluster="test",group="seller",partition="1",topic="orders"} 7
# HELP orderflow_consumer_group_lag_hwm_records Offsets between the group and the high watermark.
# TYPE orderflow_consumer_group_lag_hwm_records gauge
orderflow_consumer_group_lag_hwm_records{cluster="test",group="seller",partition="0",topic="orders"} 7
orderflow_consumer_group_lag_hwm_records{cluster="test",group="seller",partition="0",topic="sellers"} 3
# HELP orderflow_consumer_group_lag_records Offsets between the group and the last stable offset, 0 when all that is left is aborted or a marker.
# TYPE orderflow_consumer_group_lag_records gauge
orderflow_consumer_group_lag_records{cluster="test",group="seller",partition="0",topic="orders"} 5
orderflow_consumer_group_lag_records{cluster="test",group="seller",partition="0",topic="sellers"} 3
# HELP orderflow_consumer_group_lag_seconds Age of the record that the group reads next, 0 when it has read everything.
# TYPE orderflow_consumer_group_lag_seconds gauge
orderflow_consumer_group_lag_seconds{cluster="test",group="seller",partition="0",topic="orders"} 2.5
# HELP orderflow_consumer_group_last_progress_timestamp_seconds When the group last moved its commit or had read everything.
# TYPE orderflow_consumer_group_last_progress_timestamp_seconds gauge
orderflow_consumer_group_last_progress_timestamp_seconds{cluster="test",group="seller",partition="0",topic="orders"} 1000
orderflow_consumer_group_last_progress_timestamp_seconds{cluster="test",group="seller",partition="0",topic="sellers"} 1000
# HELP orderflow_consumer_group_lost_records Offsets that retention took before the group read them.
# TYPE orderflow_consumer_group_lost_records gauge
orderflow_consumer_group_lost_records{cluster="test",group="seller",partition="0",topic="orders"} 0
orderflow_consumer_group_lost_records{cluster="test",group="seller",partition="0",topic="sellers"} 0
# HELP orderflow_consumer_group_members Members of the group.
# TYPE orderflow_consumer_group_members gauge
orderflow_consumer_group_members{cluster="test",group="seller",protocol="classic"} 2
# HELP orderflow_consumer_group_retention_headroom_ratio Place of the commit in the log: 1 at its end, 0 when retention takes unread records next.
# TYPE orderflow_consumer_group_retention_headroom_ratio gauge
orderflow_consumer_group_retention_headroom_ratio{cluster="test",group="seller",partition="0",topic="orders"} 0.4166666666666667
# HELP orderflow_consumer_group_state 1 for the state that the group is in, 0 for the others.
# TYPE orderflow_consumer_group_state gauge
orderflow_consumer_group_state{cluster="test",group="seller",protocol="classic",state="Assigning"} 0
orderflow_consumer_group_state{cluster="test",group="seller",protocol="classic",state="CompletingRebalance"} 0
orderflow_consumer_group_state{cluster="test",group="seller",protocol="classic",state="Empty"} 0
orderflow_consumer_group_state{cluster="test",group="seller",protocol="classic",state="PreparingRebalance"} 0
orderflow_consumer_group_state{cluster="test",group="seller",protocol="classic",state="Reconciling"} 0
orderflow_consumer_group_state{cluster="test",group="seller",protocol="classic",state="Stable"} 1
orderflow_consumer_group_state{cluster="test",group="seller",protocol="classic",state="Unknown"} 0
orderflow_consumer_group_state{cluster="test",group="tracker",protocol="streams",state="Assigning"} 0
orderflow_consumer_group_state{cluster="test",group="tracker",protocol="streams",state="CompletingRebalance"} 0
orderflow_consumer_group_state{cluster="test",group="tracker",protocol="streams",state="Empty"} 0
orderflow_consumer_group_state{cluster="test",group="tracker",protocol="streams",state="PreparingRebalance"} 0
orderflow_consumer_group_state{cluster="test",group="tracker",protocol="streams",state="Reconciling"} 0
orderflow_consumer_group_state{cluster="test",group="tracker",protocol="streams",state="Stable"} 0
orderflow_consumer_group_state{cluster="test",group="tracker",protocol="streams",state="Unknown"} 1
# HELP orderflow_consumer_group_uncommitted_partitions Partitions for which the group has no commit.
# TYPE orderflow_consumer_group_uncommitted_partitions gauge
orderflow_consumer_group_uncommitted_partitions{cluster="test",group="seller",topic="sellers"} 1
# HELP orderflow_lag_collector_cycle_duration_seconds Duration of the latest cycle.
# TYPE orderflow_lag_collector_cycle_duration_seconds gauge
orderflow_lag_collector_cycle_duration_seconds{cluster="test"} 0.25
# HELP orderflow_lag_collector_up 1 when the latest cycle read everything it set out to read.
# TYPE orderflow_lag_collector_up gauge
orderflow_lag_collector_up{cluster="test"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	at = at.Add(time.Hour)
	want = `
# HELP orderflow_lag_collector_up 1 when the latest cycle read everything it set out to read.
# TYPE orderflow_lag_collector_up gauge
orderflow_lag_collector_up{cluster="test"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
		t.Errorf("an hour later: %v", err)
	}
}
