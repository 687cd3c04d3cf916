package verify_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/e2e/verify"
	"orderflow/internal/kafka"
	"orderflow/outbox-relay"
	"orderflow/outbox-relay/outbox"
	"orderflow/schemas"
)

func TestAHealthyPlatformIsFoundHealthyAndCountedExactly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(200)
	w.drain()
	w.append(placed("late", 1)) // nobody publishes it any more
	cfg := w.config(groupName)
	r := must(verify.Run(t.Context(), cfg))(t)
	checkOK(t, r)
	if diff := cmp.Diff(verify.Outbox{Rows: 501, Published: 500, Backlog: 1}, r.Outbox); diff != "" {
		t.Errorf("outbox (-want +got):\n%s", diff)
	}
	counts := map[string][2]int64{}
	for _, topic := range r.Log.Topics {
		if topic.Events > 0 {
			counts[topic.Topic] = [2]int64{topic.Events, topic.PublishedRows}
		}
	}
	if diff := cmp.Diff(map[string][2]int64{ordersTopic: {300, 300}, sellersTopic: {200, 200}}, counts); diff != "" {
		t.Errorf("events and rows by topic (-want +got):\n%s", diff)
	}
	if g := r.Groups[0]; g.Applied != 500 || g.Expected != 500 || g.Waiting != 0 || g.Held != 0 {
		t.Errorf("group applied %d of %d, %d waiting, %d held; want 500 of 500, none, none", g.Applied, g.Expected, g.Waiting, g.Held)
	}
	if len(r.Unchecked) > 0 {
		t.Errorf("not checked: %q, want everything checked", r.Unchecked)
	}
	if left := must(os.ReadDir(cfg.TempDir))(t); len(left) > 0 {
		t.Errorf("%d temporary files were left behind", len(left))
	}
}

func TestAnEmptyPlatformIsHealthy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	checkOK(t, w.verify(groupName))
}

// damage is one thing wrong with what is published, and what is found.
type damage struct {
	name string
	forgery
	want map[string]int64
	// where tells which finding names the record that culprit chooses.
	where   func(verify.Report) verify.Finding
	culprit func([]*kgo.Record) *kgo.Record
}

// In the world of every damage, order-0000 has the versions 1 and 2 in the orders
// topic and 1 in the sellers topic.
func first(rs []*kgo.Record) *kgo.Record { return rs[find(rs, ordersTopic, order(0), 0)] }

func second(rs []*kgo.Record) *kgo.Record { return rs[find(rs, ordersTopic, order(0), 1)] }

func damagedEvents() []damage {
	return []damage{
		{
			name:    "an event that was never written, its number left out",
			forgery: forgery{after: drop(0)},
			want:    map[string]int64{"missing": 1, "number_gaps": 1, "version_gaps": 1, "lost": 1},
			where:   func(r verify.Report) verify.Finding { return r.Missing }, culprit: first,
		},
		{
			name:    "an event that was never written, the numbers closed up",
			forgery: forgery{before: drop(1)},
			want:    map[string]int64{"missing": 1, "lost": 1},
			where:   func(r verify.Report) verify.Finding { return r.Missing }, culprit: second,
		},
		{
			name:    "an event that was written twice",
			forgery: forgery{before: repeat},
			want:    map[string]int64{"duplicated": 1, "twice": 1},
			where:   func(r verify.Report) verify.Finding { return r.Duplicated }, culprit: first,
		},
		{
			name:    "two versions of an order that changed places",
			forgery: forgery{before: swap},
			want:    map[string]int64{"reordered": 1, "out_of_order": 1},
			where:   func(r verify.Report) verify.Finding { return r.Reordered }, culprit: first,
		},
	}
}

func damagedNumbers() []damage {
	return []damage{
		{
			name:    "an event and its number that were written twice",
			forgery: forgery{after: repeat},
			want:    map[string]int64{"duplicated": 1, "number_repeats": 1, "twice": 1},
			where:   func(r verify.Report) verify.Finding { return r.NumberRepeats }, culprit: first,
		},
		{
			name: "numbers that were skipped",
			forgery: forgery{after: onLast(func(r *kgo.Record, p kafka.Position) {
				p.N += 5
				setPosition(r, p)
			}), checkpoint: countMore(5)},
			want:  map[string]int64{"number_gaps": 5},
			where: func(r verify.Report) verify.Finding { return r.NumberGaps }, culprit: last,
		},
		{
			name:    "a checkpoint that counts more than the log holds",
			forgery: forgery{checkpoint: countMore(3)},
			want:    map[string]int64{"number_gaps": 3},
		},
		{
			name: "a number of an earlier life of the database",
			forgery: forgery{after: onLast(func(r *kgo.Record, p kafka.Position) {
				p.Incarnation = 0
				setPosition(r, p)
			})},
			want:  map[string]int64{"number_repeats": 1, "number_gaps": 1}, // and the number it should have had
			where: func(r verify.Report) verify.Finding { return r.NumberRepeats }, culprit: last,
		},
	}
}

