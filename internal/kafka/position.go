package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Header names of a record: CloudEvents 1.0 in Kafka's binary mode, the W3C
// trace context under its plain name, and the relay's position.
const (
	HeaderID          = "ce_id"
	HeaderType        = "ce_type"
	HeaderSource      = "ce_source"
	HeaderSubject     = "ce_subject"
	HeaderTime        = "ce_time"
	HeaderSpecVersion = "ce_specversion"
	HeaderCorrelation = "ce_correlationid"
	HeaderCausation   = "ce_causationid"
	HeaderTraceparent = "traceparent"
	HeaderPosition    = "outbox-position"
)

// Position numbers the events that one source published to one topic
// partition. In a committed log N has no hole and no repeat, which is what
// consumers check.
type Position struct {
	// AtLeastOnce marks a record that may be repeated; N is then not checked.
	AtLeastOnce bool
	// Incarnation counts the lives of the source's database: a restore from a
	// backup begins a new one, and N begins again at 1.
	Incarnation uint32
	// N counts from 1 per source, incarnation and topic partition.
	N uint64
	// Source is the name of the outbox, 1 to 200 bytes.
	Source string
}

const (
	positionVersion     = 1
	positionFixed       = 1 + 1 + 4 + 8
	flagAtLeastOnce     = 1
	maxSourceNameLength = 200
)

// ErrPosition says that a header is no position of a version we know.
var ErrPosition = errors.New("not a position this version can read")

// Append adds the wire form: version (1 byte, 1), flags (1 byte, bit 0 =
// at-least-once), incarnation (4 bytes), n (8 bytes), both big endian, then
// the source's name in UTF-8.
func (p Position) Append(dst []byte) []byte {
	var flags byte
	if p.AtLeastOnce {
		flags |= flagAtLeastOnce
	}
	dst = append(dst, positionVersion, flags)
	dst = binary.BigEndian.AppendUint32(dst, p.Incarnation)
	dst = binary.BigEndian.AppendUint64(dst, p.N)
	return append(dst, p.Source...)
}

// ParsePosition reads what Append wrote.
func ParsePosition(b []byte) (Position, error) {
	if len(b) <= positionFixed || len(b) > positionFixed+maxSourceNameLength {
		return Position{}, fmt.Errorf("%d bytes: %w", len(b), ErrPosition)
	}
	if b[0] != positionVersion {
		return Position{}, fmt.Errorf("version %d: %w", b[0], ErrPosition)
	}
	return Position{
		AtLeastOnce: b[1]&flagAtLeastOnce != 0,
		Incarnation: binary.BigEndian.Uint32(b[2:6]),
		N:           binary.BigEndian.Uint64(b[6:14]),
		Source:      string(b[14:]),
	}, nil
}
