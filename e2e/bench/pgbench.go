package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"orderflow/internal/embedded"
	"orderflow/outbox-relay/outbox"
)

// orderShape is what a typical order's rows hold, in bytes, so that the
// reference writes rows of the same size as the service does.
type orderShape struct {
	lines                          int
	doc, receipt, payload, headers int
	schemaFP                       int64
}

// sampleSize is how many orders the shape is taken from.
const sampleSize = 2000

// sampleOrder takes the shape of the orders that the bench sends from what the
// service stores of them.
func (l *lab) sampleOrder(ctx context.Context, o IngestOptions) (s orderShape, err error) {
	o.BulkOrders = sampleSize
	if _, err := l.withOrders(ctx, o, func(addr string) (float64, error) { return sendBulk(ctx, addr, o, -1) }); err != nil {
		return s, err
	}
	err = l.db.QueryRow(ctx, `
		SELECT (SELECT round(avg(line_count)) FROM orders.orders), (SELECT round(avg(octet_length(doc))) FROM orders.orders),
		  (SELECT round(avg(octet_length(response))) FROM orders.idempotency_keys),
		  round(avg(octet_length(payload))), round(avg(octet_length(headers))), min(schema_fp)
		FROM outbox.events`).Scan(&s.lines, &s.doc, &s.receipt, &s.payload, &s.headers, &s.schemaFP)
	if err != nil {
		return s, fmt.Errorf("take the shape of an order: %w", err)
	}
	l.log.Info("shape of an order", "lines", s.lines, "doc_bytes", s.doc, "receipt_bytes", s.receipt, "payload_bytes", s.payload, "headers_bytes", s.headers)
	return s, nil
}

// The reference's SQL makes its own ids and values; what it writes has the
// columns, the row counts and the sizes of what the service writes, and like
// the service's its ids and keys grow with time: now() is the transaction's.
const (
	filler = `convert_to(repeat('x', %d), 'UTF8')`
	line   = `generate_series(1, %d) l`
	micros = `(extract(epoch FROM now()) * 1000000)::bigint`
	// orderID takes a number below 2^63 that tells the transaction's orders
	// apart.
	orderID = `(lpad(to_hex(` + micros + `), 16, '0') || lpad(to_hex((%s)::bigint), 16, '0'))::uuid`
	setKey  = `\set key random(1, 9000000000000000)`

	insertKeys  = `INSERT INTO orders.idempotency_keys (client_id, key, fingerprint, order_id, response, created_at)`
	insertOrder = `INSERT INTO orders.orders (order_id, customer_id, channel, currency, scale, grand_minor, line_count, placed_at, changed_at, doc)`
	insertLines = `INSERT INTO orders.order_lines (order_id, line_no, sku, seller_id, quantity, unit_minor, freight_minor)`
)

func (s orderShape) bytesOf(n int) string { return fmt.Sprintf(filler, n) }

// statements are the four of an order, or of several: id is an expression for
// the order's id, from makes the orders; it is empty for one.
func (s orderShape) statements(id, from string) []string {
	and := " FROM "
	if from != "" {
		from, and = " FROM "+from, ", "
	}
	return []string{
		insertKeys + ` SELECT 'bench', 'bench-' || :client_id || '-' || ` + id + `, sha256('bench'), ` + id + `, ` + s.bytesOf(s.receipt) + `, now()` + from + ` ON CONFLICT DO NOTHING;`,
		insertOrder + ` SELECT ` + id + `, '12345', 'bench', 'GBP', 2, 12345, ` + strconv.Itoa(s.lines) + `, now(), now(), ` + s.bytesOf(s.doc) + from + `;`,
		insertLines + ` SELECT ` + id + `, l, '54321', 'uci', 6, 255, 0` + from + and + fmt.Sprintf(line, s.lines) + `;`,
		`INSERT INTO outbox.events (` + strings.Join(outbox.CopyColumns(), ", ") + `) SELECT gen_random_uuid(), 'order', ` + id + `::text, 1,` +
			` 'orderflow.orders.OrderPlaced', 'orders.events.v1', ` + strconv.FormatInt(s.schemaFP, 10) +
			`, '\x0000000000'::bytea || ` + s.bytesOf(s.payload-5) + `, ` + s.bytesOf(s.headers) + from + `;`,
	}
}

// single is one order a transaction: four statements between BEGIN and COMMIT.
func (s orderShape) single() string {
	return transaction(s.statements(fmt.Sprintf(orderID, ":key"), ""))
}

// bulk is a hundred orders a transaction, each table by one unnest.
func (s orderShape) bulk() string {
	return transaction(s.statements("o.id", `unnest(ARRAY(SELECT `+fmt.Sprintf(orderID, ":key::bigint + g")+` FROM generate_series(1, 100) g)) AS o(id)`))
}

func transaction(statements []string) string {
	return setKey + "\nBEGIN;\n" + strings.Join(statements, "\n") + "\nCOMMIT;\n"
}

var tps = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)

// pgbench runs a script and returns orders a second, perTransaction orders a
// transaction.
func (l *lab) pgbench(ctx context.Context, script string, clients, seconds, perTransaction int) (float64, error) {
	program := filepath.Join(l.bin, "pgbench")
	if _, err := os.Stat(program); err != nil {
		found, err := exec.LookPath("pgbench")
		if err != nil {
			return 0, &embedded.MissingError{What: "pgbench", Hint: "install the client programs of Postgres (package postgresql on Debian)"}
		}
		program = found
	}
	path := filepath.Join(l.dir, "reference.sql")
	if err := os.WriteFile(path, []byte(script), 0o644); err != nil {
		return 0, fmt.Errorf("write the reference: %w", err)
	}
	out, err := exec.CommandContext(ctx, program, "-n", "-M", "prepared", "-c", strconv.Itoa(clients), "-j", "2",
		"-T", strconv.Itoa(seconds), "-f", path, l.url).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("run pgbench: %w: %.600s", err, out)
	}
	m := tps.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("run pgbench: no rate in its output: %.600s", out)
	}
	rate, err := strconv.ParseFloat(string(m[1]), 64)
	return rate * float64(perTransaction), err
}
