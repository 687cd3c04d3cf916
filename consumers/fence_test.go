package consumers

import (
	"math"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"orderflow/internal/pg"
	"orderflow/internal/testenv"
)

func TestTheFenceMovesPositionSumsAndSourcesTogetherOrRaises(t *testing.T) {
	t.Parallel()
	db := must(pg.Open(t.Context(), pg.Config{URL: testenv.Postgres(t, testenv.Template("consumers", prepare)), Schema: testGroup}))(t)
	defer db.Close()
	_, err := db.Exec(t.Context(), `INSERT INTO consumer_position (grp, topic, part, next_offset, fence, owner, applied_hash)
		VALUES ('g', 't', 0, 10, 5, 'me', 9223372036854775807)`)
	check(t, err)
	fence := func(fence, expected, next int64) error {
		_, err := db.Exec(t.Context(), fenceSQL, "g", "t", 0, fence, expected, next, 7, 3, 2, time.Now(),
			[]string{"orders"}, []int64{1}, []int64{next})
		return err
	}
	for _, c := range []struct {
		name                  string
		fence, expected, next int64
	}{
		{"an older fence", 4, 10, 20},
		{"a newer fence", 6, 10, 20},
		{"a position that moved on", 5, 9, 20},
		{"a position that is ahead", 5, 11, 20},
		{"no step", 5, 10, 10},
	} {
		if err := fence(c.fence, c.expected, c.next); pg.Code(err) != sqlstateFenced {
			t.Errorf("%s: got %v, want SQLSTATE %s", c.name, err, sqlstateFenced)
		}
	}
	check(t, fence(5, 10, 20))
	var next, count, hash, n int64
	var ts pgtype.Timestamptz
	check(t, db.QueryRow(t.Context(), `SELECT next_offset, applied_count, applied_hash, last_record_ts, n
		FROM consumer_position JOIN consumer_source USING (grp, topic, part)`).Scan(&next, &count, &hash, &ts, &n))
	if next != 20 || count != 3 || hash != math.MinInt64+1 || n != 20 || !ts.Valid {
		t.Errorf("next %d count %d hash %d n %d, want 20, 3, the sum modulo 2^64, 20", next, count, hash, n)
	}
}

func TestTheSumInTheDatabaseIsTheOneInGo(t *testing.T) {
	t.Parallel()
	db := must(pg.Open(t.Context(), pg.Config{URL: testenv.Postgres(t, testenv.Template("consumers", prepare)), Schema: testGroup}))(t)
	defer db.Close()
	edges := []int64{math.MinInt64, math.MinInt64 + 1, -1, 0, 1, math.MaxInt64 - 1, math.MaxInt64}
	for _, x := range edges {
		for _, y := range edges {
			var got int64
			check(t, db.QueryRow(t.Context(), "SELECT consumer_sum($1, $2)", x, y).Scan(&got))
			if want := x + y; got != want {
				t.Errorf("%d + %d = %d, want %d", x, y, got, want)
			}
		}
	}
}

// unfenced moves the position as the fence does, whoever asks.
const unfenced = `
WITH given AS (SELECT $1::text AS grp, $2::text AS topic, $3::int AS part, $4::bigint, $5::bigint AS expected, $6::bigint AS next,
	$7::int, $8::bigint AS count, $9::bigint AS hash, $10::timestamptz, $11::text[], $12::bigint[], $13::bigint[])
UPDATE consumer_position p SET next_offset = given.next, applied_count = p.applied_count + given.count
FROM given WHERE p.grp = given.grp AND p.topic = given.topic AND p.part = given.part`

// zombie lets a member freeze with a batch in hand until Kafka has given its
// partition to another member, which applies everything; then it wakes up and
// goes on with its batch.
func zombie(t *testing.T, fence string) (*bed, *member) {
	b := newBed(t, 1)
	gate := newGate()
	b.write(placedOrders(0, 100))
	old := b.run(withFaults(&faults{fence: fence, begin: func(*partition) { gate.pass() }}))
	gate.awaitArrival(t)
	old.net.freeze()
	b.run(withFaults(&faults{fence: fence}))
	b.waitApplied(100)
	gate.open()
	return b, old
}

func TestAZombieThatCommitsLateIsFenced(t *testing.T) {
	t.Parallel()
	b, old := zombie(t, "")
	old.waitMetric(1, "orderflow_consumer_fence_rejections_total")
	old.net.thaw()
	b.write(placedOrders(100, 100))
	b.waitApplied(200)
	b.checkOnceInOrder(all)
}

// The control: without the fence the same history applies events twice. If it
// ever does not, the test above proves nothing.
func TestWithoutTheFenceAZombieAppliesEventsTwice(t *testing.T) {
	t.Parallel()
	b, old := zombie(t, unfenced)
	testenv.Wait(t, waitLong, "events applied twice", func() bool { return len(b.effects()) > 100 })
	old.net.thaw()
	if twice := b.count("SELECT count(*) FROM (SELECT id FROM effects GROUP BY id HAVING count(*) > 1) AS d"); twice == 0 {
		t.Error("no event was applied twice, though nothing kept the zombie out")
	}
}

// A zombie may also freeze inside its transaction, holding the row. The server
// ends that transaction, so the next owner waits no longer than the limit.
func TestAZombieInsideItsTransactionHoldsAPartitionForALimitedTimeOnly(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	gate := newGate()
	b.write(placedOrders(0, 100))
	old := b.run(withFaults(&faults{commit: func(*partition) { gate.pass() }}),
		withLimits(func(l *Limits) { l.IdleInTransaction = 500 * time.Millisecond }))
	gate.awaitArrival(t)
	old.net.freeze()
	b.run()
	b.waitApplied(100)
	gate.open()
	old.net.thaw()
	b.write(placedOrders(100, 100))
	b.waitApplied(200)
	b.checkOnceInOrder(all)
}

// An operator moves the position forward under a new fence while the group
// runs. The owner is still the owner, so it claims again and goes on there.
func TestAnOwnerWhosePositionWasMovedClaimsAgain(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	b.write(placedOrders(0, 10))
	m := b.run()
	b.waitApplied(10)
	for _, sql := range []string{
		"UPDATE consumer_position SET fence = fence + 1, next_offset = next_offset + 5",
		"UPDATE consumer_source SET n = n + 5",
	} {
		_, err := b.db.Exec(t.Context(), sql)
		check(t, err)
	}
	b.write(placedOrders(10, 10))
	m.waitMetric(1, "orderflow_consumer_claims_total", "reason", "fenced")
	b.waitApplied(15)
	if n := len(b.effects()); n != 15 {
		t.Errorf("%d effects, want the 15 that were not skipped", n)
	}
}

// gate stops the first that comes by until it is opened.
type gate struct {
	first   sync.Once
	arrived chan struct{}
	opened  chan struct{}
}

func newGate() *gate { return &gate{arrived: make(chan struct{}), opened: make(chan struct{})} }

func (g *gate) pass() {
	g.first.Do(func() {
		close(g.arrived)
		<-g.opened
	})
}

func (g *gate) open() { close(g.opened) }

func (g *gate) awaitArrival(t testing.TB) {
	t.Helper()
	select {
	case <-g.arrived:
	case <-time.After(waitLong):
		t.Fatal("nobody came to the gate")
	}
}
