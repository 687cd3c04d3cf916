package notification

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
)

// courier works the jobs: it reads the mail, sends it, and has it settled.
type courier struct {
	river.WorkerDefaults[mailJob]
	db      *pgxpool.Pool
	log     *slog.Logger
	press   *press
	post    *post
	settler *settler
	metrics *metrics
	timeout time.Duration // of one mail's dialogue
	faults  faults
}

// Work sends one mail. It may run again for the same mail, after a crash or a
// failure: one that is settled is left alone.
func (c *courier) Work(ctx context.Context, job *river.Job[mailJob]) error {
	l, err := readLetter(ctx, c.db, job.Args)
	if errors.Is(err, pgx.ErrNoRows) {
		c.log.ErrorContext(ctx, "found a job without its mail", "order_id", job.Args.Order, "number", job.Args.Number)
		return river.JobCancel(err)
	}
	if err != nil {
		return err
	}
	if l.state != stateQueued {
		return nil
	}
	o, err := c.deliver(ctx, &l, job.Attempt)
	if err != nil {
		c.metrics.intents.WithLabelValues(resultRetried).Inc()
		return err
	}
	if c.faults.sent != nil {
		if err := c.faults.sent(); err != nil {
			return err
		}
	}
	// Crash point mail-sent: the job runs again and sends the same mail again.
	return c.settler.settle(ctx, &l, o)
}

// outcome is how a mail ended.
type outcome struct {
	state    string
	attempts int
	reason   string // why it failed, without personal data
}

// deliver returns how the mail ended, or an error when it shall be tried
// again later.
func (c *courier) deliver(ctx context.Context, l *letter, attempt int) (outcome, error) {
	o := outcome{state: stateFailed, attempts: attempt}
	if l.cause.Synthetic { // test traffic has no effect outside the platform
		o.state = stateSuppressed
		return o, nil
	}
	m, err := c.press.compose(l)
	if err != nil {
		o.reason = err.Error()
		return o, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	err = c.post.send(ctx, m)
	var refused *refusal
	switch {
	case err == nil:
		o.state = stateSent
		return o, nil
	case errors.As(err, &refused) && refused.final(), attempt >= giveUpAt:
		o.reason = err.Error()
		return o, nil
	default:
		return outcome{}, fmt.Errorf("send mail: %w", err)
	}
}
