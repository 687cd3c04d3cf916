package consumers

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/google/uuid"
)

// EventHash is the share of one event in a position's applied_hash: the first
// 8 bytes of the SHA-256 of the 16 bytes of the event's id, big endian, as a
// signed number. The sum modulo 2^64 over a set of events tells, with their
// count, whether each was counted once; it does not depend on their order.
func EventHash(id uuid.UUID) int64 {
	sum := sha256.Sum256(id[:])
	return int64(binary.BigEndian.Uint64(sum[:8]))
}
