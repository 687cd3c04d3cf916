package importer

import (
	"bufio"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"unicode/utf8"
)

// maxRecord bounds what one row may take, so that a quote nobody closes cannot
// pull the rest of a file into memory.
const maxRecord = 1 << 20

// table reads the wanted columns of a CSV file, plain or gzip'd, whatever their
// order in it.
type table struct {
	name    string
	csv     *csv.Reader
	limit   *recordLimit
	raw     *countingReader
	size    int64 // bytes of the file as it lies there, 0 if unknown
	close   func() error
	columns []int    // where each wanted column is in the file
	cells   []string // of the current row, in the order wanted
	row     int
}

// rowError says that a row cannot be read; the next one may be.
type rowError struct {
	table string
	row   int
	err   error
}

func (e *rowError) Error() string { return fmt.Sprintf("read %s row %d: %v", e.table, e.row, e.err) }
func (e *rowError) Unwrap() error { return e.err }

func openTable(path string, columns ...string) (*table, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err // names path already
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if info.IsDir() {
		return nil, errors.Join(fmt.Errorf("open %s: is a folder, not a file", path), f.Close())
	}
	t, err := newTable(path, f, columns...)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	t.size, t.close = info.Size(), f.Close
	return t, nil
}

// newTable reads the header of r and finds the wanted columns in it.
func newTable(name string, r io.Reader, columns ...string) (*table, error) {
	raw := &countingReader{r: r}
	size := int64(0)
	if sized, ok := r.(interface{ Len() int }); ok {
		size = int64(sized.Len()) // what is left, so before anything is read
	}
	plain, err := unzip(raw)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	limit := &recordLimit{r: plain}
	t := &table{
		name: name, csv: csv.NewReader(limit), limit: limit, raw: raw, size: size,
		close: func() error { return nil }, cells: make([]string, len(columns)), row: 1,
	}
	t.csv.FieldsPerRecord = -1
	t.csv.ReuseRecord = true
	header, err := t.csv.Read()
	if errors.Is(err, io.EOF) {
		err = errors.New("the file is empty")
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: read header: %w", name, err)
	}
	return t, t.find(header, columns)
}

// unzip looks at the first bytes, not at the name.
func unzip(r io.Reader) (io.Reader, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	if magic, _ := b.Peek(2); string(magic) != "\x1f\x8b" {
		return b, nil
	}
	return gzip.NewReader(b)
}

func (t *table) find(header, columns []string) error {
	at := map[string]int{}
	for i, name := range header {
		at[strings.ToLower(strings.TrimSpace(strings.TrimPrefix(name, "\ufeff")))] = i
	}
	var missing []string
	for _, c := range columns {
		i, ok := at[strings.ToLower(c)]
		if !ok {
			missing = append(missing, c)
		}
		t.columns = append(t.columns, i)
	}
	if len(missing) > 0 {
		return fmt.Errorf("open %s: no column %s in its header", t.name, strings.Join(missing, ", "))
	}
	return nil
}

// next returns the wanted cells of the next row, valid until the next call. A
// *rowError means this row is damaged: its cells are those that could be read,
// the others empty. Any other error is the end.
func (t *table) next() ([]string, error) {
	t.limit.n = 0
	t.row++
	row, err := t.csv.Read()
	clear(t.cells)
	short := false
	for i, c := range t.columns {
		if c < len(row) {
			t.cells[i] = clean(row[c])
		} else {
			short = true
		}
	}
	var bad *csv.ParseError
	switch {
	case err == nil && short:
		return t.cells, &rowError{t.name, t.row, errors.New("too few fields")}
	case err == nil:
		return t.cells, nil
	case errors.Is(err, io.EOF):
		return nil, io.EOF
	case errors.As(err, &bad):
		return t.cells, &rowError{t.name, t.row, bad.Err}
	default:
		return nil, fmt.Errorf("read %s row %d: %w", t.name, t.row, err)
	}
}

func (t *table) progress() (done, total int64) { return t.raw.n.Load(), t.size }

// Close closes the file, if the table opened one.
func (t *table) Close() error { return t.close() }

// clean trims a cell, drops control characters, and reads bytes that are not
// UTF-8 as Latin-1, the other encoding these files go about in.
func clean(s string) string {
	if !utf8.ValidString(s) {
		latin := make([]rune, len(s))
		for i := range len(s) {
			latin[i] = rune(s[i])
		}
		s = string(latin)
	}
	if strings.ContainsFunc(s, control) {
		s = strings.Map(func(r rune) rune {
			if control(r) {
				return ' '
			}
			return r
		}, s)
	}
	return strings.TrimSpace(s)
}

func control(r rune) bool { return r < 0x20 || (r >= 0x7f && r < 0xa0) }

// countingReader counts the bytes read; n may be looked at from anywhere.
type countingReader struct {
	r io.Reader
	n atomic.Int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// recordLimit fails once more than maxRecord was read since n was last reset.
type recordLimit struct {
	r io.Reader
	n int
}

func (l *recordLimit) Read(p []byte) (int, error) {
	if l.n > maxRecord {
		return 0, fmt.Errorf("a row of more than %d bytes, or a quote that is never closed", maxRecord)
	}
	n, err := l.r.Read(p)
	l.n += n
	return n, err
}
