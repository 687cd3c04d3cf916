package orders

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"orderflow/internal/testenv"
	"orderflow/outbox-relay/outbox"
)

// workbench is a committer without a service around it.
type workbench struct {
	committer
	t  *testing.T
	db *pgxpool.Pool
}

func newWorkbench(t *testing.T) *workbench {
	t.Helper()
	return workbenchOn(t, database(t))
}

func workbenchOn(t *testing.T, url string) *workbench {
	t.Helper()
	pool := openPool(t, url, 8)
	if err := outbox.Announce(context.Background(), pool); err != nil {
		t.Fatal(err)
	}
	w := &workbench{t: t, db: pool, committer: committer{
		session: newSession(pool, singleLockWait), patience: 10 * time.Second, log: testenv.Logger(t),
		metrics: newMetrics(prometheus.NewRegistry(), func() int { return 0 }), door: doorSingle,
	}}
	t.Cleanup(w.session.close)
	return w
}

// entry makes the sample order ready under a key; n changes what is ordered.
func (w *workbench) entry(key string, n int) *entry {
	w.t.Helper()
	var o Order
	if err := decode([]byte(edit(w.t, `"quantity":6`, fmt.Sprintf(`"quantity":%d`, n+1))), &o); err != nil {
		w.t.Fatal(err)
	}
	p, err := new(scratch).prepare(context.Background(), keyOf{"default", key}, &o, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	return &entry{prepared: p}
}

func (w *workbench) entries(prefix string, n int) []*entry {
	var batch []*entry
	for i := range n {
		batch = append(batch, w.entry(fmt.Sprintf("%s-%04d", prefix, i), 1))
	}
	return batch
}

func (w *workbench) write(batch []*entry) {
	w.commit(context.Background(), slices.Clone(batch))
	resolve(context.Background(), w.db, batch)
}

func (w *workbench) count(sql string) int {
	w.t.Helper()
	var n int
	if err := w.db.QueryRow(context.Background(), sql).Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

func describe(e *entry) string {
	switch {
	case e.problem != nil:
		return string(e.problem.Code)
	case e.answer.replayed:
		return "replayed"
	case e.answer.status == 201:
		return "placed"
	default:
		return "unsettled"
	}
}

func (w *workbench) expect(batch []*entry, want ...string) {
	w.t.Helper()
	var got []string
	for _, e := range batch {
		got = append(got, describe(e))
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("got %v, want %v", got, want)
	}
}

func TestTheSameKeyTwiceInOneBatchIsOneOrder(t *testing.T) {
	t.Parallel()
	w := newWorkbench(t)
	batch := []*entry{w.entry("b", 1), w.entry("a", 1), w.entry("b", 1), w.entry("b", 2), w.entry("a", 1)}
	w.write(batch)
	w.expect(batch, "placed", "placed", "replayed", string(codeKeyReused), "replayed")
	if batch[2].answer.orderID != batch[0].id || string(batch[2].answer.body) != string(batch[0].receipt) {
		t.Error("the repeated entry was not told the first one's answer")
	}
	again := []*entry{w.entry("b", 2), w.entry("b", 1), w.entry("c", 1), w.entry("b", 1)}
	w.write(again)
	w.expect(again, string(codeKeyReused), "replayed", "placed", "replayed")
	if n := w.count(`SELECT count(*) FROM orders.orders`); n != 3 {
		t.Errorf("%d orders, want 3", n)
	}
}

func TestBothWaysOfInsertingWriteTheSameRows(t *testing.T) {
	t.Parallel()
	w := newWorkbench(t)
	small, large := w.entries("small", copyFrom-1), w.entries("large", copyFrom+1)
	w.write(small)
	w.write(large)
	for _, e := range append(small, large...) {
		if describe(e) != "placed" {
			t.Fatalf("got %s", describe(e))
		}
	}
	const rows = `SELECT count(DISTINCT r) FROM (
		SELECT row(o.version, o.status, o.customer_id, o.channel, o.currency, o.scale, o.grand_minor, o.line_count, o.cancelled_by, o.doc,
		           array_agg(row(l.line_no, l.sku, l.seller_id, l.quantity, l.unit_minor, l.freight_minor)::text ORDER BY line_no),
		           e.aggregate_type, e.aggregate_version, e.event_type, e.topic, e.schema_fp, k.status, k.version, k.client_id)::text AS r
		FROM orders.orders o JOIN orders.order_lines l USING (order_id)
		JOIN outbox.events e ON e.aggregate_id = o.order_id::text JOIN orders.idempotency_keys k USING (order_id)
		WHERE o.placed_at = o.changed_at AND k.created_at = o.placed_at AND octet_length(k.fingerprint) = 32
		GROUP BY o.order_id, e.aggregate_type, e.aggregate_version, e.event_type, e.topic, e.schema_fp, k.status, k.version, k.client_id) x`
	if n := w.count(rows); n != 1 {
		t.Errorf("%d different kinds of rows, want 1", n)
	}
	if n := w.count(`SELECT count(*) FROM orders.orders o JOIN outbox.events e ON e.aggregate_id = o.order_id::text`); n != 2*copyFrom {
		t.Errorf("%d orders with an event, want %d", n, 2*copyFrom)
	}
}

func TestOneBadRowDoesNotFailTheOthers(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 20, copyFrom + 20} {
		w := newWorkbench(t)
		batch := w.entries("k", size)
		// Past every check, as a hole in validation would let it through.
		batch[size/2].order.Lines[0].SKU = "nul\x00"
		w.write(batch)
		for i, e := range batch {
			want := "placed"
			if i == size/2 {
				want = string(codeNotStorable)
			}
			if got := describe(e); got != want {
				t.Errorf("batch of %d, entry %d: got %s, want %s", size, i, got, want)
			}
		}
		if n := w.count(`SELECT count(*) FROM orders.orders`) - w.count(`SELECT count(DISTINCT aggregate_id) FROM outbox.events`); n != 0 {
			t.Errorf("orders and events differ by %d", n)
		}
		if n := w.count(`SELECT count(*) FROM orders.idempotency_keys`); n != size-1 {
			t.Errorf("batch of %d: %d keys are kept, want %d", size, n, size-1)
		}
		if got := testutil.ToFloat64(w.metrics.splits.WithLabelValues("bad_data")); (got > 0) != (size > 1) {
			t.Errorf("batch of %d: %v splits counted", size, got)
		}
	}
}

func TestConflictingBatchesDoNotDeadlock(t *testing.T) {
	t.Parallel()
	url := database(t)
	const writers, rounds, keys = 3, 20, copyFrom - 1
	var benches []*workbench
	var batches [writers][rounds][]*entry
	for i := range writers {
		w := workbenchOn(t, url)
		w.session = newSession(w.db, w.patience/3)
		t.Cleanup(w.session.close)
		benches = append(benches, w)
		for round := range rounds {
			batch := w.entries(fmt.Sprint(round), keys)
			rand.Shuffle(len(batch), func(a, b int) { batch[a], batch[b] = batch[b], batch[a] })
			batches[i][round] = batch
		}
	}
	for round := range rounds {
		var wg sync.WaitGroup
		for i, w := range benches {
			wg.Go(func() { w.write(batches[i][round]) })
		}
		wg.Wait()
	}
	for i, w := range benches {
		for _, batch := range batches[i] {
			for _, e := range batch {
				if d := describe(e); d != "placed" && d != "replayed" {
					t.Errorf("got %s", d)
				}
			}
		}
		if n := testutil.ToFloat64(w.metrics.retries); n != 0 {
			t.Errorf("%v batches had to be retried", n)
		}
	}
	if n := benches[0].count(`SELECT count(*) FROM orders.orders`); n != rounds*keys {
		t.Errorf("%d orders, want %d", n, rounds*keys)
	}
}

func TestAKeyHeldElsewhereDelaysNobodyForLong(t *testing.T) {
	t.Parallel()
	w := newWorkbench(t)
	// Were every half of the batch to wait as long as the whole, patience would
	// end first.
	w.patience = 6 * time.Second
	w.session = newSession(w.db, w.patience/4)
	t.Cleanup(w.session.close)
	ctx := context.Background()
	other, err := w.db.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Rollback(ctx) }()
	if _, err := other.Exec(ctx, `INSERT INTO orders.idempotency_keys (client_id, key, fingerprint, order_id, response, created_at)
		VALUES ('default', 'k-0007', '', gen_random_uuid(), '', now())`); err != nil {
		t.Fatal(err)
	}
	batch := w.entries("k", 32)
	w.write(batch)
	for i, e := range batch {
		want := "placed"
		if i == 7 {
			want = string(codeInProgress)
		}
		if got := describe(e); got != want {
			t.Errorf("entry %d: got %s, want %s", i, got, want)
		}
	}
	if n := testutil.ToFloat64(w.metrics.splits.WithLabelValues("key_held")); n == 0 {
		t.Error("the split was not counted")
	}
	if err := other.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	again := w.entries("k", 8)
	w.write(again)
	w.expect(again[7:], "placed")
}

