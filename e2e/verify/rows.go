package verify

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"orderflow/internal/kafka"
)

// rowsSQL reads the whole outbox, in no order, and tells which rows the
// checkpoint's point covers: those that $1 sees, and of those that $2 sees
// the ones up to seq $3. See package source for what a point means.
const rowsSQL = `
SELECT event_id, aggregate_id, aggregate_version, topic,
       pg_visible_in_snapshot(xid, $1::pg_snapshot) OR seq <= $3::bigint AND pg_visible_in_snapshot(xid, $2::pg_snapshot)
FROM outbox.events`

const (
	colEventID = iota
	colAggregateID
	colVersion
	colTopic
	colCovered
	columnCount
)

var errColumns = errors.New("columns of the outbox are not of the expected types")

// covering turns a point of the poll source into rowsSQL's parameters.
func covering(point string) ([][]byte, error) {
	const nothing = "1:1:"
	fields := strings.Fields(point)
	switch len(fields) {
	case 0:
		fields = []string{nothing, nothing, "0"}
	case 1:
		fields = []string{fields[0], fields[0], strconv.FormatInt(math.MaxInt64, 10)}
	case 3:
	default:
		return nil, fmt.Errorf("the checkpoint's point %q is none of the poll source", point)
	}
	params := make([][]byte, len(fields))
	for i, f := range fields {
		params[i] = []byte(f)
	}
	return params, nil
}

// readOutbox reads every row. Its statement's snapshot is newer than the
// bounds of the log, so whatever was published by then has a row in it.
func (c *check) readOutbox(ctx context.Context) error {
	params, err := covering(string(c.checkpoint.Point))
	if err != nil {
		return err
	}
	ctx, progress, stop := waitFor(ctx, "the outbox", c.cfg.Patience)
	defer stop()
	conn, err := c.cfg.DB.Acquire(ctx)
	if err != nil {
		return causeOf(ctx, fmt.Errorf("read the outbox: %w", err))
	}
	defer conn.Release()
	binaryResults := []int16{1}
	rr := conn.Conn().PgConn().ExecParams(ctx, rowsSQL, params, nil, nil, binaryResults)
	for rr.NextRow() {
		if err = c.takeRow(rr.Values()); err != nil {
			break
		}
		const often = 1024
		if c.report.Outbox.Rows%often == 0 {
			progress.moved()
		}
	}
	if err != nil {
		stop() // ends the statement, and with it the connection
	}
	_, cerr := rr.Close()
	if err == nil && cerr != nil {
		err = fmt.Errorf("read the outbox: %w", causeOf(ctx, cerr))
	}
	return err
}

func (c *check) takeRow(v [][]byte) error {
	if len(v) != columnCount || len(v[colEventID]) != 16 || len(v[colVersion]) != 8 || len(v[colCovered]) != 1 {
		return fmt.Errorf("read the outbox: %w", errColumns)
	}
	t, ok := c.topics.byName[string(v[colTopic])]
	if !ok {
		var err error
		if t, err = c.topics.named(string(v[colTopic])); err != nil {
			return err
		}
	}
	row := tuple{
		id: uuid.UUID(v[colEventID]), aggregate: c.hash.digest(v[colAggregateID]), offset: -1,
		version: int64(binary.BigEndian.Uint64(v[colVersion])), topic: t.index,
	}
	if t.pinned > 0 {
		row.partition = kafka.Partition(v[colAggregateID], t.pinned)
	}
	out := &c.report.Outbox
	out.Rows++
	if v[colCovered][0] != 0 {
		row.flags = covered
		out.Published++
		t.rows++
	} else {
		out.Backlog++
	}
	if t.compacted {
		return nil
	}
	return c.rows.add(c.hash.id(row.id), &row)
}
