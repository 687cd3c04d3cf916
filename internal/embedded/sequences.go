package embedded

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
)

// A broker tells a batch that a producer sends again from a new one by the sequence numbers of the producer's last
// batches in the partition. The embedded broker writes them down at a clean stop only, so after a kill it would take
// a batch whose acknowledgement was lost a second time, or refuse a producer for what it said before an earlier stop.
// The log itself has them, so they are written anew from it at each start.

// windowLength is how many batches a producer may have in flight.
const windowLength = 5

// window is the end of one idempotent producer's batches in one partition.
type window struct {
	epoch   int16
	batches []sequenceRange // oldest first, at most windowLength
}

// sequenceRange is one batch, in the names of the broker's file.
type sequenceRange struct {
	First  int32 `json:"first_seq"`
	Next   int32 `json:"next_seq"`
	Offset int64 `json:"offset"`
}

// sequenceEntry is a window in the broker's file.
type sequenceEntry struct {
	Producer  int64                       `json:"pid"`
	Topic     string                      `json:"topic"`
	Partition int32                       `json:"partition"`
	Entries   [windowLength]sequenceRange `json:"entries"`
	Count     uint8                       `json:"count"`
	At        uint8                       `json:"at"`
	Epoch     int16                       `json:"epoch"`
	Seen      bool                        `json:"seen"`
	NextSeq   int32                       `json:"next_seq"`
}

type sequenceFile struct {
	Version int             `json:"version"`
	Windows []sequenceEntry `json:"windows"`
}

// addSequence notes a batch by its head. Transactional producers need no window: their transactions are ended at a
// start, and each new epoch begins at zero.
func (l *partitionLog) addSequence(head []byte) {
	var (
		producer = int64(binary.BigEndian.Uint64(head[43:]))
		epoch    = int16(binary.BigEndian.Uint16(head[51:]))
		first    = int32(binary.BigEndian.Uint32(head[53:]))
		records  = int32(binary.BigEndian.Uint32(head[57:]))
	)
	if producer < 0 {
		return
	}
	w := l.windows[producer]
	if w.epoch != epoch {
		w = window{epoch: epoch}
	}
	next := int32((int64(first) + int64(records)) % math.MaxInt32)
	w.batches = append(w.batches, sequenceRange{first, next, int64(binary.BigEndian.Uint64(head))})
	if len(w.batches) > windowLength {
		w.batches = append([]sequenceRange(nil), w.batches[1:]...)
	}
	l.windows[producer] = w
}

// sequences are the windows of a partition as the broker's file has them.
func (l *partitionLog) sequences() ([]sequenceEntry, error) {
	topic, partition, err := l.name()
	if err != nil {
		return nil, err
	}
	var entries []sequenceEntry
	for producer, w := range l.windows {
		e := sequenceEntry{
			Producer: producer, Topic: topic, Partition: partition, Epoch: w.epoch, Seen: true,
			Count: uint8(len(w.batches)), At: uint8(len(w.batches) % windowLength), NextSeq: w.batches[len(w.batches)-1].Next,
		}
		copy(e.Entries[:], w.batches)
		entries = append(entries, e)
	}
	return entries, nil
}

// name reads topic and partition from the folder's name.
func (l *partitionLog) name() (topic string, partition int32, err error) {
	folder := filepath.Base(l.folder)
	cut := strings.LastIndexByte(folder, '-')
	if cut < 0 {
		return "", 0, fmt.Errorf("read partition of folder %s: no number in it", folder)
	}
	n, err := strconv.ParseInt(folder[cut+1:], 10, 32)
	if err != nil {
		return "", 0, fmt.Errorf("read partition of folder %s: %w", folder, err)
	}
	if topic, err = url.PathUnescape(folder[:cut]); err != nil {
		return "", 0, fmt.Errorf("read topic of folder %s: %w", folder, err)
	}
	return topic, int32(n), nil
}

// writeSequences replaces the broker's file by what the logs say.
func writeSequences(dir string, logs []*partitionLog) error {
	if len(logs) == 0 {
		return nil
	}
	file := sequenceFile{Version: 1}
	for _, l := range logs {
		entries, err := l.sequences()
		if err != nil {
			return err
		}
		file.Windows = append(file.Windows, entries...)
	}
	text, err := json.Marshal(file)
	if err != nil {
		return fmt.Errorf("encode sequences: %w", err)
	}
	return writeFileAtomic(filepath.Join(dir, "seq_windows.json"), text, 0o644)
}
