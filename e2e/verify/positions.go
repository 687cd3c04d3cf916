package verify

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow/consumers"
)

// groupCheck is a group while it is checked.
type groupCheck struct {
	Group
	positions []consumers.Position
	holds     map[string]int64 // open ones, by state
	dead      []uuid.UUID      // the first of them
}

// readPositions reads where every group stands, in one snapshot. Everything
// else is read later, so it holds at least what the positions count.
func (c *check) readPositions(ctx context.Context) error {
	ctx, _, stop := waitFor(ctx, "the groups' positions", c.cfg.Patience)
	defer stop()
	tx, err := c.cfg.DB.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return causeOf(ctx, fmt.Errorf("begin: %w", err))
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // it changed nothing
	for _, g := range c.cfg.Groups {
		checked := &groupCheck{Group: g}
		checked.positions, err = consumers.Positions(ctx, tx, g.Name)
		if err == nil {
			err = checked.readHolds(ctx, tx)
		}
		if err != nil {
			return causeOf(ctx, err)
		}
		c.groups = append(c.groups, checked)
	}
	return nil
}

// readHolds counts the events that the group set aside and has not dealt with.
func (g *groupCheck) readHolds(ctx context.Context, tx pgx.Tx) error {
	table := pgx.Identifier{g.Name, "consumer_hold"}.Sanitize()
	rows, err := tx.Query(ctx, `
SELECT state, count(*) FROM `+table+` WHERE grp = $1 AND state IN ('retry', 'parked', 'dead') GROUP BY state`, g.Name)
	if err != nil {
		return fmt.Errorf("count holds of %s: %w", g.Name, err)
	}
	g.holds = map[string]int64{}
	var state string
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&state, &n}, func() error {
		g.holds[state] = n
		return nil
	}); err != nil {
		return fmt.Errorf("count holds of %s: %w", g.Name, err)
	}
	rows, err = tx.Query(ctx, `
SELECT event_id FROM `+table+` WHERE grp = $1 AND state = 'dead' ORDER BY id LIMIT $2`, g.Name, firstPlaces)
	if err != nil {
		return fmt.Errorf("list dead letters of %s: %w", g.Name, err)
	}
	if g.dead, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID]); err != nil {
		return fmt.Errorf("list dead letters of %s: %w", g.Name, err)
	}
	return nil
}
