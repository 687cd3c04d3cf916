package lag

import (
	"log/slog"
	"os"
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
	want, err := os.Open("testdata/series.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	if err := testutil.GatherAndCompare(reg, want); err != nil {
		t.Error(err)
	}
	at = at.Add(time.Hour)
	const stale = `
# HELP orderflow_lag_collector_up 1 when the latest cycle read everything it set out to read.
# TYPE orderflow_lag_collector_up gauge
orderflow_lag_collector_up{cluster="test"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(stale)); err != nil {
		t.Errorf("an hour later: %v", err)
	}
}
