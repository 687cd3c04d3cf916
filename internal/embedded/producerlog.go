package embedded

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
)

// producerLog is the broker's file of producers: which epoch each one has, and which transactions ended.
type producerLog struct {
	path      string
	producers map[int64]producerEntry // the newest state of each
	ended     map[int64]int16         // the epoch of each one's newest transaction that has all its markers
}

// producerEntry is one line of the file. The type is init for a producer's new epoch, endtx for the end of a
// transaction, timeout for one that the broker aborted.
type producerEntry struct {
	Type     string `json:"type"`
	Producer int64  `json:"pid"`
	Epoch    int16  `json:"epoch"`
	Name     string `json:"txid,omitempty"`
	Timeout  int32  `json:"timeout,omitempty"`
	Commit   *bool  `json:"commit,omitempty"` // how the last transaction ended
}

func readProducerLog(path string) (*producerLog, error) {
	p := &producerLog{path: path, producers: map[int64]producerEntry{}, ended: map[int64]int16{}}
	frames, err := readFrames(path)
	if err != nil {
		return nil, err
	}
	for _, frame := range frames {
		var e producerEntry
		if err := json.Unmarshal(frame, &e); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		if e.Type == "init" {
			p.producers[e.Producer] = e
			continue
		}
		p.ended[e.Producer] = e.Epoch
		known := p.producers[e.Producer]
		known.Epoch = e.Epoch
		p.producers[e.Producer] = known
	}
	return p, nil
}

// knows reports whether the broker noted the end of a transaction of this producer and epoch.
func (p *producerLog) knows(t transaction) bool {
	epoch, ok := p.ended[t.producer]
	return ok && epoch == t.epoch
}

// advance gives the producers of transactions that were ended without the broker's knowledge their next epoch, as the
// end of a transaction does, and the answer that a commit sent again gets: a success, or an error.
func (p *producerLog) advance(ends map[transaction]bool) error {
	var raw []byte
	for t, committed := range ends {
		known, ok := p.producers[t.producer]
		if !ok || known.Epoch > t.epoch {
			continue // it began anew already
		}
		known.Type, known.Producer, known.Epoch, known.Commit = "init", t.producer, t.epoch+1, &committed
		p.producers[t.producer] = known
		text, err := json.Marshal(known)
		if err != nil {
			return fmt.Errorf("encode producer: %w", err)
		}
		raw = appendFrame(raw, text)
	}
	if len(raw) == 0 {
		return nil
	}
	f, err := os.OpenFile(p.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	return errors.Join(err, f.Sync(), f.Close())
}

// The broker's logs of producers and of groups are frames: length, checksum, version, text. It skips what a kill cut
// short at the end but then appends behind it, where the next start reads nothing any more. So the end is cut off.
const frameHeader = 10

func readFrames(path string) ([][]byte, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var frames [][]byte
	at := 0
	for at+frameHeader <= len(raw) {
		size := int(binary.LittleEndian.Uint32(raw[at:]))
		if size < 2 || at+8+size > len(raw) {
			break
		}
		body := raw[at+8 : at+8+size]
		if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(raw[at+4:]) {
			break
		}
		frames = append(frames, body[2:])
		at += 8 + size
	}
	if at < len(raw) {
		if err := os.Truncate(path, int64(at)); err != nil {
			return nil, fmt.Errorf("cut off the end of %s: %w", path, err)
		}
	}
	return frames, nil
}

func appendFrame(raw, text []byte) []byte {
	body := append([]byte{1, 0}, text...)
	raw = binary.LittleEndian.AppendUint32(raw, uint32(len(body)))
	raw = binary.LittleEndian.AppendUint32(raw, crc32.Checksum(body, castagnoli))
	return append(raw, body...)
}
