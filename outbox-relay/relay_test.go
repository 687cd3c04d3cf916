package relay_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/internal/kafka"
	"orderflow/internal/pg"
	"orderflow/internal/testenv"
	"orderflow/outbox-relay"
	"orderflow/outbox-relay/outbox"
	"orderflow/outbox-relay/source"
	"orderflow/schemas"
)

// bench is an outbox, a broker, a registry and relays between them.
type bench struct {
	t        *testing.T
	url      string
	db       *pgxpool.Pool
	brokers  []string
	registry string
}

const ordersTopic = "orders.events.v1"

func newBench(t *testing.T) *bench {
	t.Helper()
	url := testenv.Postgres(t, testenv.Template("relays", migrate))
	db, err := pg.Open(t.Context(), pg.Config{URL: url, MaxConns: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	if err := outbox.Announce(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, url: url, db: db, brokers: testenv.Kafka(t), registry: testenv.Registry(t)}
	b.ensureTopics()
	return b
}

func (b *bench) ensureTopics() {
	b.t.Helper()
	cl, err := kafka.Open(b.t.Context(), kafka.Config{Brokers: b.brokers}, testenv.Logger(b.t))
	if err != nil {
		b.t.Fatal(err)
	}
	defer cl.Close()
	if err := kafka.EnsureTopics(b.t.Context(), cl, schemas.Topics(), 1); err != nil {
		b.t.Fatal(err)
	}
}

func migrate(ctx context.Context, url string) error {
	pool, err := pg.Open(ctx, pg.Config{URL: url})
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := outbox.Migrate(ctx, pool); err != nil {
		return err
	}
	return relay.Migrate(ctx, pool)
}

// relay runs a relay until stop is called; done then holds what Run returned.
func (b *bench) relay(change ...func(*relay.Config)) (stop func(), done <-chan error) {
	b.t.Helper()
	registry, err := schemas.NewRegistry(b.registry)
	if err != nil {
		b.t.Fatal(err)
	}
	cfg := relay.Config{
		Poll:     source.PollConfig{DB: pg.Config{URL: b.url}},
		Kafka:    kafka.Config{Brokers: b.brokers},
		LeaseTTL: 2 * time.Second,
	}
	for _, c := range change {
		c(&cfg)
	}
	r, err := relay.New(cfg, relay.Deps{DB: b.db, Registry: registry, Metrics: prometheus.NewRegistry(), Log: testenv.Logger(b.t)})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	result, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		result <- r.Run(ctx)
	}()
	stop = func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			b.t.Error("relay still runs 20 s after it was stopped")
		}
	}
	b.t.Cleanup(stop)
	return stop, result
}

// cancelled makes an event of an order.
func cancelled(order uuid.UUID, version int64) *schemas.OrderCancelled {
	return &schemas.OrderCancelled{
		Meta: schemas.EventMeta{
			EventID: uuid.Must(uuid.NewV7()).String(), OrderID: order.String(), OrderVersion: version,
			OccurredAt: time.Now().UTC(), CorrelationID: "c", Producer: "orders", Flow: schemas.FlowChoreography,
		},
		By: schemas.CancelledByCustomer, Reason: "test",
	}
}

// write appends n events, one a transaction, over a few orders.
func (b *bench) write(n int) []string {
	b.t.Helper()
	orders := []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
	var ids []string
	for i := range n {
		e := cancelled(orders[i%3], int64(i/3+1))
		ids = append(ids, e.Meta.EventID)
		if err := outbox.Append(b.t.Context(), b.db, e); err != nil {
			b.t.Fatal(err)
		}
	}
	return ids
}

// read returns n committed records of the orders' topic, in the order of the
// partitions, and fails if there are fewer or more.
func (b *bench) read(n int) []*kgo.Record {
	b.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.brokers...), kgo.ConsumeTopics(ordersTopic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		b.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), 60*time.Second)
	defer cancel()
	var got []*kgo.Record
	var quiet time.Time // when to stop looking for more than n
	for quiet.IsZero() || time.Now().Before(quiet) {
		poll, stop := context.WithTimeout(ctx, 500*time.Millisecond)
		got = append(got, cl.PollFetches(poll).Records()...)
		stop()
		if len(got) >= n && quiet.IsZero() {
			quiet = time.Now().Add(300 * time.Millisecond)
		}
		if ctx.Err() != nil {
			b.t.Fatalf("%d records, want %d", len(got), n)
		}
	}
	if len(got) != n {
		b.t.Fatalf("%d records, want %d", len(got), n)
	}
	return got
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// checkLog checks that the records hold the events once each, numbered
// without a hole in every partition and each order's in its order.
func checkLog(t *testing.T, want []string, got []*kgo.Record) {
	t.Helper()
	next, seen := map[int32]uint64{}, map[string]int{}
	perOrder, wantPerOrder := map[string][]string{}, map[string][]string{}
	for _, r := range got {
		p, err := kafka.ParsePosition([]byte(header(r, kafka.HeaderPosition)))
		if err != nil {
			t.Fatal(err)
		}
		next[r.Partition]++
		if p.N != next[r.Partition] {
			t.Errorf("partition %d offset %d: n = %d, want %d", r.Partition, r.Offset, p.N, next[r.Partition])
		}
		if w := kafka.Partition(r.Key, 12); w != r.Partition {
			t.Errorf("key %s in partition %d, want %d", r.Key, r.Partition, w)
		}
		seen[header(r, kafka.HeaderID)]++
		perOrder[string(r.Key)] = append(perOrder[string(r.Key)], header(r, kafka.HeaderID))
	}
	keys := map[string]string{}
	for _, r := range got {
		keys[header(r, kafka.HeaderID)] = string(r.Key)
	}
	for _, id := range want {
		if seen[id] != 1 {
			t.Errorf("event %s published %d times", id, seen[id])
		}
		wantPerOrder[keys[id]] = append(wantPerOrder[keys[id]], id)
	}
	if diff := cmp.Diff(wantPerOrder, perOrder); diff != "" {
		t.Errorf("events per order (-committed +published):\n%s", diff)
	}
}

