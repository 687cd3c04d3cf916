package orders

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// rows collects the rows of one table in Postgres's binary format, either
// column by column as the array parameters of an unnest, or row by row as the
// body of a COPY. In both a field is its length and its bytes, so the code
// that lists a table's fields is written once.
//
// Array: https://www.postgresql.org/docs/15/ array_recv in
// src/backend/utils/adt/arrayfuncs.c. COPY:
// https://www.postgresql.org/docs/15/sql-copy.html, "Binary Format".
type rows struct {
	copying  bool
	columns  int
	elements []uint32 // OIDs of the arrays' elements; unused for COPY
	bufs     [][]byte // one a column, or a single one for COPY
	next     int      // column of the next field
	count    int
}

const (
	arrayHeader = 20
	copyHeader  = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"
)

// arrayRows prepares for the parameters of a prepared statement. Buffers are
// kept from batch to batch.
func arrayRows(d *pgconn.StatementDescription) (*rows, error) {
	r := &rows{columns: len(d.ParamOIDs), bufs: make([][]byte, len(d.ParamOIDs))}
	for i, oid := range d.ParamOIDs {
		element, known := arrayElements[oid]
		if !known {
			return nil, fmt.Errorf("encode parameter %d of %s: type %d is no array we write", i+1, d.Name, oid)
		}
		r.elements = append(r.elements, element)
	}
	r.reset()
	return r, nil
}

var arrayElements = map[uint32]uint32{
	pgtype.ByteaArrayOID:       pgtype.ByteaOID,
	pgtype.Int2ArrayOID:        pgtype.Int2OID,
	pgtype.Int4ArrayOID:        pgtype.Int4OID,
	pgtype.Int8ArrayOID:        pgtype.Int8OID,
	pgtype.TextArrayOID:        pgtype.TextOID,
	pgtype.TimestamptzArrayOID: pgtype.TimestamptzOID,
	pgtype.UUIDArrayOID:        pgtype.UUIDOID,
}

// copyRows prepares for a COPY of that many columns.
func copyRows(columns int) *rows {
	r := &rows{copying: true, columns: columns, bufs: make([][]byte, 1)}
	r.reset()
	return r
}

func (r *rows) reset() {
	r.next, r.count = 0, 0
	for i := range r.bufs {
		r.bufs[i] = r.bufs[i][:0]
		if r.copying {
			r.bufs[i] = append(r.bufs[i], copyHeader...)
		} else {
			r.bufs[i] = append(r.bufs[i], make([]byte, arrayHeader)...)
		}
	}
}

// params completes the arrays.
func (r *rows) params() [][]byte {
	for i, b := range r.bufs {
		binary.BigEndian.PutUint32(b[0:], 1) // dimensions
		binary.BigEndian.PutUint32(b[4:], 0) // no nulls
		binary.BigEndian.PutUint32(b[8:], r.elements[i])
		binary.BigEndian.PutUint32(b[12:], uint32(r.count))
		binary.BigEndian.PutUint32(b[16:], 1) // lower bound
	}
	return r.bufs
}

// stream completes the body of the COPY.
func (r *rows) stream() []byte {
	r.bufs[0] = append(r.bufs[0], 0xff, 0xff)
	return r.bufs[0]
}

// field returns the buffer of the next field with the field's length written.
func (r *rows) field(size int) *[]byte {
	column := r.next
	if r.next++; r.next == r.columns {
		r.next = 0
	}
	if column == 0 {
		r.count++
	}
	b := &r.bufs[0]
	switch {
	case !r.copying:
		b = &r.bufs[column]
	case column == 0:
		*b = binary.BigEndian.AppendUint16(*b, uint16(r.columns))
	}
	*b = binary.BigEndian.AppendUint32(*b, uint32(size))
	return b
}

func (r *rows) text(s string) {
	b := r.field(len(s))
	*b = append(*b, s...)
}

func (r *rows) bytes(v []byte) {
	b := r.field(len(v))
	*b = append(*b, v...)
}

func (r *rows) id(v uuid.UUID) {
	b := r.field(len(v))
	*b = append(*b, v[:]...)
}

func (r *rows) int16(v int) {
	b := r.field(2)
	*b = binary.BigEndian.AppendUint16(*b, uint16(v))
}

func (r *rows) int32(v int) {
	b := r.field(4)
	*b = binary.BigEndian.AppendUint32(*b, uint32(v))
}

func (r *rows) int64(v int64) {
	b := r.field(8)
	*b = binary.BigEndian.AppendUint64(*b, uint64(v))
}

// time writes a timestamptz: microseconds since 2000-01-01 UTC.
func (r *rows) time(t time.Time) {
	const epoch = 946_684_800 * 1_000_000
	r.int64(t.UnixMicro() - epoch)
}
