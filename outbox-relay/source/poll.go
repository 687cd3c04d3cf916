package source

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"orderflow/internal/pg"
)

// Poll reads the outbox by plain queries. A window is what became visible
// between two snapshots; its rows are handed out in the order of seq. A writer
// holds its aggregate's row lock until it commits, so whatever an aggregate's
// later event is visible in, its earlier event is too, and within a window seq
// orders them. Cursors over id or xid do not have this property: ids are not
// commit order.
type Poll struct {
	conn *pgx.Conn
	cfg  PollConfig
	free chan *Batch

	before string  // snapshot whose rows are all handed out
	window *window // the large window that is being handed out, or nil
	limit  int     // rows to ask for, so that they fit MaxBatchBytes
	names  map[string]string
}

// window is a snapshot pair too large for one batch, handed out by pages.
type window struct {
	until   string // the later snapshot
	last    int64  // seq of the last row handed out
	end     int64  // seq of the last row of the window
	counted bool   // whether end is known
}

// PollConfig says how a Poll reads. Zero fields take their defaults.
type PollConfig struct {
	// DB says where the outbox is. Poll opens one connection of its own.
	DB pg.Config
	// Tick is the pause after a query that found nothing. Default and
	// maximum 10 ms.
	Tick time.Duration
	// MaxBatchRows bounds the events of a batch. Default 4,000.
	MaxBatchRows int
	// MaxBatchBytes bounds the rows' bytes of a batch; a single larger row
	// still passes. Default 2 MiB.
	MaxBatchBytes int
	// Batches bounds how many batches are out at once; Next waits for a
	// Release when all are. Default 8.
	Batches int
}

const (
	maxTick      = 10 * time.Millisecond
	queryTimeout = 60 * time.Second
	minLimit     = 16
)

func (c PollConfig) withDefaults() PollConfig {
	if c.Tick <= 0 || c.Tick > maxTick {
		c.Tick = maxTick
	}
	if c.MaxBatchRows <= 0 {
		c.MaxBatchRows = 4000
	}
	if c.MaxBatchBytes <= 0 {
		c.MaxBatchBytes = 2 << 20
	}
	if c.Batches <= 0 {
		c.Batches = 8
	}
	return c
}

// NewPoll connects and prepares to go on behind the given point.
func NewPoll(ctx context.Context, cfg PollConfig, after Point) (*Poll, error) {
	cfg = cfg.withDefaults()
	p := &Poll{cfg: cfg, limit: cfg.MaxBatchRows, names: make(map[string]string)}
	if err := p.start(after); err != nil {
		return nil, err
	}
	conn, err := connect(ctx, cfg.DB)
	if err != nil {
		return nil, err
	}
	p.conn = conn
	for name, sql := range map[string]string{"tick": tickSQL, "bounds": boundsSQL, "page": pageSQL} {
		if _, err := conn.Prepare(ctx, name, sql); err != nil {
			p.Close()
			return nil, fmt.Errorf("prepare %s query of the outbox: %w", name, err)
		}
	}
	p.free = make(chan *Batch, cfg.Batches)
	for range cfg.Batches {
		p.free <- &Batch{free: p.free}
	}
	return p, nil
}

// connect opens a connection on which the planner reads the outbox by its
// indexes: the rows asked for are always the newest few or the next in line,
// which statistics of a table that grows this fast cannot tell.
func connect(ctx context.Context, c pg.Config) (*pgx.Conn, error) {
	c.Name = "outbox-relay"
	c.Settings = map[string]string{
		"plan_cache_mode":                 "force_generic_plan",
		"enable_seqscan":                  "off",
		"enable_bitmapscan":               "off",
		"enable_sort":                     "off",
		"jit":                             "off",
		"max_parallel_workers_per_gather": "0",
		"default_transaction_read_only":   "on",
	}
	pc, err := c.Parse()
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, pc.ConnConfig)
	if err != nil {
		return nil, fmt.Errorf("connect to the outbox: %w", err)
	}
	return conn, nil
}

// Close ends the connection.
func (p *Poll) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = p.conn.Close(ctx)
}

