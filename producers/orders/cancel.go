package orders

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow/internal/pg"
	"orderflow/outbox-relay/outbox"
	"orderflow/schemas"
)

// cancelLockWait bounds how long a cancellation waits for another one of the
// same order or under the same key.
const cancelLockWait = 2 * time.Second

// cancelRequest is a cancellation made ready.
type cancelRequest struct {
	cancellation
	keyOf
	keyed   bool // an Idempotency-Key was given
	id      uuid.UUID
	ifMatch []string
	now     time.Time
}

// cancel answers POST /v1/orders/{id}/cancel. If-Match and Idempotency-Key are
// both optional: without the first the order is cancelled at whatever version
// it has, without the second a repeated request finds it cancelled already.
func (s *Service) cancel(w http.ResponseWriter, r *http.Request) error {
	c, err := readCancel(w, r)
	if err != nil {
		return err
	}
	a, err := s.cancelOrder(traced(r), c)
	if err != nil {
		return err
	}
	if !a.replayed {
		s.metrics.cancelled.Inc()
	}
	writeAnswer(w, a)
	return nil
}

func readCancel(w http.ResponseWriter, r *http.Request) (*cancelRequest, error) {
	c := &cancelRequest{ifMatch: r.Header.Values("If-Match"), now: time.Now().UTC().Truncate(time.Microsecond)}
	var err error
	if c.id, err = orderID(r); err != nil {
		return nil, err
	}
	if err := acceptJSON(r); err != nil {
		return nil, err
	}
	if c.keyOf, c.keyed, err = keyHeader(r); err != nil {
		return nil, err
	}
	body, err := readBody(w, r, nil)
	if err != nil {
		return nil, err
	}
	if err := decode(body, &c.cancellation); err != nil {
		return nil, err
	}
	var f faults
	switch c.By {
	case "CUSTOMER", "SELLER", "OPS", "SYSTEM":
	case "":
		f.add(at("/by"), reasonMissing, "is required")
	default:
		f.add(at("/by"), reasonUnknownValue, "must be CUSTOMER, SELLER, OPS or SYSTEM")
	}
	f.required(c.Reason, maxReason, at("/reason"))
	if len(f) > 0 {
		return nil, invalidOrder(f)
	}
	return c, nil
}

// fingerprint covers what is asked for: which order, by whom and why.
func (c *cancelRequest) fingerprint() [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "cancel %s\n%s\n%s", c.id, c.By, c.Reason))
}

// cancelOrder changes the order, tells of it and keeps the answer in one
// transaction, and answers from what is kept if the key was used before.
func (s *Service) cancelOrder(ctx context.Context, c *cancelRequest) (answer, error) {
	// Once begun it is finished even if the client goes away: the key is there
	// to ask again.
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Patience)
	defer stop()
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		a, err := s.cancelOnce(ctx, c)
		var p *problem
		switch {
		case err == nil || errors.As(err, &p):
			return a, err
		case errors.Is(err, errKeyTaken):
			return s.cancelledBefore(ctx, c)
		case pg.Code(err) == lockNotAvailable:
			return answer{}, problemOf(codeInProgress, "")
		case !pg.Retryable(err) || pg.Ambiguous(err) && !c.keyed:
			// Without a key a second try could not tell its own first one.
			return answer{}, problemOf(codeUnavailable, "").because(err)
		}
		select {
		case <-ctx.Done():
			return answer{}, problemOf(codeUnavailable, "").because(err)
		case <-time.After(wait):
		}
	}
}

var errKeyTaken = errors.New("idempotency key taken")

func (s *Service) cancelledBefore(ctx context.Context, c *cancelRequest) (answer, error) {
	found, err := lookup(ctx, s.db, []keyOf{c.keyOf})
	if err != nil {
		return answer{}, problemOf(codeUnavailable, "").because(err)
	}
	sum := c.fingerprint()
	a, p := replay(found, c.keyOf, sum[:])
	if p != nil {
		return answer{}, p
	}
	return a, nil
}