func TestAnUnknownCommitIsLookedUpBeforeItIsAnswered(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name      string
		size      int
		committed bool
	}{{"it had happened", 20, true}, {"it had not", 20, false}, {"it had, by copy", copyFrom + 20, true}, {"it had not, by copy", copyFrom + 20, false}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			url := database(t)
			proxy := newProxy(t, url)
			w := workbenchOn(t, proxy.url)
			warm := w.entries("warm", 1)
			w.write(warm)
			w.expect(warm, "placed")

			proxy.cutAtCommit(tc.committed)
			batch := w.entries("k", tc.size)
			w.write(batch)
			for i, e := range batch {
				if got := describe(e); got != "placed" {
					t.Fatalf("entry %d: got %s, want placed", i, got)
				}
				if e.answer.orderID != e.id {
					t.Fatalf("entry %d is told of another order", i)
				}
			}
			if !proxy.wasCut() {
				t.Fatal("the connection was not cut")
			}
			if n, e := w.count(`SELECT count(*) FROM orders.orders`), w.count(`SELECT count(*) FROM outbox.events`); n != tc.size+1 || e != n {
				t.Errorf("%d orders and %d events, want %d", n, e, tc.size+1)
			}
		})
	}
}

func TestADatabaseThatIsAwayIsAnHonestRefusal(t *testing.T) {
	t.Parallel()
	proxy := newProxy(t, database(t))
	w := workbenchOn(t, proxy.url)
	w.patience = time.Second
	proxy.close()
	batch := w.entries("k", 3)
	if w.commit(context.Background(), batch) {
		t.Error("the database was reached")
	}
	w.expect(batch, string(codeUnavailable), string(codeUnavailable), string(codeUnavailable))
}

func TestAMissingOutboxPartitionIsNotBlamedOnAnOrder(t *testing.T) {
	t.Parallel()
	w := newWorkbench(t)
	if _, err := w.db.Exec(context.Background(), `DO $$ DECLARE p regclass; BEGIN
		FOR p IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'outbox.events'::regclass LOOP
			EXECUTE 'DROP TABLE ' || p; END LOOP; END $$`); err != nil {
		t.Fatal(err)
	}
	batch := w.entries("k", 8)
	w.write(batch)
	for _, e := range batch {
		if got := describe(e); got != string(codeUnavailable) {
			t.Errorf("got %s, want %s", got, codeUnavailable)
		}
	}
	if n := testutil.ToFloat64(w.metrics.splits.WithLabelValues("bad_data")); n != 0 {
		t.Errorf("the batch was split %v times", n)
	}
}
