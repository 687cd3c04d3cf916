package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow/internal/embedded"
	"orderflow/internal/pg"
	"orderflow/internal/testenv"
	"orderflow/outbox-relay"
)

// binary builds the program once for all stories.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "orderflow-e2e-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "orderflow")
	out, err := exec.Command("go", "build", "-o", path, "orderflow").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build orderflow: %w\n%s", err, out)
	}
	return path, nil
})

// plant is a pipeline of real processes.
type plant struct {
	t        *testing.T
	program  string
	url      string
	db       *pgxpool.Pool
	broker   broker
	registry *embedded.Registry
	api      string
}

// broker is a Kafka that a story can take away and bring back with its data.
type broker interface {
	addrs() []string
	kill()
	restart()
}

// newPlant makes database, broker, registry, tables and topics; no stage runs.
func newPlant(t *testing.T) *plant {
	t.Helper()
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p := &plant{t: t, program: program, url: testenv.Postgres(t), broker: newBroker(t), api: freeAddr(t)}
	if p.db, err = pg.Open(t.Context(), pg.Config{URL: p.url, MaxConns: 4}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.db.Close)
	if p.registry, err = embedded.StartRegistry(t.Context(), embedded.RegistryConfig{Log: testenv.Logger(t)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.registry.Close() })
	p.must("migrate")
	p.must("topics")
	return p
}

// embeddedBroker is the development broker, with its log on disk.
type embeddedBroker struct {
	t   *testing.T
	dir string
	b   *embedded.Broker
}

func newBroker(t *testing.T) broker {
	t.Helper()
	if os.Getenv("ORDERFLOW_TEST_KAFKA") == "apache" {
		return newApacheBroker(t)
	}
	b := &embeddedBroker{t: t, dir: t.TempDir()}
	b.restart()
	t.Cleanup(b.kill)
	return b
}

func (b *embeddedBroker) addrs() []string { return b.b.Addrs() }

func (b *embeddedBroker) kill() {
	if err := b.b.Close(); err != nil {
		b.t.Error(err)
	}
}

