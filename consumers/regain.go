package consumers

import (
	"context"
	"errors"
	"time"
)

// fetchRecheck is the pause after a fetch error: a new claim looks at the log
// and names the cause.
const fetchRecheck = 2 * time.Second

// regain brings a partition back that was fenced or stopped: wait, claim, and
// read again from the position the claim found. It returns nil when the
// partition is at work again, and otherwise why it is not.
func (p *partition) regain(cause error) error {
	p.discard(false)
	p.group.pause(p)
	reason, wait := p.report(cause)
	if !p.pause(wait) {
		return errStopping
	}
	c, err := p.reclaim(reason)
	if err != nil {
		return err
	}
	if c.stop != nil {
		return c.stop
	}
	p.adopt(*c)
	if !p.group.seek(p) {
		return errStopping
	}
	p.showStop("")
	p.log.Info("resume partition", "offset", p.next, "fence", p.fence)
	return nil
}

// report says why the partition is not at work, and returns how long to wait
// before looking again.
func (p *partition) report(cause error) (reason string, wait time.Duration) {
	m, limits := p.group.metrics, p.group.limits
	var fenced *fencedError
	if errors.As(cause, &fenced) {
		m.fenceRejections.WithLabelValues(p.topic).Inc()
		p.log.Warn("drop buffers, a newer owner holds the partition", "offset", p.next, "fence", p.fence, "error", cause)
		return "fenced", limits.ReclaimWait
	}
	wait = limits.StopRetry
	reason = stopFetch
	var stop *stopError
	if errors.As(cause, &stop) {
		reason = stop.reason
	}
	switch reason {
	case stopSequenceGap:
		m.gaps.WithLabelValues(p.topic, stop.source).Inc()
	case stopSequenceRepeat:
		m.repeats.WithLabelValues(p.topic, stop.source).Inc()
	case stopFetch:
		wait = min(wait, fetchRecheck)
	}
	p.showStop(reason)
	p.log.Error("stop partition", "reason", reason, "offset", p.next, "next_look_seconds", wait.Seconds(), "error", cause)
	return "stopped", wait
}

// reclaim claims one partition until it works or the partition is given up.
func (p *partition) reclaim(reason string) (*claim, error) {
	for attempt := 1; ; attempt++ {
		ctx, cancel := context.WithTimeout(p.ctx, claimWait)
		claims, err := p.group.claim(ctx, []topicPartition{p.topicPartition}, reason)
		cancel()
		if err == nil {
			return claims[p.topicPartition], nil
		}
		if p.isStopping() {
			return nil, errStopping
		}
		p.log.Warn("retry claim", "attempt", attempt, "error", err)
		if !p.pause(p.group.backoff(attempt)) {
			return nil, errStopping
		}
	}
}
