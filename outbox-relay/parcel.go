package relay

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/internal/kafka"
	"orderflow/outbox-relay/outbox"
	"orderflow/outbox-relay/source"
	"orderflow/schemas"
)

// parcel is a batch made into Kafka records. Its memory is used again once
// every record is acknowledged.
type parcel struct {
	batch   *source.Batch
	records []kgo.Record
	headers []kgo.RecordHeader // of all records, one after the other
	bytes   []byte             // ids and positions that the headers point to

	published map[string][]uint64 // n by topic and partition, behind the last record
	unacked   atomic.Int64
	free      chan<- *parcel
}

func (p *parcel) release() {
	p.batch.Release()
	p.batch = nil
	select {
	case p.free <- p:
	default: // more parcels than the pool keeps; this one is garbage
	}
}

// packer numbers events and makes records of them. It is used by the reading
// goroutine alone.
type packer struct {
	relay    *Relay
	session  session
	source   string
	position kafka.Position // of the record being made
	topics   map[string][]uint64
	types    map[string][]byte // event types as header values
	free     chan *parcel
}

// maxParcels bounds the pool; the source's batches bound what is in flight.
const maxParcels = 16

// headersPerRecord is the most that a record has: five of ours, five that the
// outbox may hold.
const headersPerRecord = 10

const idLength = 36 // a UUID as text

func newPacker(r *Relay, s session, c *Checkpoint) *packer {
	k := &packer{
		relay: r, session: s, source: c.Source,
		position: kafka.Position{Source: c.Source, Incarnation: c.Incarnation},
		topics:   make(map[string][]uint64, len(c.Published)),
		types:    make(map[string][]byte),
		free:     make(chan *parcel, maxParcels),
	}
	for topic, n := range c.Published {
		k.topics[topic] = slices.Clone(n)
	}
	return k
}

// pack makes the records of b. It waits as long as it takes for a registry
// that is away and for a topic that does not exist yet.
func (k *packer) pack(ctx context.Context, b *source.Batch) (*parcel, error) {
	p := k.take()
	p.batch = b
	n := len(b.Events)
	p.records = slices.Grow(p.records[:0], n)[:n]
	p.headers = slices.Grow(p.headers[:0], n*headersPerRecord)
	p.bytes = slices.Grow(p.bytes[:0], n*(idLength+14+len(k.source)))
	for i := range b.Events {
		if err := k.record(ctx, p, i); err != nil {
			return nil, err
		}
	}
	p.published = make(map[string][]uint64, len(k.topics))
	for topic, n := range k.topics {
		p.published[topic] = slices.Clone(n)
	}
	return p, nil
}

func (k *packer) take() *parcel {
	select {
	case p := <-k.free:
		return p
	default:
		return &parcel{free: k.free}
	}
}

// record makes the i-th record of p.
func (k *packer) record(ctx context.Context, p *parcel, i int) error {
	e := &p.batch.Events[i]
	id, err := k.relay.schemas.id(ctx, e.SchemaFP)
	if err != nil {
		return err
	}
	counts, ok := k.topics[e.Topic]
	if !ok {
		if counts, err = k.topic(ctx, e.Topic); err != nil {
			return err
		}
	}
	schemas.PutSchemaID(e.Payload, id)
	partition := kafka.Partition(e.AggregateID, int32(len(counts)))
	counts[partition]++
	k.position.N = counts[partition]
	headers, err := k.headers(p, e)
	if err != nil {
		return fmt.Errorf("pack event %x: %w", e.ID, err)
	}
	r := &p.records[i]
	*r = kgo.Record{
		Key: e.AggregateID, Value: e.Payload, Headers: headers,
		Timestamp: e.CreatedAt, Topic: e.Topic, Partition: partition,
	}
	return nil
}

var specVersion = []byte("1.0")

// headers appends the record's headers to the parcel's and returns them.
func (k *packer) headers(p *parcel, e *source.Event) ([]kgo.RecordHeader, error) {
	at := len(p.bytes)
	p.bytes = appendUUID(p.bytes, e.ID)
	id := p.bytes[at:]
	p.bytes = k.position.Append(p.bytes)
	position := p.bytes[at+idLength:]

	first := len(p.headers)
	p.headers = append(p.headers,
		kgo.RecordHeader{Key: kafka.HeaderSpecVersion, Value: specVersion},
		kgo.RecordHeader{Key: kafka.HeaderID, Value: id},
		kgo.RecordHeader{Key: kafka.HeaderType, Value: k.typeName(e.Type)},
		kgo.RecordHeader{Key: kafka.HeaderSubject, Value: e.AggregateID},
		kgo.RecordHeader{Key: kafka.HeaderPosition, Value: position},
	)
	for rest := e.Headers; len(rest) > 0; {
		name, value, after, err := outbox.NextHeader(rest)
		if err != nil {
			return nil, err
		}
		p.headers = append(p.headers, kgo.RecordHeader{Key: name, Value: value})
		rest = after
	}
	return p.headers[first:len(p.headers):len(p.headers)], nil
}

func (k *packer) typeName(name string) []byte {
	b, ok := k.types[name]
	if !ok {
		b = []byte(name)
		k.types[name] = b
	}
	return b
}

func appendUUID(dst []byte, id [16]byte) []byte {
	dst = hex.AppendEncode(dst, id[0:4])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, id[4:6])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, id[6:8])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, id[8:10])
	dst = append(dst, '-')
	return hex.AppendEncode(dst, id[10:16])
}

// topic begins to count the partitions of a topic that the checkpoint does
// not know.
func (k *packer) topic(ctx context.Context, name string) ([]uint64, error) {
	for {
		n, err := k.session.partitions(ctx, name)
		if err == nil && n > 0 {
			k.topics[name] = make([]uint64, n)
			return k.topics[name], nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		k.relay.log.Warn("wait for topic", "topic", name, "err", err)
		sleep(ctx, topicRetry)
	}
}
