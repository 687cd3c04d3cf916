package consumers

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/schemas"
)

// States of a hold that this version makes.
const (
	stateDead   = "dead"
	stateParked = "parked"
)

// Classes of errors in holds; a closed set, used as a label.
const (
	classDecode  = "decode"
	classSchema  = "schema"
	classHandler = "handler"
)

// maxErrorMessage bounds the text kept with a dead letter, in bytes.
const maxErrorMessage = 512

// hold is an event set aside: dead with its error, or parked behind a dead
// event of its key.
type hold struct {
	item  *item
	state string
	err   error
}

func (h hold) class() string {
	switch {
	case h.item.undecoded == nil:
		return classHandler
	case errors.Is(h.item.undecoded, schemas.ErrIncompatible):
		return classSchema
	default:
		return classDecode
	}
}

const holdSQL = `
INSERT INTO consumer_hold (grp, topic, part, off, sequence_key, state, attempts, error_class, fingerprint,
    error_message, first_failed_at, last_failed_at, event_id, event_type, record_ts, key, value, headers)
SELECT $1, $2, $3, * FROM unnest($4::bigint[], $5::bytea[], $6::text[], $7::int[], $8::text[], $9::bytea[],
    $10::text[], $11::timestamptz[], $12::timestamptz[], $13::uuid[], $14::text[], $15::timestamptz[], $16::bytea[], $17::bytea[], $18::bytea[])`

// writeHolds stores holds in the transaction that moves the position past them.
func (p *partition) writeHolds(ctx context.Context, tx pgx.Tx, holds []hold) error {
	if len(holds) == 0 {
		return nil
	}
	n := len(holds)
	offsets, keys, states, attempts := make([]int64, n), make([][]byte, n), make([]string, n), make([]int32, n)
	classes, prints, messages := make([]*string, n), make([][]byte, n), make([]*string, n)
	failed, ids, types := make([]*time.Time, n), make([][16]byte, n), make([]string, n)
	times, rawKeys, values, headers := make([]time.Time, n), make([][]byte, n), make([][]byte, n), make([][]byte, n)
	now := time.Now()
	for i, h := range holds {
		r := h.item.record
		offsets[i], keys[i], states[i] = r.Offset, sequenceKey(r), h.state
		ids[i], types[i], times[i] = h.item.id, clean(h.item.eventType), r.Timestamp
		rawKeys[i], values[i], headers[i] = r.Key, r.Value, appendHeaders(nil, r.Headers)
		if h.state != stateDead {
			continue
		}
		class, message := h.class(), clean(h.err.Error())
		attempts[i], classes[i], messages[i], failed[i] = 1, &class, &message, &now
		prints[i] = fingerprint(class, message)
	}
	_, err := tx.Exec(ctx, holdSQL, p.group.name, p.topic, p.id, offsets, keys, states, attempts, classes, prints,
		messages, failed, failed, ids, types, times, rawKeys, values, headers)
	if err != nil {
		return fmt.Errorf("write holds: %w", err)
	}
	return nil
}

// sequenceKey is never NULL, so that events without a key are kept in order too.
func sequenceKey(r *kgo.Record) []byte {
	if r.Key == nil {
		return []byte{}
	}
	return r.Key
}

// clean makes a text that Postgres takes and an operator can read.
func clean(s string) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) <= maxErrorMessage {
		return s
	}
	cut := maxErrorMessage
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}

// fingerprint groups dead letters of one cause: numbers in the message, such
// as ids and offsets, do not count.
func fingerprint(class, message string) []byte {
	shape := strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return '0'
		}
		return r
	}, message)
	sum := sha256.Sum256([]byte(class + "\n" + shape))
	return sum[:16]
}

// appendHeaders writes headers as the column consumer_hold.headers keeps them.
func appendHeaders(dst []byte, headers []kgo.RecordHeader) []byte {
	for _, h := range headers {
		dst = binary.AppendUvarint(dst, uint64(len(h.Key)))
		dst = append(dst, h.Key...)
		dst = binary.AppendUvarint(dst, uint64(len(h.Value)))
		dst = append(dst, h.Value...)
	}
	return dst
}
