package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"orderflow/schemas"
)

// MaxEventBytes bounds payload and headers of one event together. It leaves
// room below the broker's default of 1 MiB a record batch.
const MaxEventBytes = 900_000

// ErrTooLarge says that an event exceeds [MaxEventBytes].
var ErrTooLarge = errors.New("event too large")

// Row is an event made ready for the table: checked, encoded, its frame open.
type Row struct {
	EventID          uuid.UUID
	AggregateType    string
	AggregateID      string
	AggregateVersion int64
	EventType        string
	Topic            string
	SchemaFP         int64
	// Payload is the value of the Kafka record to be: five bytes that the
	// relay fills with the registry's frame, then the Avro body.
	Payload []byte
	// Headers are in the compact form of [AppendHeaders].
	Headers []byte
}

// Prepare checks and encodes an event outside of any transaction. It fills
// the envelope's EventType, and RecordedAt where it is zero.
func Prepare(ctx context.Context, e schemas.Event) (Row, error) {
	s, meta := e.EventSchema(), e.Envelope()
	meta.EventType = s.FullName
	if meta.RecordedAt.IsZero() {
		meta.RecordedAt = time.Now().UTC().Truncate(time.Microsecond)
	}
	id, err := checkEnvelope(meta)
	if err != nil {
		return Row{}, fmt.Errorf("prepare %s: %w", s.FullName, err)
	}
	payload, err := s.AppendFramed(make([]byte, 0, payloadGuess), e)
	if err != nil {
		return Row{}, fmt.Errorf("prepare %s %s: %w", s.FullName, meta.EventID, err)
	}
	headers := appendEnvelope(make([]byte, 0, headersGuess), meta, traceparent(ctx))
	if n := len(payload) + len(headers); n > MaxEventBytes {
		return Row{}, fmt.Errorf("prepare %s %s: %d bytes, at most %d: %w",
			s.FullName, meta.EventID, n, MaxEventBytes, ErrTooLarge)
	}
	return Row{
		EventID:          id,
		AggregateType:    s.Aggregate,
		AggregateID:      schemas.Key(e),
		AggregateVersion: meta.OrderVersion,
		EventType:        s.FullName,
		Topic:            s.Topic,
		SchemaFP:         s.Fingerprint,
		Payload:          payload,
		Headers:          headers,
	}, nil
}

// Initial capacities, of a typical order.
const (
	payloadGuess = 512
	headersGuess = 192
)

func checkEnvelope(m *schemas.EventMeta) (uuid.UUID, error) {
	id, err := uuid.Parse(m.EventID)
	var errs []error
	if err != nil {
		errs = append(errs, fmt.Errorf("event id %q is no UUID", m.EventID))
	}
	if m.OrderID == "" {
		errs = append(errs, errors.New("no order id"))
	}
	if m.OrderVersion < 1 {
		errs = append(errs, fmt.Errorf("order version %d, want 1 or more", m.OrderVersion))
	}
	if m.OccurredAt.IsZero() {
		errs = append(errs, errors.New("no time of occurrence"))
	}
	if m.Producer == "" {
		errs = append(errs, errors.New("no producer"))
	}
	return id, errors.Join(errs...)
}

// Follow fills the envelope of e as a consequence of cause, told by group. Its
// id is derived from the cause, so a handler that runs again makes the same
// event: UUIDv5 over cause id, group, type and ordinal, the place of e among
// the events of its type that this cause leads to.
func Follow(cause *schemas.EventMeta, group string, e schemas.Event, version int64, ordinal int) {
	causation := cause.EventID
	name := fmt.Sprintf("%s|%s|%s|%d", cause.EventID, group, e.EventSchema().FullName, ordinal)
	now := time.Now().UTC().Truncate(time.Microsecond)
	*e.Envelope() = schemas.EventMeta{
		EventID:       uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)).String(),
		EventType:     e.EventSchema().FullName,
		OrderID:       cause.OrderID,
		OrderVersion:  version,
		OccurredAt:    now,
		RecordedAt:    now,
		CorrelationID: cause.CorrelationID,
		CausationID:   &causation,
		Producer:      group,
		Flow:          cause.Flow,
		Synthetic:     cause.Synthetic,
	}
}