func damagedPlaces() []damage {
	return []damage{
		{
			name:    "an event under another order's key",
			forgery: forgery{before: on(0, func(r *kgo.Record) { r.Key = neighbour(r.Partition) })},
			want:    map[string]int64{"misplaced": 1},
			where:   func(r verify.Report) verify.Finding { return r.Misplaced }, culprit: first,
		},
		{
			name:    "an event in another partition than its key's",
			forgery: forgery{before: on(0, func(r *kgo.Record) { r.Partition = (r.Partition + 1) % 12 })},
			want:    map[string]int64{"misplaced": 1},
			where:   func(r verify.Report) verify.Finding { return r.Misplaced }, culprit: first,
		},
		{
			name:    "an event in another topic than its row's",
			forgery: forgery{before: on(0, func(r *kgo.Record) { r.Topic = sellersTopic })},
			want:    map[string]int64{"misplaced": 1},
			where:   func(r verify.Report) verify.Finding { return r.Misplaced }, culprit: first,
		},
		{
			name:    "an event that nobody committed",
			forgery: forgery{before: on(0, func(r *kgo.Record) { setHeader(r, kafka.HeaderID, []byte(uuid.NewString())) })},
			want:    map[string]int64{"phantoms": 1, "missing": 1, "lost": 1},
			where:   func(r verify.Report) verify.Finding { return r.Missing }, culprit: first,
		},
	}
}

func strangers() []damage {
	return []damage{
		{
			name:    "a record without an event id",
			forgery: forgery{before: addCopy(func(r *kgo.Record) { setHeader(r, kafka.HeaderID, nil) })},
			want:    map[string]int64{"unreadable": 1, "number_gaps": 1},
		},
		{
			name:    "a record of somebody who is no relay",
			forgery: forgery{after: addCopy(func(r *kgo.Record) { setHeader(r, kafka.HeaderPosition, []byte("?")) })},
			want:    map[string]int64{"unreadable": 1},
		},
		{
			name: "another source's events, well numbered",
			forgery: forgery{after: addCopy(func(r *kgo.Record) {
				setPosition(r, kafka.Position{Incarnation: 1, N: 1, Source: "another"})
			})},
		},
		{
			name: "another source's events, badly numbered",
			forgery: forgery{after: addCopy(func(r *kgo.Record) {
				setPosition(r, kafka.Position{Incarnation: 1, N: 3, Source: "another"})
			})},
			want: map[string]int64{"number_gaps": 2},
		},
		{
			name:    "events that the checkpoint's point does not cover",
			forgery: forgery{checkpoint: func(cp *relay.Checkpoint) { cp.Point = "" }},
			want:    map[string]int64{"early": 25},
		},
	}
}

// on changes the first record of order-0000 in the orders topic, or the i-th.
func on(i int, change func(*kgo.Record)) func([]*kgo.Record) []*kgo.Record {
	return func(rs []*kgo.Record) []*kgo.Record {
		change(rs[find(rs, ordersTopic, order(0), i)])
		return rs
	}
}

// neighbour is another order's key that belongs to the partition.
func neighbour(partition int32) []byte {
	for i := 0; ; i++ {
		if key := fmt.Appendf(nil, "neighbour-%d", i); kafka.Partition(key, 12) == partition {
			return key
		}
	}
}

func drop(i int) func([]*kgo.Record) []*kgo.Record {
	return func(rs []*kgo.Record) []*kgo.Record {
		at := find(rs, ordersTopic, order(0), i)
		return append(rs[:at:at], rs[at+1:]...)
	}
}

func repeat(rs []*kgo.Record) []*kgo.Record {
	r := *rs[find(rs, ordersTopic, order(0), 0)]
	return append(rs, &r)
}

func swap(rs []*kgo.Record) []*kgo.Record {
	a, b := find(rs, ordersTopic, order(0), 0), find(rs, ordersTopic, order(0), 1)
	rs[a], rs[b] = rs[b], rs[a]
	return rs
}

// addCopy adds a changed copy of order-0000's first record at the end.
func addCopy(change func(*kgo.Record)) func([]*kgo.Record) []*kgo.Record {
	return func(rs []*kgo.Record) []*kgo.Record {
		rs = repeat(rs)
		change(rs[len(rs)-1])
		return rs
	}
}

// last is the last record of order-0000's partition in the orders topic.
func last(rs []*kgo.Record) *kgo.Record {
	var found *kgo.Record
	for _, r := range rs {
		if r.Topic == ordersTopic && r.Partition == kafka.Partition([]byte(order(0)), 12) {
			found = r
		}
	}
	return found
}

func onLast(change func(*kgo.Record, kafka.Position)) func([]*kgo.Record) []*kgo.Record {
	return func(rs []*kgo.Record) []*kgo.Record {
		r := last(rs)
		p, err := kafka.ParsePosition(header(r, kafka.HeaderPosition))
		if err != nil {
			panic(err)
		}
		change(r, p)
		return rs
	}
}

func countMore(n uint64) func(*relay.Checkpoint) {
	return func(cp *relay.Checkpoint) { cp.Published[ordersTopic][kafka.Partition([]byte(order(0)), 12)] += n }
}

