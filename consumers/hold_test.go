package consumers

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/internal/testenv"
	"orderflow/schemas"
)

// poisoned handlers refuse the events of some orders for good.
func poisoned(calls *atomic.Int64, poison ...string) Handler {
	bad := map[string]bool{}
	for _, o := range poison {
		bad[o] = true
	}
	return OnBatch(func(ctx context.Context, tx pgx.Tx, events []Event[*schemas.OrderPlaced]) error {
		calls.Add(1)
		if err := record(ctx, tx, events); err != nil { // effects of a poison event must vanish with it
			return err
		}
		for _, e := range events {
			if id := e.Value.Meta.OrderID; bad[id] {
				return Permanent(fmt.Errorf("order %s is poison", id))
			}
		}
		return nil
	})
}

type holdRow struct {
	Off        int64
	Key, State string
	Class      *string
	Message    *string
}

func (b *bed) holds() []holdRow {
	b.t.Helper()
	rows := must(b.db.Query(b.ctx, `SELECT off, convert_from(sequence_key, 'UTF8'), state, error_class, error_message
		FROM consumer_hold ORDER BY off`))(b.t)
	return must(pgx.CollectRows(rows, pgx.RowToStructByPos[holdRow]))(b.t)
}

func text(s string) *string { return &s }

func TestAPoisonEventIsSetAsideAloneAndItsKeyParksBehindIt(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	var calls atomic.Int64
	events := placedOrders(0, 400)
	events = append(events, cancelled(order(123)), confirmed(order(123)), placed(order(123)), cancelled(order(7)))
	b.write(events)
	m := b.run(withHandlers(poisoned(&calls, order(123)), OnBatch(record[*schemas.OrderCancelled])))
	b.waitApplied(404)
	want := []holdRow{
		{123, order(123), "dead", text("handler"), text("order order-0123 is poison")},
		{400, order(123), "parked", nil, nil},
		{402, order(123), "parked", nil, nil},
	}
	if diff := cmp.Diff(want, b.holds()); diff != "" {
		t.Errorf("holds (-want +got):\n%s", diff)
	}
	b.checkOnceInOrder(func(w written) bool { return w.Key != order(123) && w.Type != "orderflow.orders.OrderConfirmed" })
	if got := m.metric("orderflow_hold_records", "state", "dead"); got != 1 {
		t.Errorf("dead holds in the metric: %v, want 1", got)
	}
	if got := m.metric("orderflow_consumer_records_total", "result", "held"); got != 3 {
		t.Errorf("held events in the metric: %v, want 3", got)
	}
}

// The flag that saves the look-up must be refreshed by the next owner.
func TestAHeldKeyStaysHeldForTheNextOwner(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	var calls atomic.Int64
	b.write(placedOrders(0, 10))
	first := b.run(withHandlers(poisoned(&calls, order(3)), OnBatch(record[*schemas.OrderCancelled])))
	b.waitApplied(10)
	first.stop()
	second := b.run() // its handlers would take the order
	b.write([]schemas.Event{cancelled(order(3)), cancelled(order(4))})
	b.waitApplied(12)
	if n := len(b.holds()); n != 2 {
		t.Errorf("%d holds, want the dead event and the one behind it", n)
	}
	if got := second.metric("orderflow_hold_records"); got != 2 {
		t.Errorf("holds in the metric: %v, want 2", got)
	}
	b.checkOnceInOrder(func(w written) bool { return w.Key != order(3) })
}

func TestManyPoisonEventsInOneBatchAreEachSetAside(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	var poison []string
	for i := range 60 {
		poison = append(poison, order(i*3))
	}
	var mu sync.Mutex
	alone := map[string]int{} // events that came alone, by transaction
	inner := poisoned(new(atomic.Int64), poison...)
	watched := inner
	watched.apply = func(ctx context.Context, tx pgx.Tx, batch []*item) error {
		var xid string
		if err := tx.QueryRow(ctx, "SELECT pg_current_xact_id()::text").Scan(&xid); err != nil {
			return err
		}
		mu.Lock()
		if len(batch) == 1 {
			alone[xid]++
		}
		mu.Unlock()
		return inner.apply(ctx, tx, batch)
	}
	b.write(placedOrders(0, 200))
	b.run(withHandlers(watched, OnBatch(record[*schemas.OrderCancelled])))
	b.waitApplied(200)
	if n := len(b.holds()); n != 60 {
		t.Errorf("%d holds, want 60", n)
	}
	for xid, n := range alone {
		if n > maxSavepoints {
			t.Errorf("transaction %s has %d savepoints, want at most %d", xid, n, maxSavepoints)
		}
	}
	bad := map[string]bool{}
	for _, p := range poison {
		bad[p] = true
	}
	b.checkOnceInOrder(func(w written) bool { return !bad[w.Key] })
}