func TestPublishesFramedEventsWithTheirHeaders(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.relay()
	e := cancelled(uuid.New(), 1)
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	if err := outbox.Append(outbox.WithTraceparent(t.Context(), trace), b.db, e); err != nil {
		t.Fatal(err)
	}
	r := b.read(1)[0]
	got := map[string]string{}
	for _, h := range r.Headers {
		got[h.Key] = string(h.Value)
	}
	position, err := kafka.ParsePosition([]byte(got[kafka.HeaderPosition]))
	if err != nil {
		t.Fatal(err)
	}
	delete(got, kafka.HeaderPosition)
	want := map[string]string{
		"ce_specversion": "1.0", "ce_id": e.Meta.EventID, "ce_type": "orderflow.orders.OrderCancelled",
		"ce_subject": e.Meta.OrderID, "ce_source": "/services/orders", "ce_correlationid": "c",
		"ce_time": e.Meta.OccurredAt.Format(time.RFC3339Nano), "traceparent": trace,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(kafka.Position{Incarnation: 1, N: 1, Source: "orderflow"}, position); diff != "" {
		t.Errorf("position (-want +got):\n%s", diff)
	}
	registry, err := schemas.NewRegistry(b.registry)
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := schemas.NewDecoder(registry).Decode(t.Context(), r.Value, e.EventSchema())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(e.Meta.EventID, decoded.Envelope().EventID); diff != "" {
		t.Errorf("decoded event (-want +got):\n%s", diff)
	}
}

func TestRestartedRelayGoesOnBehindItsCheckpoint(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var want []string
	for range 4 {
		stop, _ := b.relay()
		want = append(want, b.write(40)...)
		stop() // anywhere: before, amid or after the publishing of these
	}
	b.relay()
	checkLog(t, want, b.read(len(want)))
}

func TestOneOfManyRelaysLeads(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stop, _ := b.relay()
	b.relay()
	b.relay()
	want := b.write(60)
	stop()
	want = append(want, b.write(60)...)
	checkLog(t, want, b.read(len(want)))
}

func TestForeignCheckpointIsAQuestion(t *testing.T) {
	t.Parallel()
	ours, other := newBench(t), newBench(t)
	stop, _ := ours.relay()
	ours.read(len(ours.write(3)))
	stop()

	other.brokers = ours.brokers // another database under the same name
	_, done := other.relay()
	select {
	case err := <-done:
		if !relay.IsQuestion(err) {
			t.Errorf("relay of another database ended with %v, want a question", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("relay of another database goes on")
	}
}

func TestReplacedBrokerIsAQuestion(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stop, _ := b.relay(func(c *relay.Config) { c.LeaseTTL = time.Second })
	b.read(len(b.write(3)))
	testenv.Wait(t, 10*time.Second, "the checkpoint's copy", func() bool {
		s, err := relay.ReadStatus(t.Context(), b.db, "orderflow")
		return err == nil && s.Checkpoint != nil && s.Backlog.Events == 0
	})
	stop()
	b.brokers = testenv.FakeKafka(t).Addrs()
	b.ensureTopics()
	_, done := b.relay()
	select {
	case err := <-done:
		if !relay.IsQuestion(err) {
			t.Errorf("relay on an empty Kafka ended with %v, want a question", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("relay on an empty Kafka goes on")
	}
}

func TestRegistryThatIsAwayIsWaitedFor(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	real, err := url.Parse(b.registry)
	if err != nil {
		t.Fatal(err)
	}
	var up atomic.Bool
	proxy := httputil.NewSingleHostReverseProxy(real)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !up.Load() {
			http.Error(w, "away", http.StatusServiceUnavailable)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	defer front.Close()
	b.registry = front.URL
	b.relay()
	want := b.write(5)
	testenv.Wait(t, 20*time.Second, "a backlog", func() bool {
		s, err := relay.ReadStatus(t.Context(), b.db, "orderflow")
		return err == nil && s.Backlog.Events == 5 && s.Leader != nil
	})
	up.Store(true)
	checkLog(t, want, b.read(len(want)))
}

func TestBacklogCountsWhatIsNotPublished(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.write(7)
	s, err := relay.ReadStatus(t.Context(), b.db, "orderflow")
	if err != nil {
		t.Fatal(err)
	}
	if s.Backlog.Events != 7 || s.Backlog.Oldest.IsZero() {
		t.Errorf("backlog %+v, want 7 events and the time of the oldest", s.Backlog)
	}
	b.relay()
	testenv.Wait(t, 20*time.Second, "an empty backlog", func() bool {
		s, err := relay.ReadStatus(t.Context(), b.db, "orderflow")
		return err == nil && s.Backlog.Events == 0 && s.Backlog.Oldest.IsZero() && s.Published() == 7
	})
}
