package consumers

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

// Whatever the batch looks like: every event is in one call of its own type,
// and the calls, one after the other, keep the order of each key.
func TestLayersKeepTheOrderOfEveryKey(t *testing.T) {
	t.Parallel()
	handlers := map[string]*Handler{"A": {}, "B": {}, "C": {}}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 60).Draw(t, "events")
		keys := rapid.IntRange(1, 5).Draw(t, "keys")
		var items []*item
		want := map[string][]int64{}
		for off := range int64(n) {
			key := fmt.Sprint(rapid.IntRange(0, keys-1).Draw(t, "key"))
			kind := rapid.SampledFrom([]string{"A", "B", "C"}).Draw(t, "type")
			items = append(items, &item{
				record: &kgo.Record{Key: []byte(key), Offset: off}, eventType: kind, handler: handlers[kind],
			})
			want[key] = append(want[key], off)
		}
		got := map[string][]int64{}
		for _, c := range layers(items) {
			if len(c.batch) == 0 {
				t.Fatal("a call without events")
			}
			for _, d := range c.batch {
				if items[d.record.Offset].handler != c.handler {
					t.Fatalf("event %d is in a call of another type", d.record.Offset)
				}
				got[string(d.record.Key)] = append(got[string(d.record.Key)], d.record.Offset)
			}
		}
		for key := range want {
			if !slices.Equal(want[key], got[key]) {
				t.Fatalf("key %s: applied %v, want %v", key, got[key], want[key])
			}
		}
	})
}

func TestEventsOfOneTypeMakeOneCall(t *testing.T) {
	t.Parallel()
	h := &Handler{}
	var items []*item
	for i := range 10 {
		items = append(items, &item{record: &kgo.Record{Key: []byte{byte(i % 3)}}, eventType: "A", handler: h})
	}
	if calls := layers(items); len(calls) != 1 || len(calls[0].batch) != 10 {
		t.Errorf("%d calls, want one with all events", len(calls))
	}
	if calls := layers(nil); calls != nil {
		t.Errorf("no events made %d calls", len(calls))
	}
}
