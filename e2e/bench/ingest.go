package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"orderflow/producers/orders"
)

// IngestOptions size the bench of the Orders service.
type IngestOptions struct {
	Options
	// Seconds is how long single orders are sent, and pgbench runs.
	Seconds int
	// BulkOrders is how many orders one bulk stream holds.
	BulkOrders int
	// Connections send single orders.
	Connections int
}

const (
	minSingleRatio = 2.5
	minBulkRatio   = 0.9
	bulkClients    = 8
)

// Ingest sends orders to the Orders service, single and in bulk, beside
// pgbench that writes the same rows by the statements an ordinary client uses.
func Ingest(ctx context.Context, o IngestOptions) ([]Row, error) {
	l, err := newLab(ctx, o.Options)
	if err != nil {
		return nil, err
	}
	defer l.close()
	if err := errors.Join(l.migrateOutbox(ctx), orders.Migrate(ctx, l.db)); err != nil {
		return nil, err
	}
	shape, err := l.sampleOrder(ctx, o)
	if err != nil {
		return nil, err
	}
	var single, bulk, refSingle, refBulk []float64
	for round := range o.Rounds {
		m, err := l.ingestRound(ctx, o, shape, round)
		if err != nil {
			return nil, err
		}
		single, bulk = append(single, m.single), append(bulk, m.bulk)
		refSingle, refBulk = append(refSingle, m.refSingle), append(refBulk, m.refBulk)
		l.log.Info("measured", "round", round+1, "single", m.single, "pgbench_single", m.refSingle, "bulk", m.bulk, "pgbench_bulk", m.refBulk)
	}
	return []Row{
		compared("single POST", "orders/s", fmt.Sprintf("pgbench, %d clients, one prepared transaction of the same statements an order", o.Connections), single, refSingle, minSingleRatio),
		compared("bulk ingest", "orders/s", fmt.Sprintf("pgbench, 100 orders a transaction by unnest, %d clients", bulkClients), bulk, refBulk, minBulkRatio),
	}, nil
}

type ingestRound struct{ single, refSingle, bulk, refBulk float64 }

// ingestRound measures the four in turns, each on empty tables.
func (l *lab) ingestRound(ctx context.Context, o IngestOptions, shape orderShape, round int) (m ingestRound, err error) {
	steps := []struct {
		into *float64
		run  func() (float64, error)
	}{
		{&m.refSingle, func() (float64, error) { return l.pgbench(ctx, shape.single(), o.Connections, o.Seconds, 1) }},
		{&m.single, func() (float64, error) {
			return l.withOrders(ctx, o, func(addr string) (float64, error) { return sendSingle(ctx, addr, o, round) })
		}},
		{&m.refBulk, func() (float64, error) { return l.pgbench(ctx, shape.bulk(), bulkClients, o.Seconds, 100) }},
		{&m.bulk, func() (float64, error) {
			return l.withOrders(ctx, o, func(addr string) (float64, error) { return sendBulk(ctx, addr, o, round) })
		}},
	}
	for _, s := range steps {
		if err := l.emptyOrders(ctx); err != nil {
			return m, err
		}
		if *s.into, err = s.run(); err != nil {
			return m, err
		}
	}
	return m, nil
}

// emptyOrders truncates what the last step wrote and takes a checkpoint, so
// that every step begins alike.
func (l *lab) emptyOrders(ctx context.Context) error {
	_, err := l.db.Exec(ctx, `TRUNCATE orders.orders, orders.order_lines, orders.idempotency_keys, outbox.events`)
	if err == nil {
		_, err = l.db.Exec(ctx, `CHECKPOINT`)
	}
	if err != nil {
		return fmt.Errorf("empty the tables: %w", err)
	}
	return nil
}

// withOrders runs the Orders service as a process of its own around f.
func (l *lab) withOrders(ctx context.Context, o IngestOptions, f func(addr string) (float64, error)) (float64, error) {
	addr, err := freeAddr()
	if err != nil {
		return 0, err
	}
	metrics, err := freeAddr()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, o.Program, "--log-level=warn", "orders", "--addr="+addr, "--metrics-addr="+metrics)
	cmd.Env, cmd.Stderr = append(os.Environ(), "DATABASE_URL="+l.url), os.Stderr
	cmd.WaitDelay = 30 * time.Second
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start orders: %w", err)
	}
	rate, err := func() (float64, error) {
		if err := awaitReady(ctx, metrics); err != nil {
			return 0, err
		}
		return f(addr)
	}()
	_ = cmd.Process.Signal(syscall.SIGINT) // it ends by itself or is killed with ctx
	return rate, errors.Join(err, cmd.Wait())
}

func awaitReady(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
		if err != nil {
			return err
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the orders service: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// orderJSON writes an order with 1 to 9 lines, 5 in the mean.
func orderJSON(r *rand.Rand, b *bytes.Buffer, clientOrderID string) {
	b.WriteByte('{')
	if clientOrderID != "" {
		fmt.Fprintf(b, `"client_order_id":%q,`, clientOrderID)
	}
	fmt.Fprintf(b, `"customer_id":"%d","channel":"bench","lines":[`, 10000+r.IntN(9000))
	for n := range 1 + r.IntN(9) {
		if n > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(b, `{"sku":"%d","title":"WHITE HANGING HEART","quantity":%d,"unit_price":{"amount":"%d.%02d","currency":"GBP"},"seller_id":"uci"}`,
			10000+r.IntN(80000), 1+r.IntN(12), r.IntN(20), r.IntN(100))
	}
	b.WriteString(`],"ship_to":{"country":"GB"},"payment":{"method":"CARD","installments":1}}`)
}

// sendBulk sends one stream and returns orders a second.
func sendBulk(ctx context.Context, addr string, o IngestOptions, round int) (float64, error) {
	r := rand.New(rand.NewPCG(uint64(round), 5))
	var body bytes.Buffer
	for i := range o.BulkOrders {
		orderJSON(r, &body, fmt.Sprintf("bench-%d-%d", round, i))
		body.WriteByte('\n')
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/v1/orders:ingest", &body)
	if err != nil {
		return 0, fmt.Errorf("send bulk: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	began := time.Now()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("send bulk: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	answers, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, fmt.Errorf("read bulk results: %w", err)
	}
	took := time.Since(began)
	if n := bytes.Count(answers, []byte(`"status":201`)); n != o.BulkOrders {
		return 0, fmt.Errorf("bulk: %d of %d orders taken: %s", n, o.BulkOrders, lastLine(answers))
	}
	return float64(o.BulkOrders) / took.Seconds(), nil
}

func lastLine(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}
