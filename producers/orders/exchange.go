package orders

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// exchange runs prepared statements over a connection that nobody else uses
// meanwhile, several in one round trip. It speaks the extended query protocol
// itself, since the driver grows a new buffer for every batch, which was half
// of all memory the service allocated, and cannot put a COPY among other
// statements, which saves three round trips.
//
// https://www.postgresql.org/docs/15/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY
// and, for COPY among them, #PROTOCOL-COPY: "In the event of Sync or Flush
// messages during copy-in mode, the backend ignores them".
type exchange struct {
	conn *pgconn.PgConn
	out  []byte // not sent yet; kept from batch to batch
}

// The two ways to make the server answer: go on after it, or be done.
const (
	goOn byte = 'H' // Flush
	done byte = 'S' // Sync
)

// begin takes a connection for as long as ctx allows.
func (x *exchange) begin(ctx context.Context, conn *pgconn.PgConn) error {
	x.conn, x.out = conn, x.out[:0]
	deadline, _ := ctx.Deadline()
	return conn.Conn().SetDeadline(deadline)
}

// end gives the connection back to the driver.
func (x *exchange) end() error { return x.conn.Conn().SetDeadline(time.Time{}) }

// execute adds a prepared statement with binary parameters.
func (x *exchange) execute(statement string, params [][]byte) {
	start := x.open('B')
	x.out = append(x.out, 0) // the unnamed portal
	x.out = append(x.out, statement...)
	x.out = append(x.out, 0)
	x.out = append(x.out, 0, 1, 0, 1) // every parameter is binary
	x.out = binary.BigEndian.AppendUint16(x.out, uint16(len(params)))
	for _, p := range params {
		x.out = binary.BigEndian.AppendUint32(x.out, uint32(len(p)))
		x.out = append(x.out, p...)
	}
	x.out = append(x.out, 0, 1, 0, 1) // and so is every result
	x.shut(start)
	start = x.open('E')
	x.out = append(x.out, 0, 0, 0, 0, 0) // the unnamed portal, every row
	x.shut(start)
}

// copyIn adds a prepared COPY and all that it is to copy.
func (x *exchange) copyIn(statement string, stream []byte) {
	x.execute(statement, nil)
	start := x.open('d')
	x.out = append(x.out, stream...)
	x.shut(start)
	x.shut(x.open('c'))
}

func (x *exchange) open(kind byte) int {
	x.out = append(x.out, kind, 0, 0, 0, 0)
	return len(x.out) - 4
}

func (x *exchange) shut(start int) {
	binary.BigEndian.PutUint32(x.out[start:], uint32(len(x.out)-start))
}

// send sends what was added and reads the results of as many statements as
// that were, up to the end of the exchange if this is done. It returns the
// last one's command tag, and hands the first column of every row to row. An
// error of the server ends the exchange and leaves the connection usable.
func (x *exchange) send(end byte, statements int, row func([]byte)) (tag string, err error) {
	x.shut(x.open(end))
	if _, err := x.conn.Conn().Write(x.out); err != nil {
		return "", fmt.Errorf("send statements: %w", err)
	}
	x.out = x.out[:0]
	for end == done || statements > 0 {
		message, err := x.conn.ReceiveMessage(context.Background())
		if err != nil {
			return "", fmt.Errorf("receive results: %w", err)
		}
		switch m := message.(type) {
		case *pgproto3.DataRow:
			row(m.Values[0])
		case *pgproto3.CommandComplete:
			statements--
			tag = string(m.CommandTag)
		case *pgproto3.ErrorResponse:
			refused := pgconn.ErrorResponseToPgError(m)
			if err := x.recover(end); err != nil {
				return "", err
			}
			return "", refused
		case *pgproto3.ReadyForQuery:
			return tag, nil
		}
	}
	return tag, nil
}

// recover reads past what the server skips after an error.
func (x *exchange) recover(end byte) error {
	if end != done {
		if _, err := x.conn.Conn().Write([]byte{done, 0, 0, 0, 4}); err != nil {
			return fmt.Errorf("send sync: %w", err)
		}
	}
	for {
		message, err := x.conn.ReceiveMessage(context.Background())
		if err != nil {
			return fmt.Errorf("receive results: %w", err)
		}
		if _, ready := message.(*pgproto3.ReadyForQuery); ready {
			return nil
		}
	}
}