func TestAValueThatCannotBeDecodedIsADeadLetterWithItsBytes(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	b.write(placedOrders(0, 3))
	var header []byte
	b.write([]schemas.Event{placed(order(1)), placed(order(2))}, func(r *kgo.Record) {
		if string(r.Key) == order(1) {
			r.Value = append(r.Value[:5:5], 0xff, 0xff)
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: "extra", Value: []byte("1")})
			header = appendHeaders(nil, r.Headers)
		}
	})
	b.write([]schemas.Event{cancelled(order(1)), cancelled(order(2))})
	b.run()
	b.waitApplied(7)
	holds := b.holds()
	if len(holds) != 2 || holds[0].State != "dead" || *holds[0].Class != "decode" || holds[1].State != "parked" {
		t.Fatalf("holds %+v, want a dead one of class decode and a parked one", holds)
	}
	var value, headers []byte
	check(t, b.db.QueryRow(b.ctx, "SELECT value, headers FROM consumer_hold WHERE state = 'dead'").Scan(&value, &headers))
	if len(value) != 7 || value[6] != 0xff || string(headers) != string(header) {
		t.Errorf("value %x, headers %q: not the record's own bytes", value, headers)
	}
	if n := len(b.effects()); n != 5 {
		t.Errorf("%d effects, want 5", n)
	}
}

// A handler whose failed statement it ignores has effects that Postgres rolls
// back. The position must not move without them.
func TestAHandlerThatIgnoresAFailedStatementDoesNotLoseItsEvents(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	var tries atomic.Int64
	h := OnBatch(func(ctx context.Context, tx pgx.Tx, events []Event[*schemas.OrderPlaced]) error {
		if tries.Add(1) == 1 {
			_, _ = tx.Exec(ctx, "SELECT 1/0")
			return nil
		}
		return record(ctx, tx, events)
	})
	b.write(placedOrders(0, 5))
	b.run(withHandlers(h))
	b.waitApplied(5)
	b.checkOnceInOrder(all)
}

func TestAHandlerCannotEndTheTransaction(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	var got atomic.Pointer[error]
	b.write(placedOrders(0, 5))
	b.run(withHandlers(OnBatch(func(ctx context.Context, tx pgx.Tx, events []Event[*schemas.OrderPlaced]) error {
		err := errors.Join(tx.Commit(ctx), tx.Rollback(ctx))
		got.Store(&err)
		return record(ctx, tx, events)
	})))
	b.waitApplied(5)
	b.checkOnceInOrder(all)
	if err := got.Load(); err == nil || *err == nil {
		t.Error("the handler could end the transaction of its position")
	}
}

func TestErrorTextsFitTheirColumn(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "short", "with \x00 nul", "bad \xff utf-8", strings.Repeat("é", 400), strings.Repeat("x", 600)} {
		got := clean(s)
		if len(got) > maxErrorMessage || strings.ContainsRune(got, 0) || strings.ToValidUTF8(got, "") != got {
			t.Errorf("clean(%.20q) = %.40q...", s, got)
		}
	}
	if string(fingerprint("c", "order 17 at 3")) != string(fingerprint("c", "order 18 at 4")) {
		t.Error("numbers make a difference to the fingerprint")
	}
	if string(fingerprint("c", "a")) == string(fingerprint("c", "b")) {
		t.Error("words make no difference to the fingerprint")
	}
}

// readHeaders is the reverse of appendHeaders, as the column's comment gives it.
func readHeaders(b []byte) ([]kgo.RecordHeader, error) {
	var headers []kgo.RecordHeader
	next := func() ([]byte, error) {
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(len(b)-w) {
			return nil, errors.New("broken")
		}
		v := b[w : w+int(n)]
		b = b[w+int(n):]
		return v, nil
	}
	for len(b) > 0 {
		k, err := next()
		if err != nil {
			return nil, err
		}
		v, err := next()
		if err != nil {
			return nil, err
		}
		headers = append(headers, kgo.RecordHeader{Key: string(k), Value: v})
	}
	return headers, nil
}

