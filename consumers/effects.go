package consumers

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

const freshSQL = `
INSERT INTO effects_done (idem_key)
SELECT DISTINCT k FROM unnest($1::text[]) AS k ORDER BY k
ON CONFLICT DO NOTHING
RETURNING idem_key`

// Fresh records the idempotency keys of external effects and returns those
// that were not recorded before, each once, in the order given. The effects of
// the others were asked for already and must not be asked for again.
//
// A key is never forgotten. Build it of the group, the event's id and the name
// of the effect.
func Fresh(ctx context.Context, tx pgx.Tx, keys []string) ([]string, error) {
	rows, err := tx.Query(ctx, freshSQL, keys)
	if err != nil {
		return nil, fmt.Errorf("record effects: %w", err)
	}
	recorded, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("record effects: %w", err)
	}
	isNew := make(map[string]bool, len(recorded))
	for _, k := range recorded {
		isNew[k] = true
	}
	fresh := recorded[:0]
	for _, k := range keys {
		if isNew[k] {
			fresh = append(fresh, k)
			delete(isNew, k)
		}
	}
	return fresh, nil
}
