package outbox

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"orderflow/internal/kafka"
	"orderflow/schemas"
)

// The compact form of headers is a sequence of tag (1 byte), length (uvarint)
// and value. Each tag stands for one of our header names; what the table has
// as a column (id, type, subject) is not repeated.
const (
	tagSource byte = iota + 1
	tagTime
	tagCorrelation
	tagCausation
	tagTraceparent
)

// headerNames is indexed by tag.
var headerNames = [...]string{
	tagSource:      kafka.HeaderSource,
	tagTime:        kafka.HeaderTime,
	tagCorrelation: kafka.HeaderCorrelation,
	tagCausation:   kafka.HeaderCausation,
	tagTraceparent: kafka.HeaderTraceparent,
}

// ErrHeaders says that bytes are not headers in the compact form.
var ErrHeaders = errors.New("outbox headers: broken compact form")

// sourcePrefix makes a CloudEvents source, a URI reference, of a producer.
const sourcePrefix = "/services/"

func appendEnvelope(dst []byte, m *schemas.EventMeta, traceparent string) []byte {
	dst = append(dst, tagSource)
	dst = binary.AppendUvarint(dst, uint64(len(sourcePrefix)+len(m.Producer)))
	dst = append(dst, sourcePrefix...)
	dst = append(dst, m.Producer...)

	var when [len(time.RFC3339Nano)]byte
	dst = appendHeader(dst, tagTime, string(m.OccurredAt.UTC().AppendFormat(when[:0], time.RFC3339Nano)))
	dst = appendHeader(dst, tagCorrelation, m.CorrelationID)
	if m.CausationID != nil {
		dst = appendHeader(dst, tagCausation, *m.CausationID)
	}
	return appendHeader(dst, tagTraceparent, traceparent)
}

func appendHeader(dst []byte, tag byte, value string) []byte {
	if value == "" {
		return dst
	}
	dst = append(dst, tag)
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	return append(dst, value...)
}

// NextHeader takes the first header off b: its name, its value (a slice of b)
// and what follows.
func NextHeader(b []byte) (name string, value, rest []byte, err error) {
	if len(b) < 2 || b[0] == 0 || int(b[0]) >= len(headerNames) {
		return "", nil, nil, ErrHeaders
	}
	n, w := binary.Uvarint(b[1:])
	if w <= 0 || n > uint64(len(b)-1-w) {
		return "", nil, nil, ErrHeaders
	}
	start := 1 + w
	return headerNames[b[0]], b[start : start+int(n)], b[start+int(n):], nil
}

type traceparentKey struct{}

// WithTraceparent gives the W3C trace context of a request to the events that
// are prepared under ctx. Text that is no traceparent is left out.
func WithTraceparent(ctx context.Context, traceparent string) context.Context {
	if !validTraceparent(traceparent) {
		return ctx
	}
	return context.WithValue(ctx, traceparentKey{}, traceparent)
}

func traceparent(ctx context.Context) string {
	s, _ := ctx.Value(traceparentKey{}).(string)
	return s
}

// validTraceparent checks the shape that https://www.w3.org/TR/trace-context/
// gives to version 00: version-traceid-parentid-flags in lower-case hex.
func validTraceparent(s string) bool {
	const shape = "xx-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-xx"
	if len(s) != len(shape) {
		return false
	}
	for i := range len(s) {
		hex := s[i] >= '0' && s[i] <= '9' || s[i] >= 'a' && s[i] <= 'f'
		if shape[i] == '-' && s[i] != '-' || shape[i] == 'x' && !hex {
			return false
		}
	}
	return true
}
