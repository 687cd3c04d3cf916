package consumers

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"pgregory.net/rapid"

	"orderflow/internal/pg"
	"orderflow/internal/testenv"
	"orderflow/schemas"
)

// histories is how many random histories one run of the test goes through;
// each takes seconds, where rapid counts on a hundred quick ones.
const histories = 8

// step is one thing that happens. The plan is drawn before it is carried out,
// so that rapid can shrink it.
type step struct {
	Do     string
	Events []int // for write: an order each, cancelled where negative
	Abort  bool  // for write: leave an aborted transaction behind
	Member int   // for stop, kill, freeze: which of those there are
}

// Writing and waiting happen more often than accidents.
var stepNames = []string{
	"write", "write", "write", "start", "start", "stop", "kill", "freeze", "freeze", "thaw", "fail", "dawdle", "dawdle",
	"cut after", "cut before", "reset", "wait", "wait", "wait", "wait",
}

func drawPlan(rt *rapid.T) []step {
	plan := []step{drawWrite(rt), {Do: "start"}}
	for range rapid.IntRange(5, 14).Draw(rt, "steps") {
		s := step{Do: rapid.SampledFrom(stepNames).Draw(rt, "step")}
		switch s.Do {
		case "write":
			s = drawWrite(rt)
		case "stop", "kill", "freeze":
			s.Member = rapid.IntRange(0, 2).Draw(rt, "member")
		}
		plan = append(plan, s)
	}
	return append(plan, step{Do: "thaw"}, step{Do: "start"})
}

func drawWrite(rt *rapid.T) step {
	return step{
		Do: "write", Abort: rapid.IntRange(0, 3).Draw(rt, "abort") == 0,
		Events: rapid.SliceOfN(rapid.IntRange(-15, 15), 1, 60).Draw(rt, "events"),
	}
}

// world is a group going through a history.
type world struct {
	*bed
	address  string // of the database, behind proxy
	proxy    *proxy
	members  []*member
	failures atomic.Int64 // handler calls that will fail
	dawdles  atomic.Int64 // batches that will wait longer than a session before they begin
	events   int
}

// The model is one line: whatever happened, each event was applied once, in
// the order of its key.
func TestAnyHistoryAppliesEachEventOnceInOrder(t *testing.T) {
	t.Parallel()
	var runs int
	var failed bool
	rapid.Check(t, func(rt *rapid.T) {
		if runs++; runs > histories && !failed {
			return
		}
		plan := drawPlan(rt)
		if !t.Run(fmt.Sprint("history", runs), func(t *testing.T) { history(t, plan) }) {
			failed = true
			rt.Fatalf("a loss, a repeat or another order after %+v", plan)
		}
	})
}

func history(t *testing.T, plan []step) {
	w := &world{bed: newBed(t, 3)}
	w.address, w.proxy = proxied(t, w.url)
	for _, s := range plan {
		t.Logf("step %+v", s)
		w.do(s)
	}
	w.waitApplied(w.events)
	w.checkOnceInOrder(all)
}

func (w *world) do(s step) {
	switch s.Do {
	case "write":
		w.writeSome(s)
	case "start":
		w.start()
	case "stop":
		if m := w.take(s.Member); m != nil {
			m.net.thaw()
			m.stop()
		}
	case "kill":
		if m := w.take(s.Member); m != nil {
			m.kill()
		}
	case "freeze":
		if m := w.take(s.Member); m != nil {
			m.net.freeze()
			w.members = append(w.members, m)
		}
	case "thaw":
		for _, m := range w.members {
			m.net.thaw()
		}
	case "fail":
		w.failures.Add(3)
	case "dawdle":
		w.dawdles.Add(2)
	case "cut after":
		w.proxy.arm(cutAfter)
	case "cut before":
		w.proxy.arm(cutBefore)
	case "reset":
		w.proxy.reset()
	case "wait":
		w.waitABit()
	}
}

func (w *world) writeSome(s step) {
	events := make([]schemas.Event, len(s.Events))
	for i, o := range s.Events {
		if o < 0 {
			events[i] = cancelled(order(-o))
		} else {
			events[i] = placed(order(o))
		}
	}
	w.write(events)
	w.events += len(events)
	if s.Abort {
		w.writeAborted(placedOrders(0, 5))
	}
}

func (w *world) start() {
	if len(w.members) >= 3 {
		w.do(step{Do: "stop"})
	}
	w.members = append(w.members, w.run(withDB(w.unreachedPool()), withFaults(&faults{begin: w.dawdle}),
		withLimits(func(l *Limits) { l.MinBatch, l.MaxBatch = 7, 7 }),
		withHandlers(flaky[*schemas.OrderPlaced](&w.failures), flaky[*schemas.OrderCancelled](&w.failures))))
}

func (w *world) dawdle(*partition) {
	if w.dawdles.Add(-1) >= 0 {
		<-time.After(sessionTimeout() + time.Second)
	}
}

// unreachedPool is a pool that does not connect at once: the connection might
// be the next to be cut.
func (w *world) unreachedPool() *pgxpool.Pool {
	c := must(pg.Config{URL: w.address, Schema: testGroup}.Parse())(w.t)
	pool := must(pgxpool.NewWithConfig(w.ctx, c))(w.t)
	w.t.Cleanup(pool.Close)
	return pool
}

// take removes a member from the world.
func (w *world) take(i int) *member {
	if len(w.members) == 0 {
		return nil
	}
	i %= len(w.members)
	m := w.members[i]
	w.members = append(w.members[:i:i], w.members[i+1:]...)
	return m
}

// flaky fails after its effects are written, as long as there are failures left.
func flaky[E schemas.Event](failures *atomic.Int64) Handler {
	return OnBatch(func(ctx context.Context, tx pgx.Tx, events []Event[E]) error {
		if err := record(ctx, tx, events); err != nil {
			return err
		}
		if failures.Add(-1) >= 0 {
			return errors.New("a bad moment")
		}
		return nil
	})
}

// waitABit lets things move: until a few more events are applied, or a moment
// has passed in which nobody could.
func (w *world) waitABit() {
	applied := func() int { return w.count("SELECT coalesce(sum(applied_count), 0) FROM consumer_position") }
	target := min(applied()+10, w.events)
	deadline := time.Now().Add(sessionTimeout() + 500*time.Millisecond)
	testenv.Wait(w.t, waitLong, "a moment to pass", func() bool { return applied() >= target || time.Now().After(deadline) })
}
