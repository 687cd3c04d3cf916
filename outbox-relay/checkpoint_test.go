package relay

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestACheckpointThatDoesNotFitIsAQuestion(t *testing.T) {
	t.Parallel()
	fits := Checkpoint{Source: "s", Number: 7, Term: 3, System: "1/2", Incarnation: 1, Kind: KindPoll, Horizon: 100, Published: map[string][]uint64{}}
	db := database{system: "1/2", incarnation: 1, nextXID: 100, term: 3, copy: &Checkpoint{Number: 7}}
	for name, c := range map[string]struct {
		log  func(*Checkpoint)
		db   func(*database)
		none bool   // Kafka has no checkpoint
		asks string // "" = no question
	}{
		"the same":                       {},
		"copy behind":                    {db: func(d *database) { d.copy = &Checkpoint{Number: 2} }},
		"no copy yet":                    {db: func(d *database) { d.copy = nil }},
		"database further":               {db: func(d *database) { d.nextXID, d.term = 500, 9 }},
		"first start":                    {none: true, db: func(d *database) { d.copy = nil }},
		"kafka replaced":                 {none: true, asks: "Kafka was replaced"},
		"kafka lost its end":             {log: func(c *Checkpoint) { c.Number = 6 }, asks: "Kafka lost data"},
		"another database":               {log: func(c *Checkpoint) { c.System = "9/9" }, asks: "written for database 9/9"},
		"another incarnation":            {log: func(c *Checkpoint) { c.Incarnation = 2 }, asks: "incarnation 2"},
		"database restored, by its xid":  {db: func(d *database) { d.nextXID = 99 }, asks: "ahead of this database"},
		"database restored, by its term": {db: func(d *database) { d.term = 2 }, asks: "ahead of this database"},
		"another kind of source":         {log: func(c *Checkpoint) { c.Kind = "wal" }, asks: "written by the wal source"},
	} {
		log, d := fits, db
		if c.log != nil {
			c.log(&log)
		}
		if c.db != nil {
			c.db(&d)
		}
		logged := &log
		if c.none {
			logged = nil
		}
		got, err := check("s", KindPoll, logged, d)
		switch {
		case c.asks == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.asks == "" && c.none && (got.Number != 0 || got.Point != "" || got.System != d.system):
			t.Errorf("%s: begins at %+v", name, got)
		case c.asks != "" && (!IsQuestion(err) || !strings.Contains(err.Error(), c.asks) || !strings.Contains(err.Error(), "to go on: ")):
			t.Errorf("%s: %v, want a question about %q with a way to go on", name, err, c.asks)
		}
	}
}

func TestACheckpointOfALaterVersionIsRefused(t *testing.T) {
	t.Parallel()
	if _, err := decodeCheckpoint([]byte(`{"version":2}`)); err == nil || !strings.Contains(err.Error(), "use the newer relay") {
		t.Errorf("error %v", err)
	}
}

func TestMetricsFollowTheConventions(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	newMetrics(reg, "s")
	newBacklogMetrics(reg).events.WithLabelValues("s").Set(1)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
