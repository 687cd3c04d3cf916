package verify_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/consumers"
	"orderflow/e2e/verify"
	"orderflow/internal/kafka"
	"orderflow/internal/pg"
	"orderflow/internal/testenv"
	"orderflow/outbox-relay"
	"orderflow/outbox-relay/outbox"
	"orderflow/outbox-relay/source"
	"orderflow/schemas"
)

const (
	ordersTopic  = "orders.events.v1"
	sellersTopic = "sellers.events.v1"
	sourceName   = "orderflow"
	groupName    = "ledger"
	waitLong     = 60 * time.Second
)

// world is a small platform: an outbox, a broker, a registry.
type world struct {
	t        testing.TB
	url      string
	db       *pgxpool.Pool
	brokers  []string
	registry *schemas.Registry
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, brokers: testenv.Kafka(t), url: testenv.Postgres(t, testenv.Template("verify", prepare))}
	w.registry = must(schemas.NewRegistry(testenv.Registry(t)))(t)
	w.db = must(pg.Open(t.Context(), pg.Config{URL: w.url, MaxConns: 16}))(t)
	t.Cleanup(w.db.Close)
	w.makeTopics()
	return w
}

func prepare(ctx context.Context, url string) error {
	pool, err := pg.Open(ctx, pg.Config{URL: url})
	if err != nil {
		return err
	}
	defer pool.Close()
	return errors.Join(outbox.Migrate(ctx, pool), relay.Migrate(ctx, pool), outbox.Announce(ctx, pool), ledger().Migrate(ctx, pool))
}

func (w *world) makeTopics() {
	w.t.Helper()
	cl := must(kafka.Open(w.t.Context(), w.kafka(), testenv.Logger(w.t)))(w.t)
	defer cl.Close()
	check(w.t, kafka.EnsureTopics(w.t.Context(), cl, topics(), 1))
}

// topics are the few that the tests use: a real broker takes a while to make
// all of them.
func topics() []schemas.Topic {
	return slices.DeleteFunc(schemas.Topics(), func(t schemas.Topic) bool {
		return !slices.Contains([]string{ordersTopic, sellersTopic, schemas.StockTopic, schemas.RelaysTopic}, t.Name)
	})
}

func (w *world) kafka() kafka.Config { return kafka.Config{Brokers: w.brokers} }

// config is what the tests verify with.
func (w *world) config(groups ...string) verify.Config {
	c := verify.Config{
		DB: w.db, Kafka: w.kafka(), TempDir: w.t.TempDir(), Patience: 20 * time.Second, Log: testenv.Logger(w.t),
	}
	for _, g := range groups {
		c.Groups = append(c.Groups, verify.Group{Name: g, Topics: []string{ordersTopic, sellersTopic}})
	}
	return c
}

func (w *world) verify(groups ...string) verify.Report {
	w.t.Helper()
	return must(verify.Run(w.t.Context(), w.config(groups...)))(w.t)
}

// begin starts run and returns what ends it.
func (w *world) begin(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				w.t.Errorf("run: %v", err)
			}
		case <-time.After(waitLong):
			w.t.Error("it does not end")
		}
	})
	w.t.Cleanup(stop)
	return stop
}

// relay runs the real relay.
func (w *world) relay() (stop func()) {
	w.t.Helper()
	r := must(relay.New(relay.Config{
		Source: sourceName, Poll: source.PollConfig{DB: pg.Config{URL: w.url}}, Kafka: w.kafka(), LeaseTTL: time.Second,
	}, relay.Deps{DB: w.db, Registry: w.registry, Metrics: prometheus.NewRegistry(), Log: testenv.Logger(w.t)}))(w.t)
	return w.begin(r.Run)
}

// errUnwanted is what the ledger says to cancellations by the system.
var errUnwanted = errors.New("the system has no say in this")

