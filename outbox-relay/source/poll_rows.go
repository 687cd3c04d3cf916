package source

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// columns are what an Event is made of, in the order that [Poll.add] reads.
const columns = `seq, created_at, event_id, aggregate_id, event_type, topic, schema_fp, payload, headers`

const (
	colUntil = iota
	colSeq
	colCreatedAt
	colEventID
	colAggregateID
	colEventType
	colTopic
	colSchemaFP
	colPayload
	colHeaders
	columnCount
)

// postgresEpoch is what binary timestamps count from, in microseconds.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// result is what a query said beside the rows that went into the batch.
type result struct {
	until string // tick only: the snapshot of the statement
	rows  int    // rows that the server sent
	cut   bool   // rows were left out because the batch was full
}

// read runs a prepared query and takes its rows into b until the batch's
// bytes are used up. It asks for binary results and copies each value once.
func (p *Poll) read(ctx context.Context, b *Batch, query string, args ...string) (result, error) {
	params := make([][]byte, len(args))
	for i, a := range args {
		params[i] = []byte(a)
	}
	binaryResults := []int16{1}
	rr := p.conn.PgConn().ExecPrepared(ctx, query, params, nil, binaryResults)
	var res result
	var bad error
	for rr.NextRow() {
		v := rr.Values()
		if res.until == "" && v[colUntil] != nil {
			res.until = string(v[colUntil])
		}
		if v[colSeq] == nil || bad != nil {
			continue
		}
		res.rows++
		if len(b.Events) > 0 && b.Bytes+len(v[colPayload])+len(v[colHeaders]) > p.cfg.MaxBatchBytes {
			res.cut = true
		}
		if !res.cut {
			bad = p.add(b, v)
		}
	}
	if _, err := rr.Close(); err != nil {
		return result{}, fmt.Errorf("read outbox by %s: %w", query, err)
	}
	p.adapt(b)
	return res, bad
}

// adapt sets the next query's row limit by the size of these rows.
func (p *Poll) adapt(b *Batch) {
	if n := len(b.Events); n > 0 {
		fit := p.cfg.MaxBatchBytes * n / max(b.Bytes, 1)
		p.limit = min(max(fit, minLimit), p.cfg.MaxBatchRows)
	}
}

func (p *Poll) add(b *Batch, v [][]byte) error {
	if len(v) != columnCount || len(v[colSeq]) != 8 || len(v[colCreatedAt]) != 8 ||
		len(v[colEventID]) != 16 || len(v[colSchemaFP]) != 8 {
		return fmt.Errorf("read outbox row: columns are not of the expected types, migrate the database")
	}
	micros := int64(binary.BigEndian.Uint64(v[colCreatedAt]))
	b.Events = append(b.Events, Event{
		Seq:         int64(binary.BigEndian.Uint64(v[colSeq])),
		CreatedAt:   postgresEpoch.Add(time.Duration(micros) * time.Microsecond),
		ID:          [16]byte(v[colEventID]),
		AggregateID: b.keep(v[colAggregateID]),
		Type:        p.name(v[colEventType]),
		Topic:       p.name(v[colTopic]),
		SchemaFP:    int64(binary.BigEndian.Uint64(v[colSchemaFP])),
		Payload:     b.keep(v[colPayload]),
		Headers:     b.keep(v[colHeaders]),
	})
	return nil
}

// name returns the one string for a value that repeats in every row.
func (p *Poll) name(v []byte) string {
	if s, ok := p.names[string(v)]; ok {
		return s
	}
	const bound = 10_000 // more names than a catalogue has: someone writes ids into them
	if len(p.names) >= bound {
		clear(p.names)
	}
	s := string(v)
	p.names[s] = s
	return s
}

// A Poll's point is one snapshot when everything visible in it is handed out,
// or, within a window, "before until seq".

// beginning is a snapshot in which nothing is visible.
const beginning = "1:1:"

func (p *Poll) point() Point {
	if p.window == nil {
		return Point(p.before)
	}
	return Point(fmt.Sprintf("%s %s %d", p.before, p.window.until, p.window.last))
}

// horizon is the xmax of the latest snapshot, whose text is xmin:xmax:xip,...
func (p *Poll) horizon() uint64 {
	latest := p.before
	if p.window != nil {
		latest = p.window.until
	}
	parts := strings.SplitN(latest, ":", 3)
	if len(parts) < 3 {
		return 0
	}
	xmax, _ := strconv.ParseUint(parts[1], 10, 64) // the server wrote it
	return xmax
}

func (p *Poll) start(after Point) error {
	fields := strings.Fields(string(after))
	switch len(fields) {
	case 0:
		p.before = beginning
		return nil
	case 1:
		p.before = fields[0]
		return nil
	case 3:
		last, err := strconv.ParseInt(fields[2], 10, 64)
		if err == nil {
			p.before, p.window = fields[0], &window{until: fields[1], last: last}
			return nil
		}
	}
	return fmt.Errorf("start poll source: %q is no point of this source", after)
}
