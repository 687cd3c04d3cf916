package consumers

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/internal/kafka"
	"orderflow/internal/testenv"
	"orderflow/schemas"
)

func TestTheSelfCheckTakesOnlyTheNextNumberOfASource(t *testing.T) {
	t.Parallel()
	at := func(incarnation uint32, n uint64) kafka.Position {
		return kafka.Position{Source: "orders", Incarnation: incarnation, N: n}
	}
	for _, c := range []struct {
		name   string
		last   *numbered
		pos    kafka.Position
		reason string
	}{
		{"the first record of a source sets it", nil, at(1, 40), ""},
		{"the next number", &numbered{1, 40}, at(1, 41), ""},
		{"a hole", &numbered{1, 40}, at(1, 44), stopSequenceGap},
		{"the same again", &numbered{1, 40}, at(1, 40), stopSequenceRepeat},
		{"an older number", &numbered{1, 40}, at(1, 12), stopSequenceRepeat},
		{"a new incarnation from its start", &numbered{1, 40}, at(2, 1), ""},
		{"a new incarnation that lost its start", &numbered{1, 40}, at(3, 2), stopSequenceGap},
		{"an older incarnation", &numbered{2, 5}, at(1, 41), stopIncarnation},
	} {
		s := sequence{}
		if c.last != nil {
			s["orders"] = *c.last
		}
		stop := s.check(c.pos)
		switch {
		case c.reason == "" && stop != nil:
			t.Errorf("%s: stopped: %v", c.name, stop)
		case c.reason == "" && s["orders"] != numbered{c.pos.Incarnation, c.pos.N}:
			t.Errorf("%s: noted %v", c.name, s["orders"])
		case c.reason != "" && (stop == nil || stop.reason != c.reason):
			t.Errorf("%s: got %v, want %s", c.name, stop, c.reason)
		case c.reason != "" && c.last != nil && s["orders"] != *c.last:
			t.Errorf("%s: the number moved to %v", c.name, s["orders"])
		}
	}
}

func TestAHoleNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	s := sequence{"orders": {1, 40}}
	got := s.check(kafka.Position{Source: "orders", Incarnation: 1, N: 44}).Error()
	for _, part := range []string{`"orders"`, "expected n=41", "found n=44", "3 events are missing"} {
		if !strings.Contains(got, part) {
			t.Errorf("%q does not say %q", got, part)
		}
	}
}

// A record that must not be there stops its partition behind everything that
// came before, says so again and again, and leaves the others alone. Once the
// cause is gone the partition goes on by itself.
func TestARecordThatMustNotBeThereStopsItsPartitionOnly(t *testing.T) {
	t.Parallel()
	skip := func(n uint64) forge { return renumber(func(p *kafka.Position) { p.N += n }) }
	drop := func(key string) forge {
		return func(r *kgo.Record) {
			var kept []kgo.RecordHeader
			for _, h := range r.Headers {
				if h.Key != key {
					kept = append(kept, h)
				}
			}
			r.Headers = kept
		}
	}
	for _, c := range []struct {
		name, reason, metric string
		forge                forge
	}{
		{"a hole", stopSequenceGap, "orderflow_consumer_sequence_gaps_total", skip(3)},
		{"a repeat", stopSequenceRepeat, "orderflow_consumer_sequence_duplicates_total", renumber(func(p *kafka.Position) { p.N = 1 })},
		{"an older incarnation", stopIncarnation, "", renumber(func(p *kafka.Position) { p.Incarnation = 0 })},
		{"no position", stopForeign, "", drop(kafka.HeaderPosition)},
		{"no type", stopForeign, "", drop(kafka.HeaderType)},
		{"no id", stopForeign, "", drop(kafka.HeaderID)},
		{"at least once", stopAtLeastOnce, "", renumber(func(p *kafka.Position) { p.AtLeastOnce = true })},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 2)
			m := b.run()
			b.write(placedOrders(0, 40))
			bad := order(0)
			part := kafka.Partition([]byte(bad), 2)
			b.write([]schemas.Event{placed(bad)}, c.forge)
			b.write(placedOrders(40, 40))
			before, others := 0, 0
			for i, w := range b.written {
				switch {
				case w.Part != part:
					others++
				case i < 40:
					before++
				}
			}
			b.waitApplied(before + others)
			m.waitMetric(1, "orderflow_consumer_partition_stopped", "reason", c.reason)
			if c.metric != "" {
				m.waitMetric(2, c.metric, "source", testSource) // it says so again
			}
			if n := b.count("SELECT count(*) FROM effects WHERE part = $1", part); n != before {
				t.Errorf("%d effects in the stopped partition, want the %d before the bad record", n, before)
			}
			_, err := b.db.Exec(b.ctx, `UPDATE consumer_position SET fence = fence + 1, next_offset = next_offset + 1 WHERE part = $1`, part)
			check(t, err)
			_, err = b.db.Exec(b.ctx, `UPDATE consumer_source SET n = n + 1 WHERE part = $1`, part)
			check(t, err)
			b.waitApplied(80)
			testenv.Wait(t, waitLong, "the stop to be over", func() bool { return m.metric("orderflow_consumer_partition_stopped") == 0 })
		})
	}
}

func TestANewIncarnationBeginsItsOwnNumbers(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	b.run()
	b.write(placedOrders(0, 10))
	b.write(placedOrders(10, 10), renumber(func(p *kafka.Position) { p.Incarnation, p.N = 2, p.N-10 }))
	b.write(placedOrders(20, 1), renumber(func(p *kafka.Position) { p.Incarnation, p.N = 2, p.N-10 }))
	b.waitApplied(21)
	b.checkOnceInOrder(all)
}

// Compaction makes holes by design, so such a topic's numbers say nothing.
func TestACompactedTopicMayHaveHoles(t *testing.T) {
	t.Parallel()
	g := &group{handlers: map[string]*Handler{}, compacted: map[string]bool{schemas.StockTopic: true}}
	seq := sequence{testSource: {1, 5}}
	r := &kgo.Record{Topic: schemas.StockTopic, Headers: []kgo.RecordHeader{
		{Key: kafka.HeaderID, Value: []byte(uuid.NewString())},
		{Key: kafka.HeaderType, Value: []byte("x")},
		{Key: kafka.HeaderPosition, Value: kafka.Position{Incarnation: 1, N: 9, Source: testSource}.Append(nil)},
	}}
	if _, stop := g.open(r, seq); stop != nil {
		t.Errorf("stopped: %v", stop)
	}
	r.Topic = ordersTopic
	if _, stop := g.open(r, seq); stop == nil {
		t.Error("the same in a topic that is not compacted did not stop")
	}
}

func TestTheHashOfAnEventIsTheDocumentedOne(t *testing.T) {
	t.Parallel()
	// printf '\x00\x01...\x0f' | sha256sum begins with be45cb2605bf36be.
	want := uint64(0xbe45cb2605bf36be)
	if got := EventHash(uuid.UUID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}); uint64(got) != want {
		t.Errorf("got %x, want %x", uint64(got), want)
	}
}
