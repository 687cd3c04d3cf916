package main

import (
	"bytes"
	"io"
	"strings"
	"sync"

	"orderflow/internal/ops"
)

// screen shares a terminal between the log, which scrolls, and one block of
// text that stays below it and is drawn over. Elsewhere it only passes the log
// on.
type screen struct {
	terminal bool

	mu    sync.Mutex // protects the rest
	out   io.Writer
	block string // what stands below the log
}

func newScreen(out io.Writer) *screen {
	return &screen{out: out, terminal: ops.Terminal(out)}
}

// Write takes a line of the log.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.out.Write(s.over(string(p) + s.block)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// draw puts a block of whole lines in the place of the last one.
func (s *screen) draw(block string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.over(block)
	s.block = block
	_, _ = s.out.Write(text) // a screen that is gone is nobody's loss
}

// over returns text to be written where the block stands.
func (s *screen) over(text string) []byte {
	var b bytes.Buffer
	if s.block != "" {
		// To the column 1 of the block's first line, and clear from there.
		b.WriteString(strings.Repeat("\x1b[A", strings.Count(s.block, "\n")) + "\r\x1b[J")
	}
	b.WriteString(text)
	return b.Bytes()
}