// ledger is a group that has no effects but its positions. It sets aside what
// the system cancels.
func ledger() consumers.Consumer {
	nothing := func(context.Context, pgx.Tx, *schemas.OrderPlaced) error { return nil }
	unless := func(_ context.Context, _ pgx.Tx, e *schemas.OrderCancelled) error {
		if e.By == schemas.CancelledBySystem {
			return consumers.Permanent(errUnwanted)
		}
		return nil
	}
	accepted := func(context.Context, pgx.Tx, *schemas.SellerAccepted) error { return nil }
	return consumers.Consumer{Group: groupName, Handlers: []consumers.Handler{
		consumers.On(nothing), consumers.On(unless), consumers.On(accepted),
	}}
}

// group runs the ledger.
func (w *world) group() (stop func()) {
	w.t.Helper()
	db := must(pg.Open(w.t.Context(), pg.Config{URL: w.url, Schema: groupName, MaxConns: 8}))(w.t)
	w.t.Cleanup(db.Close)
	d := consumers.Deps{
		DB: db, Kafka: w.kafka(), Decoder: schemas.NewDecoder(w.registry), Log: testenv.Logger(w.t),
		Metrics: prometheus.NewRegistry(), Limits: consumers.Limits{SessionTimeout: 6 * time.Second},
	}
	return w.begin(func(ctx context.Context) error { return ledger().Run(ctx, d) })
}

// drain runs relay and group until everything is applied.
func (w *world) drain() {
	w.t.Helper()
	stopRelay, stopGroup := w.relay(), w.group()
	w.waitApplied()
	stopGroup()
	stopRelay()
}

func (w *world) waitApplied() {
	w.t.Helper()
	testenv.Wait(w.t, waitLong, "the group to apply every event", func() bool {
		return w.count(`SELECT count(*) FROM outbox.events`) == w.count(`SELECT sum(applied_count) FROM ledger.consumer_position`)
	})
}

func (w *world) count(sql string, args ...any) int64 {
	w.t.Helper()
	var n *int64
	check(w.t, w.db.QueryRow(w.t.Context(), sql, args...).Scan(&n))
	if n == nil {
		return 0
	}
	return *n
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	_, err := w.db.Exec(w.t.Context(), sql, args...)
	check(w.t, err)
}

func (w *world) append(events ...schemas.Event) {
	w.t.Helper()
	check(w.t, outbox.Append(w.t.Context(), w.db, events...))
}

// fill writes n orders.
func (w *world) fill(n int) {
	w.t.Helper()
	w.append(orders("order", n)...)
}

// orders are the events of n orders: each placed, accepted by a seller, the
// even ones cancelled.
func orders(prefix string, n int) []schemas.Event {
	var events []schemas.Event
	for i := range n {
		id := fmt.Sprintf("%s-%04d", prefix, i)
		events = append(events, placed(id, 1), accepted(id, 1))
		if i%2 == 0 {
			events = append(events, cancelled(id, 2))
		}
	}
	return events
}

// published is a record with what the tests know of it.
type published = kgo.Record

// forgery changes what is published in the relay's place.
type forgery struct {
	// before works on the records before they are numbered, after on those
	// that are.
	before, after func([]*published) []*published
	// checkpoint changes the last record.
	checkpoint func(*relay.Checkpoint)
}

// forge publishes the whole outbox as the relay does, but for the forgery.
func (w *world) forge(f forgery) {
	w.t.Helper()
	records, point := w.readOutbox()
	if f.before != nil {
		records = f.before(records)
	}
	counts := number(records)
	if f.after != nil {
		records = f.after(records)
	}
	cp := w.checkpoint(point, counts)
	if f.checkpoint != nil {
		f.checkpoint(&cp)
	}
	w.publish("forger", append(records, checkpointRecord(w.t, cp)), kgo.TryCommit)
}

func (w *world) checkpoint(point source.Point, counts map[string][]uint64) relay.Checkpoint {
	w.t.Helper()
	return relay.Checkpoint{
		Version: 1, Source: sourceName, Number: 1, Term: 1, Incarnation: 1, Kind: relay.KindPoll,
		System: w.system(), Point: point, Published: counts,
	}
}

