package orders

import (
	"fmt"
	"io"
	"os"
	"sync"
)

const (
	// spoolMemory is what unread results may take of memory, spoolFile what
	// they may take of the disk: some ten million results.
	spoolMemory = 256 << 10
	spoolFile   = 1 << 30
)

// spool holds results between those who make them and the client who reads
// them. A client may send a whole stream before it reads a single result; if
// results could not be put aside, it and we would wait for each other for
// ever. Beyond a little memory they go to a temporary file.
type spool struct {
	dir string

	mu      sync.Mutex
	changed *sync.Cond // on mu: something to read, or no more to come
	mem     []byte     // protected by mu; older than what is in the file
	file    *os.File   // protected by mu; nil until needed
	read    int64      // protected by mu; what was taken from the file
	written int64      // protected by mu; what was put into it
	ended   bool       // protected by mu
}

func newSpool(dir string) *spool {
	s := &spool{dir: dir}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// put adds results. It never waits for the reader.
func (s *spool) put(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.changed.Signal()
	if s.read == s.written && len(s.mem)+len(p) <= spoolMemory {
		s.mem = append(s.mem, p...)
		return nil
	}
	if s.file == nil {
		f, err := os.CreateTemp(s.dir, "orderflow-results-*")
		if err != nil {
			return fmt.Errorf("put results aside: %w", err)
		}
		s.file = f
		// Without a name it goes with the process, however that ends.
		_ = os.Remove(f.Name())
	}
	if s.written+int64(len(p)) > spoolFile {
		return fmt.Errorf("put results aside: %w", errSpoolFull)
	}
	if _, err := s.file.WriteAt(p, s.written); err != nil {
		return fmt.Errorf("put results aside: %w", err)
	}
	s.written += int64(len(p))
	return nil
}

var errSpoolFull = fmt.Errorf("more than %d bytes are unread", spoolFile)

// end says that nothing more will be put.
func (s *spool) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.changed.Signal()
}

// take fills buf with the oldest results, waiting until there are some. It
// returns io.EOF at the end. more says whether further ones are at hand.
func (s *spool) take(buf []byte) (n int, more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.mem) == 0 && s.read == s.written && !s.ended {
		s.changed.Wait()
	}
	switch {
	case len(s.mem) > 0:
		n = copy(buf, s.mem)
		s.mem = s.mem[:copy(s.mem, s.mem[n:])]
	case s.read < s.written:
		n, err = s.file.ReadAt(buf[:min(int64(len(buf)), s.written-s.read)], s.read)
		if s.read += int64(n); s.read == s.written {
			s.read, s.written = 0, 0 // begin the file anew
		}
		if err != nil {
			return n, false, fmt.Errorf("read results put aside: %w", err)
		}
	default:
		return 0, false, io.EOF
	}
	return n, len(s.mem) > 0 || s.read < s.written, nil
}

// close frees the file.
func (s *spool) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		_ = s.file.Close()
	}
}
