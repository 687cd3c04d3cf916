package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"orderflow/internal/lag"
	"orderflow/internal/ops"
	"orderflow/producers/importer"
)

// table shows the running pipeline: drawn in place on a terminal, as a log
// line every few seconds elsewhere.
type table struct {
	out      io.Writer
	terminal bool
	log      *slog.Logger
	world    *world

	mu     sync.Mutex // protects the rest
	imp    importer.Progress
	lines  int // drawn last time, to be drawn over
	logged time.Time
	last   int64
}

const (
	tableInterval    = time.Second
	tableLogInterval = 10 * time.Second
)

func newTable(out io.Writer, log *slog.Logger, w *world) *table {
	return &table{out: out, terminal: ops.Terminal(out), log: log, world: w}
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
	if t.terminal {
		t.draw(f, l)
		return
	}
	if moved := f.progress(); time.Since(t.logged) >= tableLogInterval && moved != t.last {
		t.logged, t.last = time.Now(), moved
		attrs := []any{"published", f.published, "backlog", f.backlog, "mails_sent", f.mailsSent}
		for _, g := range f.groups {
			attrs = append(attrs, g.name, g.applied)
		}
		t.log.Info("flow", attrs...)
	}
}

func (t *table) draw(f flow, l lag.Snapshot) {
	var b bytes.Buffer
	if t.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", t.lines) // up to the first line, clear below
	}
	start := b.Len()
	if t.imp.Total > 0 && !t.imp.Finished {
		s := t.imp.Summary
		fmt.Fprintf(&b, "importing %3d %%   %d accepted, %d replayed\n", 100*t.imp.Done/t.imp.Total, s.Accepted, s.Replayed)
	}
	fmt.Fprintf(&b, "outbox: %d published, %d waiting      mails: %d sent, %d due\n", f.published, f.backlog, f.mailsSent, f.mailsDue)
	fmt.Fprintf(&b, "%-16s %12s %12s %10s %6s\n", "GROUP", "APPLIED", "LAG", "SECONDS", "HELD")
	totals := make(map[string]lag.Total)
	for _, x := range l.Totals() {
		totals[x.Group] = x
	}
	for _, g := range f.groups {
		x := totals[g.name]
		records := orUnknown(x.RecordsKnown, x.Records)
		seconds := orUnknown(x.SecondsKnown, fmt.Sprintf("%.1f", x.Seconds))
		fmt.Fprintf(&b, "%-16s %12d %12s %10s %6d\n", g.name, g.applied, records, seconds, g.held)
	}
	t.lines = bytes.Count(b.Bytes()[start:], []byte("\n"))
	_, _ = t.out.Write(b.Bytes())
}
