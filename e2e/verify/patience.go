package verify

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// patience ends a context when nothing moved for a while.
type patience struct {
	timer *time.Timer
	limit time.Duration
}

// waitFor gives a context that ends with a cause once the limit passes without
// a call of moved. stop frees it.
func waitFor(ctx context.Context, what string, limit time.Duration) (_ context.Context, p *patience, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	p = &patience{limit: limit}
	p.timer = time.AfterFunc(limit, func() {
		cancel(fmt.Errorf("no progress with %s for %s", what, limit))
	})
	return ctx, p, func() {
		p.timer.Stop()
		cancel(nil)
	}
}

func (p *patience) moved() { p.timer.Reset(p.limit) }

// causeOf prefers the reason why ctx ended to err, which it led to.
func causeOf(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