func TestHeadersOfAHoldCanBeReadBack(t *testing.T) {
	t.Parallel()
	want := []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "", Value: []byte{}}, {Key: "k", Value: []byte(strings.Repeat("v", 300))}}
	got, err := readHeaders(appendHeaders(nil, want))
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestFreshReturnsEachNewKeyOnce(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	fresh := func(keys ...string) []string {
		tx := must(b.db.Begin(b.ctx))(t)
		got := must(Fresh(b.ctx, tx, keys))(t)
		check(t, tx.Commit(b.ctx))
		return got
	}
	if diff := cmp.Diff([]string{"b", "a"}, fresh("b", "a", "b")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"c"}, fresh("a", "c", "b")); diff != "" {
		t.Error(diff)
	}
	if got := fresh(); len(got) != 0 {
		t.Errorf("no keys gave %v", got)
	}
}

// Errors that may pass keep the partition waiting, and only it.
func TestARetryableErrorMakesItsPartitionWaitAndNoOther(t *testing.T) {
	t.Parallel()
	b := newBed(t, 3)
	var broken atomic.Bool
	broken.Store(true)
	stuck := order(0)
	b.write(placedOrders(0, 60))
	perPart := map[int32]int{}
	var stuckPart int32
	for _, w := range b.written {
		perPart[w.Part]++
		if w.Key == stuck {
			stuckPart = w.Part
		}
	}
	m := b.run(withHandlers(OnBatch(func(ctx context.Context, tx pgx.Tx, events []Event[*schemas.OrderPlaced]) error {
		for _, e := range events {
			if broken.Load() && e.Value.Meta.OrderID == stuck {
				return errors.New("not today")
			}
		}
		return record(ctx, tx, events)
	})))
	b.waitApplied(60 - perPart[stuckPart])
	m.waitMetric(3, "orderflow_consumer_retries_total", "cause", "handler")
	m.waitMetric(2, "orderflow_consumer_attempts")
	if n := b.count("SELECT count(*) FROM effects WHERE part = $1", stuckPart); n != 0 {
		t.Errorf("%d effects in the partition that has to wait", n)
	}
	broken.Store(false)
	b.waitApplied(60)
	b.checkOnceInOrder(all)
	testenv.Wait(t, waitLong, "attempts to be 0 again", func() bool { return m.metric("orderflow_consumer_attempts") == 0 })
}

func TestAPanicIsARetryableErrorAndNotTheEndOfTheProcess(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	var tries atomic.Int64
	b.write(placedOrders(0, 5))
	b.run(withHandlers(OnBatch(func(ctx context.Context, tx pgx.Tx, events []Event[*schemas.OrderPlaced]) error {
		if tries.Add(1) < 3 {
			panic("a bug")
		}
		return record(ctx, tx, events)
	})))
	b.waitApplied(5)
	b.checkOnceInOrder(all)
}

func TestSingleHandlersSeeTheEventsOfAKeyInOrder(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	one := func(ctx context.Context, tx pgx.Tx, e schemas.Event) error {
		_, err := tx.Exec(ctx, "INSERT INTO effects (part, off, key, type, id) VALUES (0, $1, $2, $3, $4)",
			e.Envelope().OrderVersion, e.Envelope().OrderID, e.Envelope().EventType, e.Envelope().EventID)
		return err
	}
	b.write([]schemas.Event{placed("a"), cancelled("a"), placed("b"), placed("a"), cancelled("b"), cancelled("a")})
	b.run(withHandlers(
		On(func(ctx context.Context, tx pgx.Tx, e *schemas.OrderPlaced) error { return one(ctx, tx, e) }),
		On(func(ctx context.Context, tx pgx.Tx, e *schemas.OrderCancelled) error { return one(ctx, tx, e) }),
	))
	b.waitApplied(6)
	versions := map[string][]int64{}
	for _, e := range b.effects() {
		versions[e.Key] = append(versions[e.Key], e.Off)
	}
	want := map[string][]int64{"a": {1, 2, 3, 4}, "b": {1, 2}}
	if diff := cmp.Diff(want, versions); diff != "" {
		t.Errorf("versions in the order of application (-want +got):\n%s", diff)
	}
}

// A batch that cannot be done in time is tried in smaller ones.
func TestABatchThatTakesTooLongIsCutInHalf(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	b.write(placedOrders(0, 64))
	b.run(withLimits(func(l *Limits) { l.BatchTimeout = 300 * time.Millisecond }),
		withHandlers(OnBatch(func(ctx context.Context, tx pgx.Tx, events []Event[*schemas.OrderPlaced]) error {
			if _, err := tx.Exec(ctx, "SELECT pg_sleep($1)", 0.02*float64(len(events))); err != nil {
				return err
			}
			return record(ctx, tx, events)
		})))
	b.waitApplied(64)
	b.checkOnceInOrder(all)
}
