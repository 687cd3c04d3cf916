package orders

import (
	"context"
	"fmt"
	"time"
)

const (
	expiryInterval = 10 * time.Minute
	expiryTimeout  = 30 * time.Second
	expiryRows     = 5000 // in one transaction
)

// expireKeys deletes the idempotency keys that are past their retention until
// ctx ends.
func (s *Service) expireKeys(ctx context.Context) error {
	if s.cfg.KeyRetention == 0 {
		return nil
	}
	for wait := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = expiryInterval
		switch n, err := s.expireSome(ctx, time.Now().Add(-s.cfg.KeyRetention)); {
		case err != nil && ctx.Err() == nil:
			s.log.Warn("retry to expire idempotency keys", "err", err)
		case n == expiryRows:
			wait = time.Second // more are waiting
		}
	}
}

// expireSome deletes keys that were stored before a time, a bounded number.
func (s *Service) expireSome(ctx context.Context, before time.Time) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, expiryTimeout)
	defer cancel()
	tag, err := s.db.Exec(ctx, `
		DELETE FROM orders.idempotency_keys WHERE ctid = ANY (ARRAY(
			SELECT ctid FROM orders.idempotency_keys WHERE created_at < $1 LIMIT $2))`, before, expiryRows)
	if err != nil {
		return 0, fmt.Errorf("expire idempotency keys: %w", err)
	}
	return tag.RowsAffected(), nil
}
