package consumers

import (
	"sync/atomic"
	"testing"

	"orderflow/internal/pg"
	"orderflow/internal/testenv"
)

// The connection is reset around the COMMIT of a batch. The runtime must find
// out from the row which of the two happened, and must not guess.
func TestACommitWhoseAnswerIsLostIsResolvedByReadingBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		at         cutPoint
		resolution string
	}{{cutAfter, "committed"}, {cutBefore, "retry"}} {
		t.Run(c.at.String(), func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 1)
			address, p := proxied(t, b.url)
			pool := b.pool(pg.Config{URL: address, Schema: testGroup, MaxConns: 2})
			var once atomic.Bool
			b.write(placedOrders(0, 40))
			m := b.run(withDB(pool), withFaults(&faults{commit: func(*partition) {
				if once.CompareAndSwap(false, true) {
					p.arm(c.at)
				}
			}}))
			b.waitApplied(40)
			b.write(placedOrders(40, 40))
			b.waitApplied(80)
			b.checkOnceInOrder(all)
			if got := m.metric("orderflow_consumer_commit_unknown_total", "resolution", c.resolution); got != 1 {
				t.Errorf("%s = %v, want 1", c.resolution, got)
			}
			if p.cuts != 1 {
				t.Errorf("the connection was cut %d times, want 1", p.cuts)
			}
		})
	}
}

// Every connection to the database breaks again and again while events flow.
func TestADatabaseThatComesAndGoesCostsNoEventAndRepeatsNone(t *testing.T) {
	t.Parallel()
	b := newBed(t, 3)
	address, p := proxied(t, b.url)
	var commits atomic.Int64
	b.run(withDB(b.pool(pg.Config{URL: address, Schema: testGroup})),
		withLimits(func(l *Limits) { l.MaxBatch = 20; l.MinBatch = 10 }),
		withFaults(&faults{commit: func(*partition) {
			switch commits.Add(1) % 7 {
			case 1:
				p.arm(cutAfter)
			case 3:
				p.arm(cutBefore)
			case 5:
				p.reset()
			}
		}}))
	for i := range 10 {
		b.write(placedOrders(i*60, 60))
	}
	b.waitApplied(600)
	b.checkOnceInOrder(all)
}

// metric sums the series of a metric that carry the labels given as pairs.
func (m *member) metric(name string, labels ...string) float64 {
	m.b.t.Helper()
	families, err := m.metrics.Gather()
	check(m.b.t, err)
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, series := range f.GetMetric() {
			have := map[string]string{}
			for _, l := range series.GetLabel() {
				have[l.GetName()] = l.GetValue()
			}
			if matches(have, labels) {
				sum += series.GetCounter().GetValue() + series.GetGauge().GetValue() + float64(series.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

func matches(have map[string]string, labels []string) bool {
	for i := 0; i < len(labels); i += 2 {
		if have[labels[i]] != labels[i+1] {
			return false
		}
	}
	return true
}

// waitMetric waits until a metric is at least want.
func (m *member) waitMetric(want float64, name string, labels ...string) {
	m.b.t.Helper()
	testenv.Wait(m.b.t, waitLong, name, func() bool { return m.metric(name, labels...) >= want })
}
