package notification

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"orderflow/consumers"
	"orderflow/schemas"
)

const (
	queue = "mail"
	// maxAttempts is more than giveUpAt, so that a mail whose worker dies in
	// the last attempt is still settled by a later one.
	maxAttempts = 25
	// giveUpAt is the attempt whose temporary failure becomes a final one,
	// about eight days after the first: River waits n^4 seconds after attempt n.
	giveUpAt = 20
	// wakeCooldown is how often at most workers are woken. A job that falls in
	// between waits for the next poll, so it is as short as River allows.
	wakeCooldown = time.Millisecond
)

// mailJob is a job: send that mail. It holds no content, and nothing about
// the customer.
type mailJob struct {
	Order  string `json:"order_id"`
	Number int64  `json:"number"`
}

// Kind names the jobs in the queue's table.
func (mailJob) Kind() string { return "mail" }

// InsertOpts are the queue and how long to try.
func (mailJob) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: queue, MaxAttempts: maxAttempts}
}

// newMail is a mail to be written down.
type newMail struct {
	mailJob
	template string
	cause    *schemas.EventMeta
	content  content
}

// addMail adds the mail of an event whose order got a number for it.
func addMail(mails []newMail, numbers map[string]int64, cause *schemas.EventMeta, template string, c content) []newMail {
	number, ok := numbers[cause.OrderID]
	if !ok {
		return mails
	}
	delete(numbers, cause.OrderID) // the same order again in one batch: once
	return append(mails, newMail{mailJob{cause.OrderID, number}, template, cause, c})
}

// writeSQL writes mails down. One whose order has another mail under way waits
// for it. The orders' rows are locked, so nobody settles that other mail at
// the same time without this statement seeing it.
const writeSQL = `
INSERT INTO mails (order_id, number, template, idem_key, cause_id, correlation_id, flow, synthetic, content, state)
SELECT m.*, CASE WHEN EXISTS (SELECT FROM mails AS o WHERE o.order_id = m.order_id AND o.state IN ('waiting', 'queued'))
            THEN 'waiting' ELSE 'queued' END
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bool[], $9::jsonb[])
     AS m (order_id, number, template, idem_key, cause_id, correlation_id, flow, synthetic, content)
RETURNING order_id, number, state`

// enqueue writes the mails down and makes the jobs of those that can go now.
func (s *service) enqueue(ctx context.Context, tx pgx.Tx, mails []newMail) error {
	if len(mails) == 0 {
		return nil
	}
	args, err := columns(mails)
	if err != nil {
		return err
	}
	rows, err := tx.Query(ctx, writeSQL, args...)
	if err != nil {
		return storing("write mails", err)
	}
	var jobs []mailJob
	var j mailJob
	var state string
	_, err = pgx.ForEachRow(rows, []any{&j.Order, &j.Number, &state}, func() error {
		if state == stateQueued {
			jobs = append(jobs, j)
		}
		return nil
	})
	if err != nil {
		return storing("write mails", err)
	}
	return s.insertJobs(ctx, tx, jobs)
}

// insertJobs makes jobs by COPY. They can be worked once tx commits.
func (s *service) insertJobs(ctx context.Context, tx pgx.Tx, jobs []mailJob) error {
	if len(jobs) == 0 {
		return nil
	}
	client, err := s.inserter()
	if err != nil {
		return fmt.Errorf("make job inserter: %w", err)
	}
	params := make([]river.InsertManyParams, len(jobs))
	for i, j := range jobs {
		params[i] = river.InsertManyParams{Args: j}
	}
	if _, err := client.InsertManyFastTx(ctx, tx, params); err != nil {
		return storing(fmt.Sprintf("insert %d jobs", len(jobs)), err)
	}
	return nil
}

// columns are the parameters of writeSQL.
func columns(mails []newMail) ([]any, error) {
	n := len(mails)
	var (
		orders, templates, keys    = make([]string, n), make([]string, n), make([]string, n)
		causes, correlations, flow = make([]string, n), make([]string, n), make([]string, n)
		numbers                    = make([]int64, n)
		synthetic                  = make([]bool, n)
		contents                   = make([]json.RawMessage, n)
	)
	for i, m := range mails {
		text, err := json.Marshal(m.content)
		if err != nil {
			return nil, consumers.Permanent(fmt.Errorf("write mail of order %s: %w", m.Order, err))
		}
		orders[i], numbers[i], templates[i], keys[i] = m.Order, m.Number, m.template, effectKey(m.cause, m.template)
		causes[i], correlations[i], flow[i] = m.cause.EventID, m.cause.CorrelationID, string(m.cause.Flow)
		synthetic[i], contents[i] = m.cause.Synthetic, text
	}
	return []any{orders, numbers, templates, keys, causes, correlations, flow, synthetic, contents}, nil
}
