package verify_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/consumers"
	"orderflow/e2e/verify"
	"orderflow/internal/kafka"
	"orderflow/internal/testenv"
	"orderflow/outbox-relay"
	"orderflow/schemas"
)

func TestAGroupsCountsAreComparedWithTheLog(t *testing.T) {
	t.Parallel()
	hash := func(w *world) (string, int64) {
		records, _ := w.readOutbox()
		r := records[find(records, ordersTopic, order(0), 0)]
		return idOf(r), consumers.EventHash(uuid.MustParse(idOf(r)))
	}
	const itsPosition = ` WHERE topic = $1 AND part = $2`
	part := kafka.Partition([]byte(order(0)), 12)
	for _, c := range []struct {
		name   string
		damage func(w *world, hash int64)
		want   map[string]int64
		named  bool
	}{
		{"an event that was applied twice", func(w *world, hash int64) {
			w.exec(`UPDATE ledger.consumer_position SET applied_count = applied_count + 1,
				applied_hash = ledger.consumer_sum(applied_hash, $3)`+itsPosition, ordersTopic, part, hash)
		}, map[string]int64{"twice": 1}, true},
		{"an event that was not applied", func(w *world, hash int64) {
			w.exec(`UPDATE ledger.consumer_position SET applied_count = applied_count - 1,
				applied_hash = ledger.consumer_sum(applied_hash, $3)`+itsPosition, ordersTopic, part, -hash)
		}, map[string]int64{"lost": 1}, true},
		{"another event in an event's place", func(w *world, _ int64) {
			w.exec(`UPDATE ledger.consumer_position SET applied_hash = ledger.consumer_sum(applied_hash, 1)`+itsPosition, ordersTopic, part)
		}, map[string]int64{"lost": 1, "twice": 1}, false},
		{"a position that jumped over events", func(w *world, _ int64) {
			w.exec(`UPDATE ledger.consumer_position SET applied_count = 0, applied_hash = 0`+itsPosition, ordersTopic, part)
		}, map[string]int64{"lost": 9}, false},
		{"a position beyond the log", func(w *world, _ int64) {
			w.exec(`UPDATE ledger.consumer_position SET next_offset = next_offset + 1`+itsPosition, ordersTopic, part)
		}, map[string]int64{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for range 4 { // nine events of one order
				w.append(placed(order(0), w.nextVersion()), cancelled(order(0), w.nextVersion()+1))
			}
			w.append(placed(order(0), w.nextVersion()), placed(order(1), 1))
			w.drain()
			checkOK(t, w.verify(groupName))
			id, hash := hash(w)
			c.damage(w, hash)
			r := w.verify(groupName)
			checkFaults(t, r, c.want)
			g := r.Groups[0]
			if r.OK() || g.OK || len(g.Mismatches) != 1 {
				t.Fatalf("OK is %t, the group's is %t with %d mismatches; want one mismatch", r.OK(), g.OK, len(g.Mismatches))
			}
			if m := g.Mismatches[0]; c.named && m.EventID != id {
				t.Errorf("the culprit is %q, want %q", m.EventID, id)
			}
		})
	}
}

// nextVersion is the version that order-0000's next event has.
func (w *world) nextVersion() int64 {
	return 1 + w.count(`SELECT max(aggregate_version) FROM outbox.events WHERE aggregate_id = $1`, order(0))
}

func TestWhatAGroupHasNotReadIsWaitingAndNotLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(20)
	w.drain()
	w.append(placed("late", 1), cancelled("late", 2))
	stop := w.relay()
	testenv.Wait(t, waitLong, "the late events to be published", func() bool { return w.verify().Outbox.Backlog == 0 })
	stop()
	r := w.verify(groupName)
	checkOK(t, r)
	if g := r.Groups[0]; g.Waiting != 2 {
		t.Errorf("%d events wait, want 2", g.Waiting)
	}
}

func TestHeldEventsAreCountedApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	refused := cancelled(order(0), 2)
	refused.By = schemas.CancelledBySystem
	w.append(placed(order(0), 1), refused, placed(order(0), 3), placed(order(1), 1))
	w.drain()
	r := w.verify(groupName)
	checkOK(t, r)
	g := r.Groups[0]
	if g.Held != 2 || g.Holds["dead"] != 1 || g.Holds["parked"] != 1 || r.Held() != 2 {
		t.Errorf("held %d: %v, want one dead and one parked", g.Held, g.Holds)
	}
	if len(g.Dead) != 1 || g.Dead[0] != refused.Meta.EventID {
		t.Errorf("dead letters %q, want %s", g.Dead, refused.Meta.EventID)
	}
}

// deleteBefore expires the events of a partition below an offset.
func (w *world) deleteBefore(topic string, part int32, offset int64) {
	w.t.Helper()
	cl := must(kafka.Open(w.t.Context(), w.kafka(), testenv.Logger(w.t)))(w.t)
	defer cl.Close()
	offsets := kadm.Offsets{}
	offsets.AddOffset(topic, part, offset, -1)
	responses := must(kadm.NewClient(cl).DeleteRecords(w.t.Context(), offsets))(w.t)
	check(w.t, responses.Error())
}

