package consumers

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/internal/kafka"
	"orderflow/internal/pg"
	"orderflow/internal/testenv"
	"orderflow/schemas"
)

const (
	ordersTopic = "orders.events.v1"
	testGroup   = "ledger"
	testSource  = "orders"
	waitLong    = 60 * time.Second
)

// bed is what a test of the runtime stands on: a database, a broker, a
// registry, a producer that plays the relay, and the record of what it wrote.
type bed struct {
	t        testing.TB
	ctx      context.Context
	url      string
	brokers  []string
	decoder  *schemas.Decoder
	registry *schemas.Registry
	db       *pgxpool.Pool
	producer *kgo.Client
	parts    int32

	mu      sync.Mutex // protects written, n, version
	written []written
	n       map[int32]uint64 // by partition
	version map[string]int64 // by order
}

// written is an event in the log.
type written struct {
	Part      int32
	Off       int64
	Key, Type string
	ID        uuid.UUID
}

func newBed(t testing.TB, parts int32, opts ...testenv.PostgresOption) *bed {
	t.Helper()
	b := &bed{
		t: t, ctx: context.Background(), parts: parts, brokers: testenv.Kafka(t),
		url: testenv.Postgres(t, append(opts, testenv.Template("consumers", prepare))...),
		n:   map[int32]uint64{}, version: map[string]int64{},
	}
	b.registry = must(schemas.NewRegistry(testenv.Registry(t)))(t)
	b.decoder = schemas.NewDecoder(b.registry)
	b.db = b.pool(pg.Config{URL: b.url, Schema: testGroup, MaxConns: 12})
	b.producer = must(kgo.NewClient(
		kgo.SeedBrokers(b.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.TransactionalID("relay-"+uuid.NewString()),
	))(t)
	t.Cleanup(b.producer.Close)
	b.createTopic()
	return b
}

func (b *bed) createTopic() {
	b.t.Helper()
	_, err := kadm.NewClient(b.producer).CreateTopic(b.ctx, b.parts, 1, nil, ordersTopic)
	check(b.t, err)
}

// prepare fills the template database.
func prepare(ctx context.Context, url string) error {
	pool, err := pg.Open(ctx, pg.Config{URL: url, Schema: testGroup})
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := ledger().Migrate(ctx, pool); err != nil {
		return err
	}
	_, err = pool.Exec(ctx, `CREATE TABLE ledger.effects (
		seq bigint GENERATED ALWAYS AS IDENTITY, part int, off bigint, key text, type text, id uuid)`)
	return err
}

func (b *bed) pool(c pg.Config) *pgxpool.Pool {
	b.t.Helper()
	pool := must(pg.Open(b.ctx, c))(b.t)
	b.t.Cleanup(pool.Close)
	return pool
}

const effectSQL = `INSERT INTO effects (part, off, key, type, id)
SELECT * FROM unnest($1::int[], $2::bigint[], $3::text[], $4::text[], $5::uuid[])`

// record is a handler that leaves one row per event, without any constraint
// that would hide a repeat.
func record[E schemas.Event](ctx context.Context, tx pgx.Tx, events []Event[E]) error {
	n := len(events)
	parts, offs, keys, types, ids := make([]int32, n), make([]int64, n), make([]string, n), make([]string, n), make([]uuid.UUID, n)
	for i, e := range events {
		m := e.Value.Envelope()
		parts[i], offs[i], keys[i], types[i], ids[i] = e.Partition, e.Offset, m.OrderID, m.EventType, uuid.MustParse(m.EventID)
	}
	_, err := tx.Exec(ctx, effectSQL, parts, offs, keys, types, ids)
	return err
}

// ledger is the consumer under test.
func ledger() Consumer {
	return Consumer{Group: testGroup, Handlers: []Handler{
		OnBatch(record[*schemas.OrderPlaced]), OnBatch(record[*schemas.OrderCancelled]),
	}}
}

// member is one process of the group, within this one.
type member struct {
	b       *bed
	cancel  context.CancelFunc
	done    chan error
	metrics *prometheus.Registry
	net     *wire // its way to Kafka
	stopped bool
}

type memberOption func(*Consumer, *Deps)

func withFaults(f *faults) memberOption { return func(_ *Consumer, d *Deps) { d.faults = f } }

func withLimits(change func(*Limits)) memberOption {
	return func(_ *Consumer, d *Deps) { change(&d.Limits) }
}

func withHandlers(h ...Handler) memberOption { return func(c *Consumer, _ *Deps) { c.Handlers = h } }

func withDB(pool *pgxpool.Pool) memberOption { return func(_ *Consumer, d *Deps) { d.DB = pool } }

// sessionTimeout is as short as the broker allows.
func sessionTimeout() time.Duration {
	if testenv.RealKafka() {
		return 6 * time.Second
	}
	return time.Second
}

func (b *bed) run(opts ...memberOption) *member {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.ctx)
	m := &member{b: b, cancel: cancel, done: make(chan error, 1), metrics: prometheus.NewRegistry(), net: &wire{}}
	c, d := ledger(), Deps{
		DB: b.db, Kafka: kafka.Config{Brokers: b.brokers}, Decoder: b.decoder, Log: testenv.Logger(b.t), Metrics: m.metrics,
		Limits: Limits{
			SessionTimeout: sessionTimeout(), RebalanceTimeout: 3 * sessionTimeout(), CommitInterval: 50 * time.Millisecond, RetryMin: 5 * time.Millisecond,
			RetryMax: 50 * time.Millisecond, ReclaimWait: 100 * time.Millisecond, StopRetry: 100 * time.Millisecond,
			LockTimeout: time.Second, IdleInTransaction: 2 * time.Second,
		},
	}
	for _, o := range opts {
		o(&c, &d)
	}
	if d.faults == nil {
		d.faults = &faults{}
	}
	d.faults.kafka = append(d.faults.kafka, kgo.Dialer(m.net.dial))
	go func() { m.done <- c.Run(ctx, d) }()
	b.t.Cleanup(m.stop)
	return m
}