func TestEachDamageIsFoundAndNamed(t *testing.T) {
	t.Parallel()
	for _, d := range slices.Concat(damagedEvents(), damagedNumbers(), damagedPlaces(), strangers()) {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.fill(10)
			original, _ := w.readOutbox()
			w.forge(d.forgery)
			r := w.verify()
			checkFaults(t, r, d.want)
			if ok := len(d.want) == 0; r.OK() != ok {
				t.Errorf("OK is %t, want %t", r.OK(), ok)
			}
			if d.where == nil {
				return
			}
			if got, want := firstID(d.where(r)), idOf(d.culprit(original)); got != want {
				t.Errorf("first event named is %q, want %q", got, want)
			}
		})
	}
}

func TestARowThatVanishedLeavesAPhantom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(10)
	w.drain()
	var id string
	check(t, w.db.QueryRow(t.Context(), `
		DELETE FROM outbox.events WHERE aggregate_id = $1 AND topic = $2 AND aggregate_version = 1
		RETURNING event_id::text`, order(0), ordersTopic).Scan(&id))
	r := w.verify(groupName)
	checkFaults(t, r, map[string]int64{"phantoms": 1})
	if got := firstID(r.Phantoms); got != id {
		t.Errorf("phantom is %q, want %q", got, id)
	}
	if !r.Groups[0].OK {
		t.Error("the group is to blame; it applied what is in the log")
	}
}

func TestAnIdThatWasCommittedTwiceIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	event := placed(order(0), 1)
	w.append(event)
	event.Meta.OrderVersion = 2
	w.append(event)
	w.forge(forgery{})
	checkFaults(t, w.verify(), map[string]int64{"repeated_rows": 1, "twice": 1, "version_repeats": 1, "out_of_order": 1})
}

func TestAVersionThatTheWriterLeftOutIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.append(placed(order(0), 1), cancelled(order(0), 4))
	w.drain()
	r := w.verify(groupName)
	checkFaults(t, r, map[string]int64{"version_gaps": 2})
	if r.OK() {
		t.Error("OK, want not")
	}
}

func TestAVersionThatTwoEventsHaveIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.append(placed(order(0), 1), cancelled(order(0), 1))
	w.drain()
	checkFaults(t, w.verify(groupName), map[string]int64{"version_repeats": 1, "out_of_order": 1})
}

func TestAPointWithinAWindowSplitsTheOutboxExactly(t *testing.T) {
	t.Parallel()
	for _, pages := range []int{1, 2, 3} {
		t.Run(fmt.Sprintf("after page %d", pages), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			// The window's rows come before the published ones in seq: they
			// were written first and committed last.
			late := must(w.db.Begin(t.Context()))(t)
			defer func() { _ = late.Rollback(t.Context()) }() // after the commit it does nothing
			check(t, outbox.Append(t.Context(), late, orders("late", 28)...))
			w.fill(4)
			p := w.openPages()
			p.read(1)
			check(t, late.Commit(t.Context()))
			p.read(pages)
			if parts := len(strings.Fields(string(p.point))); parts != 3 {
				t.Fatalf("point %q, want one of three parts", p.point)
			}
			cp := w.checkpoint(p.point, number(p.records))
			w.publish("forger", append(p.records, checkpointRecord(t, cp)), kgo.TryCommit)
			r := w.verify()
			checkOK(t, r)
			if want := int64(len(p.records)); r.Outbox.Published != want || r.Outbox.Backlog != 80-want {
				t.Errorf("%d published, %d in the backlog; want %d of 80", r.Outbox.Published, r.Outbox.Backlog, want)
			}
		})
	}
}

func TestCompactedTopicsAreSaidToBeUnchecked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	row := must(outbox.Prepare(t.Context(), placed(order(0), 1)))(t)
	row.Topic = schemas.StockTopic
	check(t, outbox.AppendRows(t.Context(), w.db, []outbox.Row{row}))
	w.forge(forgery{before: func([]*kgo.Record) []*kgo.Record { return nil }}) // as if compacted away
	r := w.verify()
	checkOK(t, r)
	if len(r.Unchecked) != 1 || !strings.Contains(r.Unchecked[0], schemas.StockTopic) {
		t.Errorf("not checked: %q, want a line about %s", r.Unchecked, schemas.StockTopic)
	}
}

func TestAbortedEventsAreNotThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(10)
	records, _ := w.readOutbox()
	number(records)
	w.publish("crashed", records, kgo.TryAbort)
	w.drain()
	checkOK(t, w.verify(groupName))
}

func TestTheReportIsPrintedAndEncoded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(10)
	w.forge(forgery{before: drop(0)})
	r := w.verify(groupName)
	var table strings.Builder
	check(t, r.Print(&table))
	for _, want := range []string{"NOT OK: 1 lost, 0 twice, 0 out of order", firstID(r.Missing), "ledger"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, table.String())
		}
	}
	var got struct {
		OK     bool
		Lost   int
		Groups []struct{ Group string }
	}
	check(t, json.Unmarshal(must(json.Marshal(r))(t), &got))
	if got.OK || got.Lost != 1 || len(got.Groups) != 1 || got.Groups[0].Group != groupName {
		t.Errorf("JSON says %+v", got)
	}
}
