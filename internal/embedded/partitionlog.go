package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// partitionLog is what the broker's files of one partition say. A segment NUMBER.dat holds record batches as they go
// over the wire, back to back; NUMBER.idx holds one entry for each. A batch is written before its entry, each by one
// call, so that after a kill the last batch can be cut short and its entry can be missing.
type partitionLog struct {
	folder      string
	base        string // path of the newest segment, without its suffix; empty when there is none
	size        int64  // bytes of whole batches in that segment
	index       []byte // what the index of that segment has to be
	next        int64  // offset of the next record
	leaderEpoch int32
	open        map[transaction]bool // have records and no marker
	ended       map[int64]ending     // by producer, its newest marker
	markers     []byte               // to be appended
	windows     map[int64]window     // by idempotent producer
}

// ending is what a marker says.
type ending struct {
	epoch  int16
	commit bool
}

// Layout of a record batch of version 2: https://kafka.apache.org/documentation/#recordbatch
const (
	batchHeader      = 61
	attributeTxn     = 1 << 4
	attributeControl = 1 << 5
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func scanPartition(folder string) (*partitionLog, error) {
	paths, err := filepath.Glob(filepath.Join(folder, "*.dat"))
	if err != nil {
		return nil, err
	}
	l := &partitionLog{folder: folder, open: map[transaction]bool{}, ended: map[int64]ending{}, windows: map[int64]window{}}
	slices.SortFunc(paths, func(a, b string) int { return int(firstOffset(a) - firstOffset(b)) })
	for _, path := range paths {
		l.base, l.size, l.index = strings.TrimSuffix(path, ".dat"), 0, nil
		l.next = firstOffset(path)
		if err := l.scanSegment(path); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// firstOffset is the number that names a segment.
func firstOffset(path string) int64 {
	n, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(path), ".dat"), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// scanSegment reads the heads of the batches up to the first that is not whole.
func (l *partitionLog) scanSegment(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var head [batchHeader]byte
	for info.Size()-l.size >= batchHeader {
		if _, err := f.ReadAt(head[:], l.size); err != nil {
			return err
		}
		size := int64(12) + int64(binary.BigEndian.Uint32(head[8:]))
		if size < batchHeader || l.size+size > info.Size() {
			return nil
		}
		if err := l.addBatch(head[:], io.NewSectionReader(f, l.size+batchHeader, size-batchHeader)); err != nil {
			return err
		}
		l.size += size
	}
	return nil
}

func (l *partitionLog) addBatch(head []byte, records io.Reader) error {
	var (
		attributes = binary.BigEndian.Uint16(head[21:])
		control    = attributes&attributeControl != 0
		inTxn      = attributes&attributeTxn != 0 && !control
		maxTime    = int64(binary.BigEndian.Uint64(head[35:]))
		txn        = transaction{int64(binary.BigEndian.Uint64(head[43:])), int16(binary.BigEndian.Uint16(head[51:]))}
	)
	l.next = int64(binary.BigEndian.Uint64(head)) + int64(binary.BigEndian.Uint32(head[23:])) + 1
	l.leaderEpoch = int32(binary.BigEndian.Uint32(head[12:]))
	l.index = appendIndexEntry(l.index, l.leaderEpoch, maxTime, inTxn)
	switch {
	case control:
		commit, err := isCommit(records)
		if err != nil {
			return fmt.Errorf("read marker at offset %d: %w", l.next-1, err)
		}
		l.endOpen(txn.producer)
		l.ended[txn.producer] = ending{txn.epoch, commit}
	case inTxn:
		l.open[txn] = true
	default:
		l.addSequence(head)
	}
	return nil
}

// endOpen takes a producer's transaction for ended. A marker's epoch can be higher than that of the records: a broker
// that aborts by itself raises it first.
func (l *partitionLog) endOpen(producer int64) {
	for t := range l.open {
		if t.producer == producer {
			delete(l.open, t)
		}
	}
}

func isCommit(records io.Reader) (bool, error) {
	raw, err := io.ReadAll(records)
	if err != nil {
		return false, err
	}
	var record kmsg.Record
	if err := record.ReadFrom(raw); err != nil {
		return false, err
	}
	var key kmsg.ControlRecordKey
	if err := key.ReadFrom(record.Key); err != nil {
		return false, err
	}
	return key.Type == kmsg.ControlRecordKeyTypeCommit, nil
}

// endTransaction puts the marker of a transaction at the end of the log.
func (l *partitionLog) endTransaction(t transaction, commit bool) {
	key := kmsg.ControlRecordKey{Type: kmsg.ControlRecordKeyTypeAbort}
	if commit {
		key.Type = kmsg.ControlRecordKeyTypeCommit
	}
	record := kmsg.Record{Key: key.AppendTo(nil), Value: (&kmsg.EndTxnMarker{}).AppendTo(nil)}
	record.Length = int32(len(record.AppendTo(nil)) - 1) // without the length itself, which takes one byte
	now := time.Now().UnixMilli()
	batch := kmsg.RecordBatch{
		FirstOffset:          l.next,
		PartitionLeaderEpoch: l.leaderEpoch,
		Magic:                2,
		Attributes:           attributeTxn | attributeControl,
		FirstTimestamp:       now,
		MaxTimestamp:         now,
		ProducerID:           t.producer,
		ProducerEpoch:        t.epoch,
		FirstSequence:        -1,
		NumRecords:           1,
		Records:              record.AppendTo(nil),
	}
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], castagnoli))
	l.markers = append(l.markers, raw...)
	l.index = appendIndexEntry(l.index, l.leaderEpoch, now, false)
	l.next++
}

// repair cuts off what is not whole, appends the markers and makes the index fit, and touches nothing when nothing is
// to be done. Killed on the way, the next start does the rest.
func (l *partitionLog) repair() error {
	if l.base == "" {
		return nil
	}
	info, err := os.Stat(l.base + ".dat")
	if err != nil {
		return err
	}
	indexed := int64(0)
	switch index, err := os.Stat(l.base + ".idx"); {
	case err == nil:
		indexed = index.Size()
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if len(l.markers) == 0 && info.Size() == l.size && indexed == int64(len(l.index)) {
		return nil
	}
	f, err := os.OpenFile(l.base+".dat", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	err = f.Truncate(l.size)
	if err == nil {
		_, err = f.WriteAt(l.markers, l.size)
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return writeFileAtomic(l.base+".idx", l.index, 0o644)
}

// appendIndexEntry writes an entry as the broker does: version, checksum, leader epoch, time, in a transaction.
func appendIndexEntry(index []byte, leaderEpoch int32, maxTime int64, inTxn bool) []byte {
	entry := make([]byte, 15)
	entry[0] = 1
	binary.LittleEndian.PutUint32(entry[2:], uint32(leaderEpoch))
	binary.LittleEndian.PutUint64(entry[6:], uint64(maxTime))
	if inTxn {
		entry[14] = 1
	}
	entry[1] = byte(crc32.Checksum(entry[2:], castagnoli))
	return append(index, entry...)
}
