package consumers

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"orderflow/internal/pg"
)

// Held counts the events that a group has set aside and not resolved: dead
// letters, and the later events of their keys.
func Held(ctx context.Context, db pg.DB, group string) (int64, error) {
	var n int64
	err := db.QueryRow(ctx, `
		SELECT count(*) FROM `+pgx.Identifier{group, "consumer_hold"}.Sanitize()+`
		WHERE grp = $1 AND state IN ('retry', 'parked', 'dead')`, group).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count what group %s holds: %w", group, err)
	}
	return n, nil
}