// stop ends the member in order.
func (m *member) stop() {
	m.b.t.Helper()
	if m.stopped {
		return
	}
	m.stopped = true
	m.cancel()
	select {
	case err := <-m.done:
		if err != nil {
			m.b.t.Errorf("run: %v", err)
		}
	case <-time.After(waitLong):
		m.b.t.Error("the member does not end")
	}
}

// kill ends the member as far as Kafka can see: nothing it says arrives.
func (m *member) kill() {
	m.b.t.Helper()
	m.net.cut()
	m.stop()
}

// wire is a member's network. While it is frozen nothing moves, as in a
// process that does not run.
type wire struct {
	mu     sync.Mutex // protects frozen, dead, conns
	frozen chan struct{}
	dead   bool
	conns  []net.Conn
}

func (w *wire) dial(ctx context.Context, network, host string) (net.Conn, error) {
	if err := w.wait(); err != nil {
		return nil, err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, network, host)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, c)
	return &wireConn{c, w}, nil
}

func (w *wire) wait() error {
	w.mu.Lock()
	frozen, dead := w.frozen, w.dead
	w.mu.Unlock()
	if dead {
		return net.ErrClosed
	}
	if frozen != nil {
		<-frozen
	}
	return nil
}

func (w *wire) freeze() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.frozen == nil {
		w.frozen = make(chan struct{})
	}
}

func (w *wire) thaw() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.frozen != nil {
		close(w.frozen)
		w.frozen = nil
	}
}

// cut ends every connection and lets no new one come up.
func (w *wire) cut() {
	w.thaw()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = true
	for _, c := range w.conns {
		_ = c.Close()
	}
}

type wireConn struct {
	net.Conn
	wire *wire
}

func (c *wireConn) Write(p []byte) (int, error) {
	if err := c.wire.wait(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *wireConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if werr := c.wire.wait(); werr != nil {
		return 0, werr
	}
	return n, err
}

// effect is a row that a handler left.
type effect = written

func (b *bed) effects() []effect {
	b.t.Helper()
	rows := must(b.db.Query(b.ctx, "SELECT part, off, key, type, id FROM effects ORDER BY seq"))(b.t)
	return must(pgx.CollectRows(rows, pgx.RowToStructByPos[effect]))(b.t)
}

func (b *bed) count(sql string, args ...any) int {
	b.t.Helper()
	var n int
	check(b.t, b.db.QueryRow(b.ctx, sql, args...).Scan(&n))
	return n
}

// waitApplied waits until the positions have counted as many events.
func (b *bed) waitApplied(events int) {
	b.t.Helper()
	testenv.Wait(b.t, waitLong, fmt.Sprintf("%d events applied", events), func() bool {
		return b.count("SELECT coalesce(sum(applied_count), 0) FROM consumer_position") >= events
	})
}

// checkOnceInOrder compares the effects with what was written: each event that
// want keeps, once, in the order of its partition, and the sums of the
// positions over all of them.
func (b *bed) checkOnceInOrder(want func(written) bool) {
	b.t.Helper()
	got, expected := map[int32][]effect{}, map[int32][]written{}
	for _, e := range b.effects() {
		got[e.Part] = append(got[e.Part], e)
	}
	counts, hashes := map[int32]int64{}, map[int32]int64{}
	b.mu.Lock()
	for _, w := range b.written {
		if want(w) {
			expected[w.Part] = append(expected[w.Part], w)
		}
		counts[w.Part]++
		hashes[w.Part] += EventHash(w.ID)
	}
	b.mu.Unlock()
	if diff := cmp.Diff(byKey(expected), byKey(got)); diff != "" {
		b.t.Errorf("effects differ from the log (-log +effects):\n%s", diff)
	}
	for _, p := range must(Positions(b.ctx, b.db, testGroup))(b.t) {
		if p.AppliedCount != counts[p.Partition] || p.AppliedHash != hashes[p.Partition] {
			b.t.Errorf("partition %d: count and hash are %d, %d, want %d, %d",
				p.Partition, p.AppliedCount, p.AppliedHash, counts[p.Partition], hashes[p.Partition])
		}
	}
}

// byKey is the order that is promised: within a key. Batches of several types
// may interleave keys differently.
func byKey(parts map[int32][]written) map[string][]written {
	keys := map[string][]written{}
	for _, events := range parts {
		for _, e := range events {
			k := fmt.Sprintf("%d/%s", e.Part, e.Key)
			keys[k] = append(keys[k], e)
		}
	}
	return keys
}

func all(written) bool { return true }

// kafkaLag is the distance of Kafka's own offsets from the ends of the log.
func (b *bed) kafkaLag() int64 {
	b.t.Helper()
	adm := kadm.NewClient(b.producer)
	committed := must(adm.FetchOffsets(b.ctx, testGroup))(b.t)
	ends := must(adm.ListEndOffsets(b.ctx, ordersTopic))(b.t)
	lag := int64(0)
	ends.Each(func(o kadm.ListedOffset) {
		at, ok := committed.Lookup(o.Topic, o.Partition)
		if !ok || at.At < 0 {
			at.At = 0
		}
		lag += o.Offset - at.At
	})
	return lag
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		check(t, err)
		return v
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
