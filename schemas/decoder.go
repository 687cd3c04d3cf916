package schemas

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/twmb/avro"
)

// ErrIncompatible says that an event was written with a schema that today's
// cannot read. It never goes away by waiting.
var ErrIncompatible = errors.New("incompatible schema")

// Decoder reads framed events, whichever version of the schema they were
// written with. It is safe for concurrent use.
type Decoder struct {
	registry *Registry

	mu       sync.Mutex // serialises the writers of resolved
	resolved atomic.Pointer[map[resolution]*avro.Schema]
}

// resolution is a writer's schema seen through today's.
type resolution struct {
	writer int // the registry's id
	reader *Schema
}

// NewDecoder returns a decoder that asks r for the schemas it has not met.
func NewDecoder(r *Registry) *Decoder {
	d := &Decoder{registry: r}
	d.resolved.Store(&map[resolution]*avro.Schema{})
	return d
}

// Decode reads the framed value of an event of type s. Fields that the writer
// did not know get their defaults, fields and symbols that s does not know
// are left out or become the default symbol.
//
// When Unavailable(err), or when ctx ended, the value may be fine and can be
// tried again. Every other error is about the value: ErrMalformed,
// ErrUnknownSchemaID or ErrIncompatible.
func (d *Decoder) Decode(ctx context.Context, value []byte, s *Schema) (Event, error) {
	id, body, err := SchemaID(value)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", s.FullName, err)
	}
	key := resolution{id, s}
	codec, ok := (*d.resolved.Load())[key]
	if !ok {
		if codec, err = d.resolve(ctx, key); err != nil {
			return nil, fmt.Errorf("decode %s: %w", s.FullName, err)
		}
	}
	return s.decode(codec, body)
}

func (d *Decoder) resolve(ctx context.Context, key resolution) (*avro.Schema, error) {
	text, err := d.registry.Text(ctx, key.writer)
	if err != nil {
		return nil, err
	}
	reader, err := key.reader.avro()
	if err != nil {
		return nil, err
	}
	writer, err := avro.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("parse schema %d: %w: %w", key.writer, ErrIncompatible, err)
	}
	codec, err := avro.Resolve(writer, reader)
	if err != nil {
		return nil, fmt.Errorf("read with schema %d: %w: %w", key.writer, ErrIncompatible, err)
	}
	d.remember(key, codec)
	return codec, nil
}

// remember publishes a copy of the map, so that Decode reads it without a lock.
func (d *Decoder) remember(key resolution, codec *avro.Schema) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := map[resolution]*avro.Schema{}
	if known := *d.resolved.Load(); len(known) < maxCached {
		next = maps.Clone(known)
	}
	next[key] = codec
	d.resolved.Store(&next)
}
