package verify

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/google/uuid"
)

// tuple is what is kept of one event of either side.
type tuple struct {
	id        uuid.UUID
	aggregate digest
	offset    int64 // in the log; -1 for a row of the outbox
	version   int64 // in the outbox
	partition int32 // that holds it, or that its key belongs to
	topic     uint16
	flags     uint8
}

const (
	// covered marks an event that is published by the checkpoint: a row that
	// its point covers, a record that its counts cover.
	covered uint8 = 1 << iota
	// unversioned marks a record whose version the outbox does not tell.
	unversioned
)

func (t *tuple) has(flag uint8) bool { return t.flags&flag != 0 }

// tupleSize is the size of a tuple in a file, in bytes.
const tupleSize = 56

func (t *tuple) encode(b []byte) {
	_ = b[tupleSize-1]
	copy(b, t.id[:])
	binary.LittleEndian.PutUint64(b[16:], t.aggregate[0])
	binary.LittleEndian.PutUint64(b[24:], t.aggregate[1])
	binary.LittleEndian.PutUint64(b[32:], uint64(t.offset))
	binary.LittleEndian.PutUint64(b[40:], uint64(t.version))
	binary.LittleEndian.PutUint32(b[48:], uint32(t.partition))
	binary.LittleEndian.PutUint16(b[52:], t.topic)
	b[54], b[55] = t.flags, 0
}

func (t *tuple) decode(b []byte) {
	_ = b[tupleSize-1]
	copy(t.id[:], b)
	t.aggregate[0] = binary.LittleEndian.Uint64(b[16:])
	t.aggregate[1] = binary.LittleEndian.Uint64(b[24:])
	t.offset = int64(binary.LittleEndian.Uint64(b[32:]))
	t.version = int64(binary.LittleEndian.Uint64(b[40:]))
	t.partition = int32(binary.LittleEndian.Uint32(b[48:]))
	t.topic = binary.LittleEndian.Uint16(b[52:])
	t.flags = b[54]
}

// digest stands for an aggregate's id. With 128 bits under keys that are drawn
// anew for every run, two ids of a billion share one with a chance of 1e-20.
type digest [2]uint64

// hasher makes digests and chooses buckets.
type hasher struct{ a, b maphash.Seed }

func newHasher() hasher { return hasher{maphash.MakeSeed(), maphash.MakeSeed()} }

func (h hasher) digest(aggregate []byte) digest {
	return digest{maphash.Bytes(h.a, aggregate), maphash.Bytes(h.b, aggregate)}
}

func (h hasher) id(id uuid.UUID) uint64 { return maphash.Bytes(h.a, id[:]) }
