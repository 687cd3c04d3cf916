package consumers

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/internal/kafka"
	"orderflow/schemas"
)

// item is one record of a batch, read as far as the runtime needs it.
type item struct {
	record    *kgo.Record
	marker    bool // a transaction marker: it moves the position and nothing else
	id        uuid.UUID
	eventType string
	position  kafka.Position
	handler   *Handler      // nil: the type is skipped
	value     schemas.Event // nil: skipped, or undecodable
	undecoded error         // why the value could not be decoded
}

func (i *item) handled() bool { return i.handler != nil }

// read makes items of records up to the first that stops the partition. seq
// moves along. Errors of the registry are returned as they are: waiting helps.
func (g *group) read(ctx context.Context, records []*kgo.Record, seq sequence) ([]item, *stopError, error) {
	items := make([]item, 0, len(records))
	for _, r := range records {
		i, stop := g.open(r, seq)
		if stop != nil {
			stop.err = fmt.Errorf("%s[%d] at offset %d: %w", r.Topic, r.Partition, r.Offset, stop.err)
			return items, stop, nil
		}
		if err := g.decode(ctx, &i); err != nil {
			return nil, nil, fmt.Errorf("decode %s[%d]@%d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		items = append(items, i)
	}
	return items, nil, nil
}

// open reads the headers of a record and checks its number.
func (g *group) open(r *kgo.Record, seq sequence) (item, *stopError) {
	if r.Attrs.IsControl() {
		return item{record: r, marker: true}, nil
	}
	i := item{record: r}
	var id, eventType, position []byte
	for _, h := range r.Headers {
		switch h.Key {
		case kafka.HeaderPosition:
			position = h.Value
		case kafka.HeaderID:
			id = h.Value
		case kafka.HeaderType:
			eventType = h.Value
		}
	}
	if h, ok := g.handlers[string(eventType)]; ok {
		i.handler, i.eventType = h, h.schema.FullName
	} else {
		i.eventType = string(eventType)
	}
	var err error
	switch {
	case position == nil:
		return i, stopf(stopForeign, "the record has no %s header: this topic takes events from a relay only", kafka.HeaderPosition)
	case len(eventType) == 0:
		return i, stopf(stopForeign, "the record has no %s header", kafka.HeaderType)
	}
	if i.id, err = uuid.ParseBytes(id); err != nil {
		return i, stopf(stopForeign, "header %s %q is no event id: %w", kafka.HeaderID, id, err)
	}
	if i.position, err = kafka.ParsePosition(position); err != nil {
		return i, stopf(stopForeign, "read header %s: %w", kafka.HeaderPosition, err)
	}
	if i.position.AtLeastOnce {
		return i, stopf(stopAtLeastOnce, "the record may be repeated (its relay delivers at least once), and group %s has no guard against repeats", g.name)
	}
	if g.compacted[r.Topic] {
		seq.note(i.position)
	} else if stop := seq.check(i.position); stop != nil {
		return i, stop
	}
	return i, nil
}

// decode fills the value of an item that has a handler. A value that cannot be
// decoded is noted in the item; an id that the registry does not know is not
// the value's fault (a registry that lost its data knows none), so it is
// waited for like a registry that is away.
func (g *group) decode(ctx context.Context, i *item) error {
	if !i.handled() {
		return nil
	}
	v, err := g.decoder.Decode(ctx, i.record.Value, i.handler.schema)
	switch {
	case err == nil:
		i.value = v
	case schemas.Unavailable(err) || errors.Is(err, schemas.ErrUnknownSchemaID) || ctx.Err() != nil:
		return err
	default:
		i.undecoded = err
	}
	return nil
}
