package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"orderflow/e2e/verify"
	"orderflow/producers/importer"
)

const (
	drainInterval = 100 * time.Millisecond
	// drainPatience is how long nothing may move before up gives in.
	drainPatience = 60 * time.Second
)

// verdict is what `up --until-drained` found.
type verdict struct {
	Orders    int                     `json:"orders"`
	Replayed  int                     `json:"replayed"`
	Rejected  map[importer.Reason]int `json:"rejected"`
	Cancelled int                     `json:"cancelled"`
	Published uint64                  `json:"events_published"`
	Effects   map[string]int64        `json:"effects"`
	MailsSent int64                   `json:"mails_sent"`
	Held      int64                   `json:"held"`
	Lost      int64                   `json:"lost"`
	Twice     int64                   `json:"twice"`
	Disorder  int64                   `json:"out_of_order"`
	Phantoms  int64                   `json:"phantoms"`
	Seconds   float64                 `json:"seconds"`

	report verify.Report
}

// drain waits until every event is applied in every group, then verifies.
func (w *world) drain(ctx context.Context, s *system, summary importer.Summary, began time.Time) (*verdict, error) {
	ctx, cancel := s.whileHealthy(ctx)
	defer cancel()
	last, err := w.untilDrained(ctx)
	if err != nil {
		return nil, errors.Join(s.failure(), err)
	}
	seconds := time.Since(began).Seconds()
	v := &verdict{
		Orders: summary.Placed(), Replayed: summary.Replayed, Rejected: summary.Rejected, Cancelled: summary.Cancelled,
		Published: last.published, Effects: make(map[string]int64), MailsSent: last.mailsSent, Seconds: seconds,
	}
	for _, g := range last.groups {
		v.Effects[g.name] = g.applied
		v.Held += g.held
	}
	if v.report, err = w.verify(ctx, w.watcher.source, w.groups); err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	v.Lost, v.Twice, v.Disorder = v.report.Lost(), v.report.Twice(), v.report.OutOfOrder()
	v.Phantoms = v.report.Phantoms.Count
	return v, nil
}

// untilDrained returns the flow once nothing is under way, twice in a row.
func (w *world) untilDrained(ctx context.Context) (flow, error) {
	tick := time.NewTicker(drainInterval)
	defer tick.Stop()
	moved, progress, empty := time.Now(), int64(-1), 0
	for {
		f, err := w.watcher.look(ctx)
		done, waits := f.drained()
		if err != nil { // a look that fails may work again
			done, waits = false, "a look at the pipeline: "+err.Error()
		}
		if done {
			empty++
		} else {
			empty = 0
		}
		if empty == 2 {
			return f, nil
		}
		if p := f.progress(); err == nil && p != progress {
			progress, moved = p, time.Now()
		}
		if time.Since(moved) > drainPatience {
			return flow{}, fmt.Errorf("nothing moved for %s, waiting for %s", drainPatience, waits)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return flow{}, ctx.Err()
		}
	}
}

func (v *verdict) ok() bool {
	return v.Held == 0 && v.Lost == 0 && v.Twice == 0 && v.Disorder == 0 && v.report.OK()
}

// print writes the verdict and returns errVerdict if it is bad.
func (v *verdict) print(stdout, stderr io.Writer, asJSON bool) error {
	if asJSON {
		if err := json.NewEncoder(stdout).Encode(v); err != nil {
			return fmt.Errorf("print verdict: %w", err)
		}
	} else {
		fmt.Fprintf(stdout, "%d orders, %d rejected, %d events published, %d mails sent, %.1f s\n",
			v.Orders, total(v.Rejected), v.Published, v.MailsSent, v.Seconds)
		for name, n := range v.Effects {
			fmt.Fprintf(stdout, "  %-14s %d events applied\n", name, n)
		}
		fmt.Fprintf(stdout, "held %d, lost %d, twice %d, out of order %d\n", v.Held, v.Lost, v.Twice, v.Disorder)
	}
	if v.ok() {
		return nil
	}
	if err := v.report.Print(stderr); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	return errVerdict
}

func total(m map[importer.Reason]int) int {
	sum := 0
	for _, n := range m {
		sum += n
	}
	return sum
}