// Next implements [Source].
func (p *Poll) Next(ctx context.Context) (*Batch, error) {
	var b *Batch
	select {
	case b = <-p.free:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for {
		err := p.fill(ctx, b)
		if err != nil {
			b.Release()
			return nil, err
		}
		if len(b.Events) > 0 {
			return b, nil
		}
		if p.window != nil {
			continue
		}
		select {
		case <-time.After(p.cfg.Tick):
		case <-ctx.Done():
			b.Release()
			return nil, ctx.Err()
		}
	}
}

// fill reads one step into b, which stays empty when there was nothing.
func (p *Poll) fill(ctx context.Context, b *Batch) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	if p.window == nil {
		return p.tick(ctx, b)
	}
	if !p.window.counted {
		if err := p.bounds(ctx); err != nil || p.window == nil {
			return err
		}
	}
	return p.page(ctx, b)
}

// tickSQL reads what its own snapshot sees and the previous one ($1) did not,
// at most $2 rows, in no order. Each branch is one index range.
// pg_current_snapshot is the statement's own snapshot, so no row that it
// returns is missing from it:
// https://www.postgresql.org/docs/15/functions-info.html#FUNCTIONS-INFO-SNAPSHOT
const tickSQL = `
SELECT s.until, w.* FROM (SELECT pg_current_snapshot()::text AS until) s
LEFT JOIN (
  SELECT ` + columns + ` FROM outbox.events WHERE xid >= pg_snapshot_xmax($1::pg_snapshot)
  UNION ALL
  SELECT ` + columns + ` FROM outbox.events WHERE xid = ANY(ARRAY(SELECT pg_snapshot_xip($1::pg_snapshot)))
  LIMIT $2::bigint
) w ON true`

func (p *Poll) tick(ctx context.Context, b *Batch) error {
	limit := p.limit
	res, err := p.read(ctx, b, "tick", p.before, fmt.Sprint(limit+1))
	if err != nil {
		return err
	}
	if res.rows > limit || res.cut {
		// Too much for one batch. The rows came in no order, so none of
		// them may go out before the window's first is known.
		b.reset()
		p.window = &window{until: res.until}
		return nil
	}
	slices.SortFunc(b.Events, func(x, y Event) int {
		if x.Seq < y.Seq {
			return -1
		}
		return 1
	})
	p.before = res.until
	b.After, b.Horizon = p.point(), p.horizon()
	return nil
}

// boundsSQL finds the first and the last seq of the window ($1, $2), reading
// it by xid. The first is what pages start from: rows before it, handed out
// long ago, must not be read again only to be skipped.
const boundsSQL = `
SELECT min(seq), max(seq) FROM (
  SELECT seq FROM outbox.events
  WHERE xid >= pg_snapshot_xmax($1::pg_snapshot) AND xid < pg_snapshot_xmax($2::pg_snapshot)
    AND pg_visible_in_snapshot(xid, $2::pg_snapshot)
  UNION ALL
  SELECT seq FROM outbox.events
  WHERE xid = ANY(ARRAY(SELECT pg_snapshot_xip($1::pg_snapshot)))
    AND pg_visible_in_snapshot(xid, $2::pg_snapshot)
  OFFSET 0
) w`

func (p *Poll) bounds(ctx context.Context) error {
	var first, last *int64
	w := p.window
	if err := p.conn.QueryRow(ctx, "bounds", p.before, w.until).Scan(&first, &last); err != nil {
		return fmt.Errorf("find the bounds of an outbox window: %w", err)
	}
	if first == nil || *last <= w.last {
		p.closeWindow()
		return nil
	}
	w.last = max(w.last, *first-1)
	w.end, w.counted = *last, true
	return nil
}

// pageSQL reads the window ($1, $2) behind seq $3 up to seq $4 in order. The
// condition on xid is written so that only the index on seq can serve it.
const pageSQL = `
SELECT NULL::text, ` + columns + ` FROM outbox.events
WHERE seq > $3::bigint AND seq <= $4::bigint
  AND pg_visible_in_snapshot(xid, $2::pg_snapshot) AND NOT pg_visible_in_snapshot(xid, $1::pg_snapshot)
ORDER BY seq LIMIT $5::bigint`

func (p *Poll) page(ctx context.Context, b *Batch) error {
	w, limit := p.window, p.limit
	res, err := p.read(ctx, b, "page", p.before, w.until, fmt.Sprint(w.last), fmt.Sprint(w.end), fmt.Sprint(limit))
	if err != nil {
		return err
	}
	if n := len(b.Events); n > 0 {
		w.last = b.Events[n-1].Seq
	}
	if !res.cut && res.rows < limit || w.last >= w.end {
		p.closeWindow()
	}
	b.After, b.Horizon = p.point(), p.horizon()
	return nil
}

func (p *Poll) closeWindow() {
	p.before, p.window = p.window.until, nil
}