func TestWhatExpiredIsNotMissingButUnchecked(t *testing.T) {
	t.Parallel()
	part := kafka.Partition([]byte(order(0)), 12)
	for _, c := range []struct {
		name    string
		forgery forgery
		below   int64
		want    map[string]int64
		expired int64
	}{
		{name: "some events", below: 2, expired: 2},
		{name: "every event", below: 6, expired: 5},
		{
			name: "some events, and another is missing", below: 2, expired: 2,
			forgery: forgery{before: func(rs []*kgo.Record) []*kgo.Record { return rs[:len(rs)-1] }},
			want:    map[string]int64{"missing": 1, "lost": 1},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for i := range 5 {
				w.append(placed(order(0), int64(i)+1))
			}
			w.forge(c.forgery)
			stop := w.group()
			testenv.Wait(t, waitLong, "the group to read the log", func() bool {
				return w.count(`SELECT sum(applied_count) FROM ledger.consumer_position`) >= 4
			})
			stop()
			w.deleteBefore(ordersTopic, part, c.below)
			r := w.verify(groupName)
			checkFaults(t, r, c.want)
			if len(r.Unchecked) != 1 || !strings.Contains(r.Unchecked[0], ordersTopic) {
				t.Errorf("not checked: %q, want a line about %s", r.Unchecked, ordersTopic)
			}
			if g := r.Groups[0]; g.UncheckedPartitions != 1 || !g.OK {
				t.Errorf("%d partitions of the group are unchecked (OK is %t), want 1 and OK", g.UncheckedPartitions, g.OK)
			}
			for _, topic := range r.Log.Topics {
				if topic.Topic == ordersTopic && topic.Expired != c.expired {
					t.Errorf("%d rows have expired, want %d", topic.Expired, c.expired)
				}
			}
		})
	}
}

// half publishes the events in a transaction that stays open, and the
// checkpoint that covers them in one that is committed: what a reader sees
// between the markers of one transaction.
func (w *world) half() (open *kgo.Client) {
	w.t.Helper()
	records, point := w.readOutbox()
	cp := w.checkpoint(point, number(records))
	open = w.open("events", records)
	w.publish("checkpoint", []*kgo.Record{checkpointRecord(w.t, cp)}, kgo.TryCommit)
	return open
}

func TestEventsWhoseCommitIsOnItsWayAreWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(20)
	open := w.half()
	type result struct {
		report verify.Report
		err    error
	}
	done := make(chan result, 1)
	go func() {
		r, err := verify.Run(t.Context(), w.config())
		done <- result{r, err}
	}()
	select {
	case r := <-done:
		t.Fatalf("it did not wait: %v, OK is %t", r.err, r.report.OK())
	case <-time.After(300 * time.Millisecond):
	}
	check(t, open.EndTransaction(t.Context(), kgo.TryCommit))
	r := <-done
	check(t, r.err)
	checkOK(t, r.report)
}

func TestALogThatCannotBeReadToItsEndIsAnError(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(20)
	w.half()
	cfg := w.config()
	cfg.Patience = 300 * time.Millisecond
	_, err := verify.Run(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "not read to its end: [orders.events.v1[") {
		t.Errorf("got %v, want an error that names the partitions", err)
	}
}

func TestAnOpenTransactionBehindTheCheckpointHoldsNothingUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(20)
	w.forge(forgery{})
	records, _ := w.readOutbox()
	number(records)
	w.open("frozen", records)
	cfg := w.config()
	cfg.Patience = 5 * time.Second
	checkOK(t, must(verify.Run(t.Context(), cfg))(t))
}

func TestAKafkaThatLostEverythingIsFoundOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(20)
	w.drain() // the relay leaves a copy of its checkpoint in the database
	w.emptyKafka()
	r := w.verify()
	if !r.Checkpoint.LostInKafka || r.OK() || r.Missing.Count != 50 || r.Lost() != 50 {
		t.Errorf("lost checkpoint: %t, missing %d, lost %d; want all of the 50 events missing",
			r.Checkpoint.LostInKafka, r.Missing.Count, r.Lost())
	}
	if r.NumberGaps.Count != 50 {
		t.Errorf("%d numbers missing, want 50", r.NumberGaps.Count)
	}
}

// emptyKafka deletes every topic and makes it anew.
func (w *world) emptyKafka() {
	w.t.Helper()
	cl := must(kafka.Open(w.t.Context(), w.kafka(), testenv.Logger(w.t)))(w.t)
	defer cl.Close()
	adm := kadm.NewClient(cl)
	var names []string
	for _, t := range topics() {
		names = append(names, t.Name)
	}
	check(w.t, must(adm.DeleteTopics(w.t.Context(), names...))(w.t).Error())
	testenv.Wait(w.t, waitLong, "the topics to be deleted", func() bool {
		return len(must(adm.ListTopics(w.t.Context()))(w.t).Names()) == 0
	})
	w.makeTopics()
}

func TestAnotherDatabasesCheckpointIsAnError(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(1)
	w.forge(forgery{checkpoint: func(cp *relay.Checkpoint) { cp.System = "7/7" }})
	_, err := verify.Run(t.Context(), w.config())
	if err == nil || !strings.Contains(err.Error(), "another database: 7/7") {
		t.Errorf("got %v, want an error about another database", err)
	}
}

func TestAnUnknownKindOfRestartPointIsAnError(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(1)
	w.forge(forgery{checkpoint: func(cp *relay.Checkpoint) { cp.Kind = "wal" }})
	if _, err := verify.Run(t.Context(), w.config()); err == nil || !strings.Contains(err.Error(), "wal") {
		t.Errorf("got %v, want an error about the wal source", err)
	}
}

func TestAGroupWithoutTablesIsAnError(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := verify.Run(t.Context(), w.config("nobody")); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("got %v, want an error about the group", err)
	}
}

func TestAMissingTempDirIsAnError(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config()
	cfg.TempDir = cfg.TempDir + "/none"
	if _, err := verify.Run(t.Context(), cfg); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want the directory's absence", err)
	}
}

func TestARunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(1)
	w.half()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := verify.Run(ctx, w.config()); err == nil || time.Since(began) > 5*time.Second {
		t.Errorf("got %v after %s, want an error at once", err, time.Since(began))
	}
}
