package lag

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/twmb/franz-go/pkg/kerr"
)

// TestStories runs the arithmetic without a broker: `told` says line by line
// what the brokers answer from now on, and `cycle` shows what follows from it.
//
//	topic NAME PARTITIONS [ID | CODE]     a topic, its id or why it cannot be read
//	no-topic NAME
//	log TOPIC/PART START STABLE END       or CODE
//	group NAME [TOPIC...]                 with what its members subscribe to
//	no-group NAME
//	unread NAME                           its commits cannot be read
//	commit GROUP TOPIC/PART OFFSET        or CODE
//	record TOPIC/PART@OFFSET SECONDS      when the next record there was made
//	nothing TOPIC/PART@OFFSET UNTIL       nothing readable below UNTIL
//	refused TOPIC/PART@OFFSET CODE        the look-up fails
func TestStories(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		s := newStory()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "told":
				for _, line := range strings.Split(d.Input, "\n") {
					s.told(t, strings.Fields(line))
				}
				return ""
			case "cycle":
				var at int64
				d.ScanArgs(t, "at", &at)
				limit := 100
				d.MaybeScanArgs(t, "limit", &limit)
				return s.cycle(time.Unix(at, 0), limit, !d.HasArg("incomplete"))
			default:
				d.Fatalf(t, "unknown command %q", d.Cmd)
				return ""
			}
		})
	})
}

type story struct {
	memory  *memory
	reading *reading
	found   map[string]finding
	refused map[string]error
}

func newStory() *story {
	return &story{
		memory: newMemory(),
		reading: &reading{
			groups: map[string]*group{}, topics: map[string]topic{}, logs: map[logKey]logRead{},
		},
		found: map[string]finding{}, refused: map[string]error{},
	}
}

func (s *story) told(t *testing.T, w []string) {
	t.Helper()
	r := s.reading
	switch w[0] {
	case "topic":
		to := topic{partitions: int32(number(t, w[2]))}
		if len(w) > 3 {
			if to.err = asError(w[3]); to.err == nil {
				to.id[0] = byte(number(t, w[3]))
			}
		}
		r.topics[w[1]] = to
	case "no-topic":
		delete(r.topics, w[1])
	case "log":
		key := partition(t, w[1])
		if err := asError(w[2]); err != nil {
			r.logs[key] = logRead{err: err}
			return
		}
		r.logs[key] = logRead{Log: newLog(key, number(t, w[2]), number(t, w[3]), number(t, w[4]))}
	case "group":
		g := &group{Group: Group{Name: w[1]}, commits: map[logKey]int64{}, broken: map[logKey]error{}}
		g.read(w[2:]...)
		r.groups[w[1]] = g
	case "no-group":
		delete(r.groups, w[1])
	case "unread":
		r.groups[w[1]].unread = true
	case "commit":
		g, key := r.groups[w[1]], partition(t, w[2])
		if g.broken[key] = asError(w[3]); g.broken[key] == nil {
			g.commits[key] = number(t, w[3])
		}
	case "record":
		s.found[w[1]] = finding{found: true, at: time.Unix(number(t, w[2]), 0)}
	case "nothing":
		s.found[w[1]] = finding{scanned: number(t, w[2])}
	case "refused":
		s.refused[w[1]] = asError(w[2])
	default:
		t.Fatalf("unknown line %q", w)
	}
}

func (s *story) cycle(at time.Time, limit int, complete bool) string {
	var b strings.Builder
	r := s.reading
	r.at = at
	s.memory.begin()
	parts := r.partitions()
	todo := s.memory.settle(r, parts, limit)
	for _, l := range todo {
		name := fmt.Sprintf("%s/%d@%d", l.spot.name, l.spot.partition, l.spot.offset)
		fmt.Fprintf(&b, "look up %s from %d\n", name, l.from)
		l.tried = true
		l.err = s.refused[name]
		if f, ok := s.found[name]; ok {
			s.memory.note(l, f)
		}
	}
	s.memory.answer(r, parts, todo)
	s.memory.progress(r, parts)
	if complete {
		s.memory.forget()
	}
	for _, p := range parts {
		b.WriteString(render(p))
	}
	for _, total := range (Snapshot{Groups: r.described(), Partitions: parts}).Totals() {
		fmt.Fprintf(&b, "%s in all: records=%s seconds=%s\n", total.Group,
			known(total.RecordsKnown, total.Records), known(total.SecondsKnown, total.Seconds))
	}
	if b.Len() == 0 {
		return "nothing\n"
	}
	return b.String()
}

func render(p Partition) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s/%d", p.Group, p.Topic, p.Partition)
	if p.HasCommit() {
		fmt.Fprintf(&b, " committed=%d", p.Committed)
	} else {
		b.WriteString(" uncommitted")
	}
	fmt.Fprintf(&b, " lag=%s end=%s", known(p.Known, p.LagRecords), known(p.Known, p.LagEndRecords))
	if p.LostRecords != 0 {
		fmt.Fprintf(&b, " lost=%d", p.LostRecords)
	}
	if p.AheadRecords != 0 {
		fmt.Fprintf(&b, " ahead=%d", p.AheadRecords)
	}
	ratio, ok := p.Headroom()
	fmt.Fprintf(&b, " seconds=%s headroom=%s", known(p.SecondsKnown, p.LagSeconds), known(ok, ratio))
	if p.LastProgress.IsZero() {
		b.WriteString(" progress=?")
	} else {
		fmt.Fprintf(&b, " progress=%d", p.LastProgress.Unix())
	}
	if p.Problem != "" {
		fmt.Fprintf(&b, " (%s)", p.Problem)
	}
	return b.String() + "\n"
}

func known[N int64 | float64](yes bool, n N) string {
	if !yes {
		return fmt.Sprintf("?%v", n) // the figure shows, since it should be 0 or a part
	}
	return fmt.Sprintf("%v", n)
}

func number(t *testing.T, word string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(word, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func partition(t *testing.T, word string) logKey {
	t.Helper()
	name, part, _ := strings.Cut(word, "/")
	return logKey{name, int32(number(t, part))}
}

// asError returns the error that a code of the protocol stands for, nil for a
// word that is none.
func asError(word string) error {
	for code := range int16(200) {
		if err, ok := errors.AsType[*kerr.Error](kerr.ErrorForCode(code)); ok && err.Message == word {
			return err
		}
	}
	return nil
}