func (b *embeddedBroker) restart() {
	var err error
	// Not the test's context: it ends before the last clean-up.
	b.b, err = embedded.StartBroker(context.Background(), embedded.BrokerConfig{DataDir: b.dir, Log: testenv.Logger(b.t)})
	if err != nil {
		b.t.Fatal(err)
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func (p *plant) env() []string {
	return append(os.Environ(), "DATABASE_URL="+p.url, "KAFKA_BROKERS="+strings.Join(p.broker.addrs(), ","),
		"SCHEMA_REGISTRY_URL="+p.registry.URL())
}

// must runs a command to its end and returns what it printed.
func (p *plant) must(args ...string) string {
	p.t.Helper()
	out, err := p.command(args...)
	if err != nil {
		p.t.Fatalf("orderflow %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (p *plant) command(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.program, args...)
	cmd.Env = p.env()
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	err := cmd.Run()
	return out.String() + log.String(), err
}

// process is a stage that a story can kill, freeze and wake.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  *lockedBuffer
	done chan struct{} // closed when the process has ended
}

// lockedBuffer takes the log of a process while a test reads it.
type lockedBuffer struct {
	mu sync.Mutex // protects b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs a stage until the story ends or kills it.
func (p *plant) start(args ...string) *process {
	p.t.Helper()
	x := &process{t: p.t, log: &lockedBuffer{}, done: make(chan struct{})}
	x.cmd = exec.Command(p.program, append(args, "--metrics-addr="+freeAddr(p.t))...)
	x.cmd.Env, x.cmd.Stdout, x.cmd.Stderr = p.env(), x.log, x.log
	if err := x.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		defer close(x.done)
		_ = x.cmd.Wait() // killed on purpose, as a rule
	}()
	p.t.Cleanup(func() {
		x.kill()
		if p.t.Failed() {
			p.t.Logf("log of orderflow %s:\n%s", strings.Join(args, " "), tail(x.log.String()))
		}
	})
	return x
}

func tail(s string) string {
	const most = 4000
	if len(s) > most {
		return "..." + s[len(s)-most:]
	}
	return s
}

func (x *process) signal(s syscall.Signal) { _ = x.cmd.Process.Signal(s) } // it may have ended

// kill is kill -9, and waits until the process is gone.
func (x *process) kill() {
	x.signal(syscall.SIGCONT)
	x.signal(syscall.SIGKILL)
	<-x.done
}

// stop asks the process to end, as an operator does.
func (x *process) stop() {
	x.t.Helper()
	x.signal(syscall.SIGTERM)
	select {
	case <-x.done:
	case <-time.After(30 * time.Second):
		x.t.Errorf("still running 30 s after SIGTERM")
	}
}

// serveOrders starts the API and waits until it answers.
func (p *plant) serveOrders() *process {
	p.t.Helper()
	x := p.start("orders", "--addr="+p.api)
	testenv.Wait(p.t, 30*time.Second, "the Orders API", func() bool {
		res, err := http.Get("http://" + p.api + "/v1/orders?limit=1")
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	return x
}

// place sends orders in bulk; keys make it repeatable.
func (p *plant) place(first, n int) {
	p.t.Helper()
	var body bytes.Buffer
	for i := first; i < first+n; i++ {
		fmt.Fprintf(&body, `{"client_order_id":"e2e:%d","customer_id":"%d","channel":"e2e","lines":[{"sku":"A%d","quantity":%d,`+
			`"unit_price":{"amount":"2.55","currency":"GBP"},"seller_id":"s%d"},{"sku":"B","quantity":1,"unit_price":{"amount":"1.00","currency":"GBP"},"seller_id":"other"}],`+
			`"ship_to":{"country":"GB"},"payment":{"method":"CARD","installments":1}}`+"\n", i, i%97, i%50, 1+i%5, i%7)
	}
	res, err := http.Post("http://"+p.api+"/v1/orders:ingest", "application/x-ndjson", &body)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	dec := json.NewDecoder(res.Body)
	for range n {
		var line struct {
			Status  int             `json:"status"`
			Problem json.RawMessage `json:"problem"`
		}
		if err := dec.Decode(&line); err != nil {
			p.t.Fatal(err)
		}
		if line.Status != http.StatusCreated && line.Status != http.StatusOK {
			p.t.Fatalf("order refused: %d %s", line.Status, line.Problem)
		}
	}
}

// applied waits until each group has applied n events.
func (p *plant) applied(n int64, groups ...string) {
	p.t.Helper()
	for _, g := range groups {
		testenv.Wait(p.t, 90*time.Second, fmt.Sprintf("group %s to apply %d events", g, n), func() bool {
			var got int64
			err := p.db.QueryRow(p.t.Context(), `SELECT coalesce(sum(applied_count), 0) FROM `+g+`.consumer_position`).Scan(&got)
			return err == nil && got >= n
		})
	}
}

// published waits until the relay has nothing left.
func (p *plant) published() {
	p.t.Helper()
	testenv.Wait(p.t, 90*time.Second, "the outbox to be published", func() bool {
		s, err := relay.ReadStatus(p.t.Context(), p.db, "orderflow")
		return err == nil && s.Checkpoint != nil && s.Backlog.Events == 0
	})
}

// verify runs the checker; it must find nothing wrong.
func (p *plant) verify() {
	p.t.Helper()
	out := p.must("--log-level=error", "verify", "--json")
	if !strings.Contains(out, `"ok":true`) {
		p.t.Errorf("verify: %s", tail(out))
	}
}

// restartRegistry brings an empty registry to the address of the former one:
// the relay registers what it finds in the outbox.
func (p *plant) restartRegistry() {
	p.t.Helper()
	u, err := url.Parse(p.registry.URL())
	if err != nil {
		p.t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		p.t.Fatal(err)
	}
	if p.registry, err = embedded.StartRegistry(p.t.Context(), embedded.RegistryConfig{Port: port, Log: testenv.Logger(p.t)}); err != nil {
		p.t.Fatal(err)
	}
}
