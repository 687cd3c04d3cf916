package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"orderflow/internal/lag"
	"orderflow/producers/importer"
)

// table shows the running pipeline: drawn in place on a terminal, as a log
// line every few seconds elsewhere.
type table struct {
	screen *screen
	log    *slog.Logger
	world  *world

	mu     sync.Mutex // protects the rest
	imp    importer.Progress
	logged time.Time
	last   int64
}

const (
	tableInterval    = time.Second
	tableLogInterval = 10 * time.Second
)

func newTable(out *screen, log *slog.Logger, w *world) *table {
	return &table{screen: out, log: log, world: w}
}

// progress takes the import's progress; it is called by the importer.
func (t *table) progress(p importer.Progress) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.imp = p
}

// run shows the table until ctx ends.
func (t *table) run(ctx context.Context) error {
	tick := time.NewTicker(tableInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		f, err := t.world.watcher.look(ctx)
		if err != nil {
			if ctx.Err() == nil {
				t.log.Warn("look at the pipeline", "err", err)
			}
			continue
		}
		t.show(f, t.world.lag.Snapshot())
	}
}

func (t *table) show(f flow, l lag.Snapshot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	totals := make(map[string]lag.Total)
	for _, x := range l.Totals() {
		totals[x.Group] = x
	}
	if t.screen.terminal {
		t.screen.draw(t.text(f, totals))
		return
	}
	// Silent only when nothing moves and nothing waits.
	moved := f.progress()
	if drained, _ := f.drained(); time.Since(t.logged) < tableLogInterval || drained && moved == t.last {
		return
	}
	t.logged, t.last = time.Now(), moved
	attrs := []any{"published", f.published, "backlog", f.backlog, "mails_sent", f.mailsSent, "mails_due", f.mailsDue}
	for _, g := range f.groups {
		x := totals[g.name]
		attrs = append(attrs, slog.Group(g.name, "applied", g.applied, "behind", g.behind, "held", g.held,
			"lag_seconds", orUnknown(x.SecondsKnown, fmt.Sprintf("%.1f", x.Seconds))))
	}
	t.log.Info("flow", attrs...)
}

func (t *table) text(f flow, totals map[string]lag.Total) string {
	var b strings.Builder
	if t.imp.Total > 0 && !t.imp.Finished {
		s := t.imp.Summary
		fmt.Fprintf(&b, "importing %3d %%   %d accepted, %d replayed\n", 100*t.imp.Done/t.imp.Total, s.Accepted, s.Replayed)
	}
	fmt.Fprintf(&b, "outbox: %d published, %d waiting      mails: %d sent, %d due\n", f.published, f.backlog, f.mailsSent, f.mailsDue)
	fmt.Fprintf(&b, "%-16s %12s %12s %10s %6s\n", "GROUP", "APPLIED", "LAG", "SECONDS", "HELD")
	for _, g := range f.groups {
		x := totals[g.name]
		records := orUnknown(x.RecordsKnown, x.Records)
		seconds := orUnknown(x.SecondsKnown, fmt.Sprintf("%.1f", x.Seconds))
		fmt.Fprintf(&b, "%-16s %12d %12s %10s %6d\n", g.name, g.applied, records, seconds, g.held)
	}
	return b.String()
}
