package source

import (
	"context"
	"fmt"
	"time"

	"orderflow/internal/pg"
)

// Backlog is what a source has not handed out at a point.
type Backlog struct {
	// Events counts them, up to the limit that was asked for.
	Events int64
	// Oldest is when the first of them was appended; zero if there is none.
	Oldest time.Time
}

// PollBacklog counts the committed events behind a point of the poll source,
// at most limit of them.
func PollBacklog(ctx context.Context, db pg.DB, after Point, limit int64) (Backlog, error) {
	var p Poll
	if err := p.start(after); err != nil {
		return Backlog{}, err
	}
	within, last := p.before, int64(0)
	if p.window != nil {
		within, last = p.window.until, p.window.last
	}
	// A row is behind the point unless it is visible in the earlier snapshot,
	// or in the later one and not beyond the last seq.
	const behind = `NOT (pg_visible_in_snapshot(xid, $2::pg_snapshot) AND seq <= $3)`
	var b Backlog
	var oldest *time.Time
	err := db.QueryRow(ctx, `
		SELECT count(*), min(created_at) FROM (
		  SELECT created_at FROM outbox.events WHERE xid >= pg_snapshot_xmax($1::pg_snapshot) AND `+behind+`
		  UNION ALL
		  SELECT created_at FROM outbox.events WHERE xid = ANY(ARRAY(SELECT pg_snapshot_xip($1::pg_snapshot))) AND `+behind+`
		  LIMIT $4) w`, p.before, within, last, limit).Scan(&b.Events, &oldest)
	if err != nil {
		return Backlog{}, fmt.Errorf("count the outbox's backlog: %w", err)
	}
	if oldest != nil {
		b.Oldest = *oldest
	}
	return b, nil
}
