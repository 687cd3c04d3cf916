package lag

import (
	"testing"

	"pgregory.net/rapid"
)

// The figures are those that counting offsets one by one gives.
func TestLagIsWhatCountingGives(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.Int64Range(0, 20).Draw(t, "start")
		stable := start + rapid.Int64Range(0, 20).Draw(t, "to stable")
		end := stable + rapid.Int64Range(0, 20).Draw(t, "to end")
		p := Partition{Committed: rapid.Int64Range(NoCommit, 70).Draw(t, "committed")}
		p.measure(newLog(logKey{"orders", 0}, start, stable, end))

		var want Partition
		for offset := int64(0); offset < 70; offset++ {
			unread := offset >= p.Committed
			switch {
			case offset < start && unread && p.HasCommit():
				want.LostRecords++
			case offset < start || !unread && offset < end:
			case offset < stable:
				want.LagRecords++
				want.LagEndRecords++
			case offset < end:
				want.LagEndRecords++
			case !unread:
				want.AheadRecords++
			}
		}
		got := [...]int64{p.LagRecords, p.LagEndRecords, p.LostRecords, p.AheadRecords}
		if want := [...]int64{want.LagRecords, want.LagEndRecords, want.LostRecords, want.AheadRecords}; got != want {
			t.Fatalf("committed %d in [%d, %d, %d): got lag, lag to end, lost, ahead %v, want %v", p.Committed, start, stable, end, got, want)
		}
		if ratio, known := p.Headroom(); known != p.HasCommit() || ratio < 0 || ratio > 1 {
			t.Fatalf("got headroom %v (known: %v)", ratio, known)
		}
	})
}

// Answers in any order of moving bounds never make a figure negative.
func TestNoFigureIsNegative(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		offset := rapid.Int64Range(0, 100)
		p := Partition{Committed: rapid.Int64Range(NoCommit, 100).Draw(t, "committed")}
		l := newLog(logKey{"orders", 0}, offset.Draw(t, "start"), offset.Draw(t, "stable"), offset.Draw(t, "end"))
		p.measure(l)
		if min(p.LagRecords, p.LostRecords, p.AheadRecords) < 0 || p.LagRecords > p.LagEndRecords || l.Start > l.Stable || l.Stable > l.End {
			t.Fatalf("got %+v in %+v", p, l)
		}
	})
}
