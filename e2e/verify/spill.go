package verify

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// spill is a temporary file of tuples in buckets. Each bucket fills a block of
// memory, which goes to the end of the file when it is full, so the file is
// written in sequence and one descriptor is enough. It is used by one
// goroutine.
type spill struct {
	file    *os.File
	dir     string
	block   int // bytes of a full block
	buckets []bucket
	end     int64
}

type bucket struct {
	open   []byte  // the block being filled
	blocks []int64 // where the full ones are
	tail   int     // bytes of the last of blocks, once sealed
}

// newSpill makes the file and takes its name away at once, so it goes with the
// process, however that ends.
func newSpill(dir string, s sizes) (*spill, error) {
	file, err := os.CreateTemp(dir, "orderflow-verify-*")
	if err != nil {
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("unlink a temporary file: %w", err), file.Close())
	}
	return openSpill(file, dir, s), nil
}

func openSpill(file *os.File, dir string, s sizes) *spill {
	return &spill{file: file, dir: dir, block: s.block, buckets: make([]bucket, s.buckets)}
}

func (s *spill) close() { _ = s.file.Close() } // nothing in it is needed any more

// add appends t to the bucket of hash.
func (s *spill) add(hash uint64, t *tuple) error {
	b := &s.buckets[hash%uint64(len(s.buckets))]
	n := len(b.open)
	if n+tupleSize > s.block {
		if err := s.write(b); err != nil {
			return err
		}
		n = 0
	}
	if b.open == nil {
		b.open = make([]byte, 0, s.block)
	}
	b.open = b.open[:n+tupleSize]
	t.encode(b.open[n:])
	return nil
}

func (s *spill) write(b *bucket) error {
	if _, err := s.file.Write(b.open); err != nil {
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			return fmt.Errorf("no room for temporary files in %s after %s, name another directory: %w", s.dir, byteCount(s.end), err)
		}
		return fmt.Errorf("write a temporary file in %s: %w", s.dir, err)
	}
	b.blocks = append(b.blocks, s.end)
	b.tail = len(b.open)
	s.end += int64(len(b.open))
	b.open = b.open[:0]
	return nil
}

// seal writes what is still in memory and frees it. Nothing is added after.
func (s *spill) seal() error {
	for i := range s.buckets {
		b := &s.buckets[i]
		if len(b.open) > 0 {
			if err := s.write(b); err != nil {
				return err
			}
		}
		b.open = nil
	}
	return nil
}

// load reads a bucket into the memory of into, in the order of adding.
func (s *spill) load(n int, into []tuple) ([]tuple, error) {
	b := &s.buckets[n]
	into = into[:0]
	buf := make([]byte, s.block)
	for i, at := range b.blocks {
		size := s.block / tupleSize * tupleSize
		if i == len(b.blocks)-1 {
			size = b.tail
		}
		if _, err := s.file.ReadAt(buf[:size], at); err != nil {
			return nil, fmt.Errorf("read a temporary file in %s: %w", s.dir, err)
		}
		for at := 0; at < size; at += tupleSize {
			var t tuple
			t.decode(buf[at:])
			into = append(into, t)
		}
	}
	return into, nil
}

// sizes are how spills are cut: small enough buckets that one of each side
// takes little memory, large enough blocks that the disk is used well.
type sizes struct {
	buckets, block int
}

const (
	bucketTuples                 = 16_000
	minBuckets, maxBuckets       = 16, 4096
	openBytes                    = 4 << 20 // of all open blocks of a spill, unless there are very many
	minBlock, maxBlock           = 4 << 10, 64 << 10
	spilledTuplesPerLogged       = 2 // read, and with its version
	spilledTuplesPerRow          = 1
	percentKeptFree              = 5
	hundred                int64 = 100
)

// sizesFor cuts for so many events on either side.
func sizesFor(events int64) sizes {
	n := minBuckets
	for int64(n)*bucketTuples < events && n < maxBuckets {
		n *= 2
	}
	return sizes{buckets: n, block: min(max(openBytes/n, minBlock), maxBlock)}
}

// checkSpace refuses a directory that cannot hold the files of so many rows
// and records.
func checkSpace(dir string, rows, records int64) error {
	need := (rows*spilledTuplesPerRow + records*spilledTuplesPerLogged) * tupleSize
	free, known := freeBytes(dir)
	if known && need+free*percentKeptFree/hundred > free {
		return fmt.Errorf("temporary files need up to %s in %s, which has %s free: name another directory", byteCount(need), dir, byteCount(free))
	}
	return nil
}

// byteCount prints a number of bytes.
type byteCount int64

func (b byteCount) String() string {
	const kib = 1 << 10
	switch f := float64(b); {
	case b < kib:
		return fmt.Sprintf("%d B", int64(b))
	case b < kib*kib:
		return fmt.Sprintf("%.1f KiB", f/kib)
	case b < kib*kib*kib:
		return fmt.Sprintf("%.1f MiB", f/kib/kib)
	default:
		return fmt.Sprintf("%.1f GiB", f/kib/kib/kib)
	}
}
