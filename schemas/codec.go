package schemas

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"

	"github.com/twmb/avro"
)

// FrameSize is the length of the frame before every Avro body: the byte 0x00
// and the schema's id as a big-endian uint32, as the schema registry's
// serializers write it.
const FrameSize = 5

// ErrMalformed says that bytes are not a framed Avro value, or not one that
// their schema can read. It never goes away by waiting.
var ErrMalformed = errors.New("malformed event")

// Schema is one event type as this program was built with it. The table of
// schemas is generated; nobody else makes one.
type Schema struct {
	// FullName is the Avro full name and the event's type everywhere.
	FullName string
	// Topic is where events of the type are published.
	Topic string
	// Aggregate is the kind of thing that the key identifies.
	Aggregate string
	// Subject is the name under which the registry keeps the schema:
	// the topic, a dash, and the full name.
	Subject string
	// Text is the one rendering of the schema that is ever registered.
	Text string
	// Fingerprint is the first 8 bytes of the SHA-256 of Subject, a line
	// feed and Text, read as a big-endian integer.
	Fingerprint int64
	// New returns an empty event of the type.
	New func() Event

	once  sync.Once // guards codec, err
	codec *avro.Schema
	err   error
}

// avro returns the parsed schema, parsed at first use.
func (s *Schema) avro() (*avro.Schema, error) {
	s.once.Do(func() { s.codec, s.err = avro.Parse(s.Text) })
	return s.codec, s.err
}

// AppendFramed appends e to dst with its frame left open: five zero bytes, to
// be filled by PutSchemaID, and the Avro body. On an error dst is returned as
// it was given.
func (s *Schema) AppendFramed(dst []byte, e Event) ([]byte, error) {
	if e == nil {
		return dst, fmt.Errorf("encode %s: no event given", s.FullName)
	}
	if e.EventSchema() != s {
		return dst, fmt.Errorf("encode %s: given a %s", s.FullName, e.EventSchema().FullName)
	}
	codec, err := s.avro()
	if err != nil {
		return dst, fmt.Errorf("encode %s: %w", s.FullName, err)
	}
	framed, err := codec.AppendEncode(append(dst, 0, 0, 0, 0, 0), e)
	if err != nil {
		return dst, fmt.Errorf("encode %s: %w", s.FullName, err)
	}
	return framed, nil
}

// DecodeBody decodes an Avro body that was written with this very schema, such
// as one still waiting in an outbox. What came through Kafka may have been
// written with another: use a Decoder.
func (s *Schema) DecodeBody(body []byte) (Event, error) {
	codec, err := s.avro()
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", s.FullName, err)
	}
	return s.decode(codec, body)
}

func (s *Schema) decode(codec *avro.Schema, body []byte) (Event, error) {
	e := s.New()
	rest, err := codec.Decode(body, e)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w: %w", s.FullName, ErrMalformed, err)
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("decode %s: %w: %d bytes are left over", s.FullName, ErrMalformed, len(rest))
	}
	return e, nil
}

// PutSchemaID fills the frame at the head of framed. It does nothing to a
// value shorter than a frame.
func PutSchemaID(framed []byte, id int) {
	if len(framed) < FrameSize {
		return
	}
	framed[0] = 0
	binary.BigEndian.PutUint32(framed[1:FrameSize], uint32(id))
}

// SchemaID reads the frame at the head of framed and returns the schema's id
// and the Avro body behind the frame. The error is ErrMalformed.
func SchemaID(framed []byte) (id int, body []byte, err error) {
	if len(framed) < FrameSize {
		return 0, nil, fmt.Errorf("read frame: %w: %d bytes are no frame", ErrMalformed, len(framed))
	}
	if framed[0] != 0 {
		return 0, nil, fmt.Errorf("read frame: %w: first byte is 0x%02x, not 0x00", ErrMalformed, framed[0])
	}
	n := binary.BigEndian.Uint32(framed[1:FrameSize])
	if n == 0 || n > math.MaxInt32 {
		return 0, nil, fmt.Errorf("read frame: %w: schema id %d", ErrMalformed, n)
	}
	return int(n), framed[FrameSize:], nil
}

func compareFullName(s *Schema, name string) int { return strings.Compare(s.FullName, name) }