func checkpointRecord(t testing.TB, cp relay.Checkpoint) *kgo.Record {
	t.Helper()
	return &kgo.Record{Topic: schemas.RelaysTopic, Key: []byte(cp.Source), Value: must(json.Marshal(cp))(t)}
}

// publish writes records in one transaction.
func (w *world) publish(producer string, records []*kgo.Record, end kgo.TransactionEndTry) {
	w.t.Helper()
	cl := w.open(producer, records)
	defer cl.Close()
	check(w.t, cl.EndTransaction(w.t.Context(), end))
}

// open writes records in a transaction that it leaves open.
func (w *world) open(producer string, records []*kgo.Record) *kgo.Client {
	w.t.Helper()
	cl := must(kgo.NewClient(append(w.kafka().Options(testenv.Logger(w.t)),
		kgo.TransactionalID(producer), kgo.RecordPartitioner(kgo.ManualPartitioner()))...))(w.t)
	w.t.Cleanup(cl.Close)
	check(w.t, cl.BeginTransaction())
	check(w.t, cl.ProduceSync(w.t.Context(), records...).FirstErr())
	return cl
}

func (w *world) system() string {
	w.t.Helper()
	var system string
	check(w.t, w.db.QueryRow(w.t.Context(), `
		SELECT (SELECT system_identifier::text FROM pg_control_system()) || '/' ||
		       (SELECT oid::text FROM pg_database WHERE datname = current_database())`).Scan(&system))
	return system
}

// readOutbox makes records of every row, in the source's order.
func (w *world) readOutbox() ([]*kgo.Record, source.Point) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), waitLong)
	defer cancel()
	src := must(source.NewPoll(ctx, source.PollConfig{DB: pg.Config{URL: w.url}}, ""))(w.t)
	defer src.Close()
	want := int(w.count(`SELECT count(*) FROM outbox.events`))
	var records []*kgo.Record
	var point source.Point
	for len(records) < want {
		b := must(src.Next(ctx))(w.t)
		for _, e := range b.Events {
			records = append(records, makeRecord(e))
		}
		point = b.After
		b.Release()
	}
	return records, point
}

// pages reads the outbox as a relay that stops between two pages of a window.
type pages struct {
	w       *world
	src     source.Source
	records []*kgo.Record
	point   source.Point // behind the last of records
}

func (w *world) openPages() *pages {
	w.t.Helper()
	const rows = 17
	src := must(source.NewPoll(w.t.Context(), source.PollConfig{DB: pg.Config{URL: w.url}, MaxBatchRows: rows}, ""))(w.t)
	w.t.Cleanup(src.Close)
	return &pages{w: w, src: src}
}

func (p *pages) read(n int) {
	p.w.t.Helper()
	ctx, cancel := context.WithTimeout(p.w.t.Context(), waitLong)
	defer cancel()
	for range n {
		b := must(p.src.Next(ctx))(p.w.t)
		for _, e := range b.Events {
			p.records = append(p.records, makeRecord(e))
		}
		p.point = b.After
		b.Release()
	}
}

func makeRecord(e source.Event) *kgo.Record {
	key := slices.Clone(e.AggregateID)
	return &kgo.Record{
		Topic: e.Topic, Key: key, Partition: kafka.Partition(key, 12), Value: []byte("not looked at"),
		Headers: []kgo.RecordHeader{
			{Key: kafka.HeaderID, Value: []byte(uuid.UUID(e.ID).String())},
			{Key: kafka.HeaderType, Value: []byte(e.Type)},
		},
	}
}

// number gives each record its position and returns the counts.
func number(records []*kgo.Record) map[string][]uint64 {
	counts := map[string][]uint64{}
	for _, r := range records {
		if counts[r.Topic] == nil {
			counts[r.Topic] = make([]uint64, 12)
		}
		counts[r.Topic][r.Partition]++
		setPosition(r, kafka.Position{Incarnation: 1, N: counts[r.Topic][r.Partition], Source: sourceName})
	}
	return counts
}

