package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/outbox-relay"
	"orderflow/schemas"
)

// checkpointVersion is the form of a checkpoint that this package reads.
const checkpointVersion = 1

// errOtherDatabase says that there is nothing to compare.
var errOtherDatabase = errors.New("the checkpoint in Kafka was written for another database")

// readCheckpoint finds what is published. Kafka's checkpoint is the truth. The
// database's copy is older as a rule, and is read first: when it is newer,
// Kafka lost events that were committed, and the copy tells which.
func (c *check) readCheckpoint(ctx context.Context) error {
	ctx, _, stop := waitFor(ctx, "the relay's checkpoint", c.cfg.Patience)
	defer stop()
	system, copied, err := c.copiedCheckpoint(ctx)
	if err != nil {
		return causeOf(ctx, err)
	}
	logged, err := c.loggedCheckpoint(ctx)
	if err != nil {
		return causeOf(ctx, err)
	}
	switch {
	case copied != nil && (logged == nil || logged.Number < copied.Number):
		c.checkpoint = *copied
		c.report.Checkpoint.LostInKafka = true
	case logged != nil:
		c.checkpoint = *logged
	default:
		c.checkpoint = relay.Checkpoint{Kind: relay.KindPoll, System: system}
	}
	cp := &c.checkpoint
	c.report.Checkpoint.Number, c.report.Checkpoint.Term, c.report.Checkpoint.Incarnation = cp.Number, cp.Term, cp.Incarnation
	if cp.Kind != relay.KindPoll {
		return fmt.Errorf("the outbox is read by the %s source, whose restart points this version cannot compare", cp.Kind)
	}
	if cp.System != system {
		return fmt.Errorf("%w: %s, this is %s", errOtherDatabase, cp.System, system)
	}
	return nil
}

// copiedCheckpoint reads which database this is, and its copy of the
// checkpoint, nil before the first.
func (c *check) copiedCheckpoint(ctx context.Context) (system string, copied *relay.Checkpoint, err error) {
	const systemSQL = `
SELECT (SELECT system_identifier::text FROM pg_control_system()) || '/' ||
       (SELECT oid::text FROM pg_database WHERE datname = current_database())`
	if err := c.cfg.DB.QueryRow(ctx, systemSQL).Scan(&system); err != nil {
		return "", nil, fmt.Errorf("identify the database: %w", err)
	}
	var value []byte
	err = c.cfg.DB.QueryRow(ctx, `SELECT checkpoint FROM outbox.relay WHERE source = $1`, c.cfg.Source).Scan(&value)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return system, nil, nil
	case err != nil:
		return "", nil, fmt.Errorf("read the database's copy of the checkpoint: %w", err)
	case value == nil:
		return system, nil, nil
	}
	copied, err = decodeCheckpoint(value)
	return system, copied, err
}

func decodeCheckpoint(value []byte) (*relay.Checkpoint, error) {
	var cp relay.Checkpoint
	if err := json.Unmarshal(value, &cp); err != nil {
		return nil, fmt.Errorf("decode checkpoint: %w", err)
	}
	if cp.Version != checkpointVersion {
		return nil, fmt.Errorf("decode checkpoint: version %d, this program reads %d", cp.Version, checkpointVersion)
	}
	return &cp, nil
}

// loggedCheckpoint reads the topic of checkpoints backwards in growing steps,
// until a step holds one of the source; nil if there is none.
func (c *check) loggedCheckpoint(ctx context.Context) (*relay.Checkpoint, error) {
	adm := kadm.NewClient(c.client)
	starts, err := listOffsets(ctx, adm.ListStartOffsets, schemas.RelaysTopic)
	if err != nil {
		return nil, err
	}
	// The high watermark, not the last stable offset: a checkpoint whose
	// commit is being written counts, and is waited for.
	ends, err := listOffsets(ctx, adm.ListEndOffsets, schemas.RelaysTopic)
	if err != nil {
		return nil, err
	}
	start, end := starts[schemas.RelaysTopic][0], ends[schemas.RelaysTopic][0]
	const firstStep, growth = 1000, 8
	for step := int64(firstStep); ; step *= growth {
		from := max(start, end-step)
		value, err := c.lastCheckpointIn(ctx, from, end)
		if err != nil {
			return nil, fmt.Errorf("read the checkpoint: %w", err)
		}
		if value != nil {
			return decodeCheckpoint(value)
		}
		if from == start {
			return nil, nil
		}
	}
}

func (c *check) lastCheckpointIn(ctx context.Context, from, end int64) ([]byte, error) {
	if from >= end {
		return nil, nil
	}
	var value []byte
	s := &span{topic: schemas.RelaysTopic, from: from, see: func(r *kgo.Record) (bool, error) {
		if !r.Attrs.IsControl() && r.Offset < end && string(r.Key) == c.cfg.Source {
			value = r.Value
		}
		return r.Offset+1 >= end, nil
	}}
	return value, c.read(ctx, []*span{s})
}
