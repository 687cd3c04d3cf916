package orders

import (
	"bytes"
	"io"
)

const (
	// maxLine bounds one line of a bulk ingest, without its line feed.
	maxLine = 256 << 10
	// readAhead is what a block has room for beyond the longest line.
	readAhead = 64 << 10
)

// line is one line of a stream. Its text is valid until its block is filled
// again.
type line struct {
	no      int // from 1
	text    []byte
	tooLong bool // longer than maxLine; there is no text
}

// block is a buffer and the whole lines in it.
type block struct {
	buf   []byte
	lines []line
}

func newBlock() *block { return &block{buf: make([]byte, maxLine+readAhead)} }

// lineReader cuts a stream into lines.
type lineReader struct {
	src      io.Reader
	tail     []byte // the beginning of a line that was not whole in the last block
	no       int    // of the last line
	skipping bool   // inside a line that is too long
}

// fill reads until it has at least one whole line, and returns with what it
// has rather than wait for more. The source's error comes along with the last
// lines; a line that an error cut off is left out, while one that io.EOF ends
// is whole.
func (r *lineReader) fill(b *block) error {
	b.lines = b.lines[:0]
	start, end := 0, copy(b.buf, r.tail) // what is not cut into lines yet
	for {
		n, err := r.src.Read(b.buf[end:])
		start, end = r.cut(b, start, end, end+n)
		if err == io.EOF && end > start {
			r.add(b, b.buf[start:end])
			start = end
		}
		if len(b.lines) > 0 || err != nil {
			r.tail = append(r.tail[:0], b.buf[start:end]...)
			return err
		}
	}
}

// cut adds the lines that end in buf[fresh:end] and returns what is left. What
// is left always fits the buffer with room for more.
func (r *lineReader) cut(b *block, start, fresh, end int) (int, int) {
	for {
		i := bytes.IndexByte(b.buf[fresh:end], '\n')
		if i < 0 {
			break
		}
		if !r.skipping {
			r.add(b, b.buf[start:fresh+i])
		}
		r.skipping = false
		start = fresh + i + 1
		fresh = start
	}
	if !r.skipping && end-start > maxLine {
		r.add(b, b.buf[start:end])
		r.skipping = true
	}
	if r.skipping {
		return 0, 0
	}
	return start, end
}

func (r *lineReader) add(b *block, text []byte) {
	r.no++
	if len(text) > maxLine {
		b.lines = append(b.lines, line{no: r.no, tooLong: true})
		return
	}
	b.lines = append(b.lines, line{no: r.no, text: text})
}