// cancelOnce is the transaction. The key comes before the order's row, as it
// does for every transaction that takes both, and the row is locked before the
// event is appended, so that the order's events are in the order of their
// commits.
func (s *Service) cancelOnce(ctx context.Context, c *cancelRequest) (a answer, err error) {
	err = pgx.BeginTxFunc(ctx, s.db, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT set_config('lock_timeout', $1, true)`, millis(cancelLockWait)); err != nil {
			return fmt.Errorf("cancel order %s: %w", c.id, err)
		}
		if err := claimCancel(ctx, tx, c); err != nil {
			return err
		}
		receipt, err := cancelRow(ctx, tx, c)
		if err != nil {
			return err
		}
		a = receipt
		if err := keepCancel(ctx, tx, c, a); err != nil {
			return err
		}
		event, err := cancelledEvent(c, a.version)
		if err != nil {
			return err
		}
		return outbox.Append(ctx, tx, event)
	})
	return a, err
}

// claimCancel reserves the key before anything is locked.
func claimCancel(ctx context.Context, tx pgx.Tx, c *cancelRequest) error {
	if !c.keyed {
		return nil
	}
	sum := c.fingerprint()
	tag, err := tx.Exec(ctx, `
		INSERT INTO orders.idempotency_keys (client_id, key, fingerprint, order_id, version, status, response, created_at)
		VALUES ($1, $2, $3, $4, 0, 200, '', $5) ON CONFLICT (client_id, key) DO NOTHING`,
		c.client, c.key, sum[:], c.id, c.now)
	switch {
	case err != nil:
		return fmt.Errorf("claim key to cancel order %s: %w", c.id, err)
	case tag.RowsAffected() == 0:
		return errKeyTaken
	}
	return nil
}

// keepCancel completes the claimed key's row with the answer.
func keepCancel(ctx context.Context, tx pgx.Tx, c *cancelRequest, a answer) error {
	if !c.keyed {
		return nil
	}
	_, err := tx.Exec(ctx, `
		UPDATE orders.idempotency_keys SET version = $3, response = $4 WHERE client_id = $1 AND key = $2`,
		c.client, c.key, a.version, a.body)
	if err != nil {
		return fmt.Errorf("keep answer of cancelling order %s: %w", c.id, err)
	}
	return nil
}

// cancelRow locks the order's row, checks that it may be cancelled, and
// cancels it.
func cancelRow(ctx context.Context, tx pgx.Tx, c *cancelRequest) (answer, error) {
	h := head{id: c.id, changedAt: c.now, cancelledBy: c.By, cancelReason: c.Reason}
	var grand int64
	var currency string
	var scale int
	err := tx.QueryRow(ctx, `
		SELECT version, status, placed_at, grand_minor, currency, scale
		FROM orders.orders WHERE order_id = $1 FOR UPDATE`, c.id).
		Scan(&h.version, &h.status, &h.placedAt, &grand, &currency, &scale)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return answer{}, problemOf(codeOrderNotFound, "")
	case err != nil:
		return answer{}, fmt.Errorf("lock order %s: %w", c.id, err)
	case len(c.ifMatch) > 0 && !names(c.ifMatch, etag(h.version), false):
		return answer{}, problemOf(codeVersionMismatch, "The order is at version "+etag(h.version)+".")
	case h.status != statusPlaced:
		return answer{}, problemOf(codeNotCancellable, "The order is "+h.status+".")
	}
	h.version, h.status = h.version+1, statusCancelled
	_, err = tx.Exec(ctx, `
		UPDATE orders.orders SET version = $2, status = $3, changed_at = $4, cancelled_by = $5, cancel_reason = $6
		WHERE order_id = $1`, c.id, h.version, h.status, c.now, c.By, c.Reason)
	if err != nil {
		return answer{}, fmt.Errorf("cancel order %s: %w", c.id, err)
	}
	return answer{
		status: http.StatusOK, orderID: c.id, version: h.version,
		body: appendReceipt(nil, &h, grand, currency, scale),
	}, nil
}

func cancelledEvent(c *cancelRequest, version int64) (*schemas.OrderCancelled, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make event id: %w", err)
	}
	order := c.id.String()
	return &schemas.OrderCancelled{
		Meta: schemas.EventMeta{
			EventID: id.String(), OrderID: order, OrderVersion: version,
			OccurredAt: c.now, RecordedAt: c.now,
			CorrelationID: order, Producer: producer, Flow: schemas.FlowChoreography,
		},
		By:     schemas.CancelledBy(c.By),
		Reason: c.Reason,
	}, nil
}
