package orders

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"orderflow/internal/pg"
	"orderflow/internal/testenv"
	"orderflow/outbox-relay/outbox"
)

// harness is a running service with a database of its own.
type harness struct {
	t        *testing.T
	service  *Service
	db       *pgxpool.Pool
	url      string
	registry *prometheus.Registry
	contract *contract
	stop     func() // ends Run and waits for it; may be called twice
}

// database returns the URL of a fresh database with every table in place.
func database(t testing.TB) string {
	return testenv.Postgres(t, testenv.Template("orders", func(ctx context.Context, url string) error {
		pool, err := pg.Open(ctx, pg.Config{URL: url})
		if err != nil {
			return err
		}
		defer pool.Close()
		if err := outbox.Migrate(ctx, pool); err != nil {
			return err
		}
		return Migrate(ctx, pool)
	}))
}

func openPool(t testing.TB, url string, conns int32) *pgxpool.Pool {
	t.Helper()
	pool, err := pg.Open(context.Background(), pg.Config{URL: url, MaxConns: conns})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func start(t *testing.T, cfg Config) *harness {
	t.Helper()
	return startOn(t, database(t), cfg)
}

// startOn starts a service on a database that another may use too.
func startOn(t *testing.T, databaseURL string, cfg Config) *harness {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &harness{
		t: t, db: openPool(t, databaseURL, cfg.Conns()), url: "http://" + l.Addr().String(),
		registry: prometheus.NewRegistry(), contract: readContract(t),
	}
	h.service = New(cfg, Deps{DB: h.db, Listener: l, Log: testenv.Logger(t), Metrics: h.registry})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.service.Run(ctx) }()
	stopped := false
	h.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(h.stop)
	return h
}

// reply is an answer, read whole.
type reply struct {
	status int
	header http.Header
	body   string
}

func (h *harness) do(method, path, body string, header ...string) reply {
	h.t.Helper()
	r, err := h.send(method, path, strings.NewReader(body), header...)
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

// send makes a request with header names and values in turn, and holds the
// answer against the contract. It may be called from any goroutine.
func (h *harness) send(method, path string, body io.Reader, header ...string) (reply, error) {
	req, err := http.NewRequest(method, h.url+path, body)
	if err != nil {
		return reply{}, err
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", contentJSON)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	all, err := io.ReadAll(res.Body)
	if err != nil {
		return reply{}, err
	}
	r := reply{res.StatusCode, res.Header, string(all)}
	if err := h.contract.check(method, path, r); err != nil {
		h.t.Errorf("%s %s: answer %d breaks the contract: %v", method, path, r.status, err)
	}
	return r, nil
}

// place sends the sample order under a key.
func (h *harness) place(key string) reply {
	h.t.Helper()
	return h.do("POST", "/v1/orders", sample, "Idempotency-Key", key)
}

// ingest sends lines as one stream and returns the lines of the answer.
func (h *harness) ingest(lines ...string) []string {
	h.t.Helper()
	body := strings.Join(lines, "\n") + "\n"
	r := h.do("POST", "/v1/orders:ingest", body, "Content-Type", "application/x-ndjson")
	if r.status != http.StatusOK {
		h.t.Fatalf("ingest: got %d %s", r.status, r.body)
	}
	return strings.Split(strings.TrimSuffix(r.body, "\n"), "\n")
}

// bulkLine is the sample order as a line of an ingest.
func bulkLine(clientOrderID string) string {
	oneLine := string(bytes.ReplaceAll([]byte(sample), []byte("\n"), nil))
	return fmt.Sprintf(`{"client_order_id":%q,`, clientOrderID) + oneLine[1:]
}

// count runs a query that returns one number.
func (h *harness) count(sql string, args ...any) int {
	h.t.Helper()
	var n int
	if err := h.db.QueryRow(context.Background(), sql, args...).Scan(&n); err != nil {
		h.t.Fatal(err)
	}
	return n
}

// problemIn reads the problem that a reply is.
func problemIn(t testing.TB, r reply) problem {
	t.Helper()
	var p problem
	if err := json.Unmarshal([]byte(r.body), &p); err != nil {
		t.Fatalf("status %d, body %q is no problem: %v", r.status, r.body, err)
	}
	return p
}

// orderIDIn reads the order id of a receipt or a result line.
func orderIDIn(t testing.TB, body string) string {
	t.Helper()
	var v struct {
		OrderID string `json:"order_id"`
	}
	if err := json.Unmarshal([]byte(body), &v, json.RejectUnknownMembers(false)); err != nil || v.OrderID == "" {
		t.Fatalf("no order id in %q: %v", body, err)
	}
	return v.OrderID
}

func key(n int) string { return fmt.Sprintf("test-key-%010d", n) }
