package importer

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

const logEvery = 5 * time.Second

// Progress is how far an import has come.
type Progress struct {
	// Done and Total measure the way in Unit; Total is zero when nobody knows it.
	Done, Total int64
	Unit        string // "bytes" of the file read, or "orders"
	// Summary is what became of the orders so far.
	Summary Summary
	// Finished is set in the last call.
	Finished bool
}

// report tells of the progress until stop is called, which makes the last call
// and waits for it. Its goroutine ends with stop.
func (r *run) report(ctx context.Context, deps Deps) (stop func()) {
	tell, end := r.teller(ctx, deps)
	stopping, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-stopping:
				tell(r.progress(true))
				end()
				return
			case <-tick.C:
				tell(r.progress(false))
			}
		}
	}()
	return func() {
		close(stopping)
		<-stopped
	}
}

func (r *run) progress(finished bool) Progress {
	p := Progress{Unit: "bytes", Summary: r.ledger.summary(), Finished: finished}
	p.Done, p.Total = r.source.progress()
	if r.cfg.Format == FormatOlist {
		p.Unit = "orders"
	}
	if r.cfg.Limit > 0 {
		done := p.Summary.Placed() + total(p.Summary.Rejected)
		p.Done, p.Total, p.Unit = int64(min(done, r.cfg.Limit)), int64(r.cfg.Limit), "orders"
	}
	return p
}

// teller chooses who is told: the caller's hook, a bar, or the log.
func (r *run) teller(ctx context.Context, deps Deps) (tell func(Progress), end func()) {
	switch {
	case deps.Progress != nil:
		return deps.Progress, func() {}
	case terminal(deps.Terminal):
		return drawBar(ctx, deps.Terminal)
	}
	last := time.Now()
	return func(p Progress) {
		if p.Finished || time.Since(last) < logEvery {
			return
		}
		last = time.Now()
		s := p.Summary
		r.log.Info("importing", "done", p.Done, "total", p.Total, "unit", p.Unit, "accepted", s.Accepted,
			"replayed", s.Replayed, "rejected", total(s.Rejected), "orders_per_second", int(s.perSecond()))
	}, func() {}
}

// terminal says whether a person looks at w.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// drawBar draws the progress on a terminal until end. The bar leaves the last
// state standing.
func drawBar(ctx context.Context, w io.Writer) (tell func(Progress), end func()) {
	state := make(chan Progress, 1) // tell puts the newest there, the bar takes it when it draws
	var now Progress                // the bar's own
	text := func(decor.Statistics) string {
		select {
		case now = <-state:
		default:
		}
		s := now.Summary
		return fmt.Sprintf(" %d placed, %d rejected, %.0f/s ", s.Placed(), total(s.Rejected), s.perSecond())
	}
	bars := mpb.NewWithContext(ctx, mpb.WithOutput(w), mpb.WithRefreshRate(progressEvery), mpb.WithAutoRefresh())
	bar := bars.AddBar(0,
		mpb.PrependDecorators(decor.Name("import ")),
		mpb.AppendDecorators(decor.Percentage(decor.WC{W: 5}), decor.Any(text),
			decor.OnCompleteOrOnAbort(decor.AverageETA(decor.ET_STYLE_GO, decor.WC{W: 6}), "")),
	)
	tell = func(p Progress) {
		select {
		case <-state:
		default:
		}
		state <- p
		bar.SetTotal(max(p.Total, p.Done+1), false) // reaching the total would end the bar before its time
		bar.SetCurrent(p.Done)
		switch {
		case p.Finished && p.Done >= p.Total:
			bar.SetTotal(-1, true)
		case p.Finished:
			bar.Abort(false)
		}
	}
	return tell, bars.Wait
}
