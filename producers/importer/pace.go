package importer

import "time"

// pacer says when the next order is due.
type pacer struct {
	gap    time.Duration // rate: between two orders
	next   time.Time     // rate: when the next one is due
	speed  float64       // how many times faster than it was
	start  time.Time     // speed: when the first order came
	origin time.Time     // speed: and when it was placed in truth
}

func newPacer(cfg Config) *pacer {
	p := &pacer{speed: cfg.Speed}
	if cfg.Rate > 0 {
		p.gap = time.Duration(float64(time.Second) / cfg.Rate)
	}
	return p
}

// delay is how long it is until it is due; zero or less means now. At a rate, time
// lost is not made up for: the API may have been away. Between true gaps it is.
func (p *pacer) delay(now time.Time, it item) time.Duration {
	switch {
	case p.gap > 0 && it.order != nil:
		if p.next.Before(now) {
			p.next = now
		}
		d := p.next.Sub(now)
		p.next = p.next.Add(p.gap)
		return d
	case p.speed > 0 && !it.at.IsZero():
		if p.origin.IsZero() {
			p.start, p.origin = now, it.at
		}
		due := p.start.Add(time.Duration(float64(it.at.Sub(p.origin)) / p.speed))
		return due.Sub(now)
	}
	return 0
}
