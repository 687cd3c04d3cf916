package consumers

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"orderflow/internal/pg"
)

// sqlstateFenced is what consumer_fence raises.
const sqlstateFenced = "OF001"

// fenceSQL moves a position, or fails the transaction: see the migration.
const fenceSQL = `SELECT consumer_fence($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`

// settingsSQL holds for one transaction: a frozen process must not keep the
// row of its partition locked.
const settingsSQL = `SELECT set_config('idle_in_transaction_session_timeout', $1, true), set_config('lock_timeout', $2, true)`

const heldKeysSQL = `
SELECT DISTINCT sequence_key FROM consumer_hold
WHERE grp = $1 AND topic = $2 AND part = $3 AND state IN ('retry', 'parked', 'dead') AND sequence_key = ANY ($4)`

// readBackSQL waits for a transaction that may still be committing.
const readBackSQL = `
SELECT fence, next_offset FROM consumer_position
WHERE grp = $1 AND topic = $2 AND part = $3 FOR UPDATE`

// move is how far a batch takes a partition's row.
type move struct {
	next         int64
	epoch        int32
	count, hash  int64
	recordTS     *time.Time
	sources      []string
	incarnations []int64
	ns           []int64
}

// moveOver sums up items, which must not be empty.
func moveOver(items []item) move {
	last := items[len(items)-1].record
	m := move{next: last.Offset + 1, epoch: last.LeaderEpoch, sources: []string{}, incarnations: []int64{}, ns: []int64{}}
	for n := range items {
		i := &items[n]
		if i.marker {
			continue
		}
		m.count++
		m.hash += EventHash(i.id)
		m.recordTS = &i.record.Timestamp
		m.note(i)
	}
	return m
}

// note keeps the last number of each source. There is one source as a rule.
func (m *move) note(i *item) {
	for n := len(m.sources) - 1; n >= 0; n-- {
		if m.sources[n] == i.position.Source {
			m.incarnations[n], m.ns[n] = int64(i.position.Incarnation), int64(i.position.N)
			return
		}
	}
	m.sources = append(m.sources, i.position.Source)
	m.incarnations = append(m.incarnations, int64(i.position.Incarnation))
	m.ns = append(m.ns, int64(i.position.N))
}

// readBack asks until the database answers or the partition is given up; then
// the next owner's claim reads the truth.
func (p *partition) readBack(m move, lost error) error {
	for attempt := 1; ; attempt++ {
		var fence, next int64
		ctx, cancel := context.WithTimeout(p.ctx, p.group.limits.LockTimeout)
		err := p.group.db.QueryRow(ctx, readBackSQL, p.group.name, p.topic, p.id).Scan(&fence, &next)
		cancel()
		switch {
		case err == nil && fence == p.fence && next == m.next:
			p.group.metrics.commitUnknown.WithLabelValues("committed").Inc()
			return nil
		case err == nil && fence == p.fence && next == p.next:
			p.group.metrics.commitUnknown.WithLabelValues("retry").Inc()
			return fmt.Errorf("commit: %w", lost)
		case err == nil:
			p.group.metrics.commitUnknown.WithLabelValues("fenced").Inc()
			return &fencedError{fmt.Errorf("position of %s[%d] is fence %d at %d, not fence %d", p.topic, p.id, fence, next, p.fence)}
		case !p.pause(p.group.backoff(attempt)):
			return errStopping
		}
	}
}

// Position is how far a group has come in one partition.
type Position struct {
	Group     string
	Topic     string
	Partition int32
	// NextOffset is the first offset not yet applied.
	NextOffset int64
	// AppliedCount and AppliedHash run over the events of every offset below
	// NextOffset: how many, and the sum of their EventHash modulo 2^64.
	AppliedCount, AppliedHash int64
	Fence                     int64
	Owner                     string
	// LastRecord is the time of the newest event applied, zero if none.
	LastRecord time.Time
}

// Positions reads where a group stands, one row per partition, from the
// group's schema, which need not be on the search_path.
func Positions(ctx context.Context, db pg.DB, group string) ([]Position, error) {
	rows, err := db.Query(ctx, `
SELECT grp, topic, part, next_offset, applied_count, applied_hash, fence, owner, coalesce(last_record_ts, '0001-01-01Z')
FROM `+pgx.Identifier{group, "consumer_position"}.Sanitize()+` WHERE grp = $1 ORDER BY topic, part`, group)
	if err != nil {
		return nil, fmt.Errorf("read positions of %s: %w", group, err)
	}
	positions, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Position])
	if err != nil {
		return nil, fmt.Errorf("read positions of %s: %w", group, err)
	}
	return positions, nil
}
