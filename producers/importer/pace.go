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

// slack is the lost time that a rate makes up for: a timer that fires late, not an
// API that was away.
const slack = 100 * time.Millisecond

// delay is how long it is until it is due; zero or less means now. Between true
// gaps all lost time is made up for, at a rate only the slack.
func (p *pacer) delay(now time.Time, it item) time.Duration {
	switch {
	case p.gap > 0 && it.order != nil:
		switch {
		case p.next.IsZero():
			p.next = now
		case p.next.Before(now.Add(-slack)):
			p.next = now.Add(-slack)
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