func setPosition(r *kgo.Record, p kafka.Position) {
	setHeader(r, kafka.HeaderPosition, p.Append(nil))
}

func setHeader(r *kgo.Record, name string, value []byte) {
	r.Headers = slices.DeleteFunc(slices.Clone(r.Headers), func(h kgo.RecordHeader) bool { return h.Key == name })
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: value})
}

func header(r *kgo.Record, name string) []byte {
	for _, h := range r.Headers {
		if h.Key == name {
			return h.Value
		}
	}
	return nil
}

func idOf(r *kgo.Record) string { return string(header(r, kafka.HeaderID)) }

// find returns where the i-th record of an order in a topic is.
func find(records []*kgo.Record, topic, key string, i int) int {
	for n, r := range records {
		if r.Topic == topic && string(r.Key) == key {
			if i == 0 {
				return n
			}
			i--
		}
	}
	panic(fmt.Sprintf("no such record of %s in %s", key, topic))
}

// faults are the counts of a report that are not zero, by the JSON's names.
func faults(t testing.TB, r verify.Report) map[string]int64 {
	t.Helper()
	var fields map[string]json.RawMessage
	check(t, json.Unmarshal(must(json.Marshal(r))(t), &fields))
	got := map[string]int64{}
	for name, raw := range fields {
		var f verify.Finding
		if json.Unmarshal(raw, &f) == nil && f.Count > 0 {
			got[name] = f.Count
		}
	}
	for _, name := range []string{"lost", "twice", "out_of_order"} {
		var n int64
		check(t, json.Unmarshal(fields[name], &n))
		if n > 0 {
			got[name] = n
		}
	}
	return got
}

func checkFaults(t testing.TB, r verify.Report, want map[string]int64) {
	t.Helper()
	if want == nil {
		want = map[string]int64{}
	}
	if diff := cmp.Diff(want, faults(t, r)); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

// checkOK fails the test unless everything is as it should be.
func checkOK(t testing.TB, r verify.Report) {
	t.Helper()
	checkFaults(t, r, nil)
	if !r.OK() {
		text := must(json.MarshalIndent(r, "", " "))(t)
		t.Errorf("not OK: %s", text)
	}
}

func firstID(f verify.Finding) string {
	if len(f.First) == 0 {
		return ""
	}
	return f.First[0].EventID
}

// order names the i-th order of fill.
func order(i int) string { return fmt.Sprintf("order-%04d", i) }

func meta(order string, version int64) schemas.EventMeta {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return schemas.EventMeta{
		EventID: uuid.Must(uuid.NewV7()).String(), OrderID: order, OrderVersion: version, OccurredAt: now,
		CorrelationID: order, Producer: "test", Flow: schemas.FlowChoreography,
	}
}

func placed(order string, version int64) *schemas.OrderPlaced {
	gbp := func(minor int64) schemas.Money { return schemas.Money{Minor: minor, Currency: "GBP", Scale: 2} }
	return &schemas.OrderPlaced{
		Meta: meta(order, version), CustomerID: "c", Channel: "test",
		Lines:   []schemas.OrderLine{{LineNo: 1, SKU: "A", Quantity: 1, UnitPrice: gbp(100), Freight: gbp(0), SellerID: "s"}},
		Totals:  schemas.Totals{Items: gbp(100), Freight: gbp(0), Discount: gbp(0), Tax: gbp(0), Grand: gbp(100)},
		ShipTo:  schemas.Address{Country: "GB"},
		Payment: schemas.Payment{Method: schemas.PaymentMethodCard, Installments: 1},
	}
}

func cancelled(order string, version int64) *schemas.OrderCancelled {
	return &schemas.OrderCancelled{Meta: meta(order, version), By: schemas.CancelledByCustomer, Reason: "changed my mind"}
}

func accepted(order string, version int64) *schemas.SellerAccepted {
	return &schemas.SellerAccepted{Meta: meta(order, version), SellerID: "s"}
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
