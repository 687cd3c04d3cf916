package notification

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"

	st "orderflow/consumers/internal/servicetest"
	"orderflow/internal/testenv"
	"orderflow/schemas"
)

var (
	errUnknownUser = &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "No such user"}
	errGreylisted  = &gosmtp.SMTPError{Code: 451, EnhancedCode: gosmtp.EnhancedCode{4, 7, 1}, Message: "Come again"}
)

func TestMailReachesTheServerAndIsToldOf(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil)
	o.start(t)
	o.place(t, twoLines("o1"))

	sent := st.OfType[*schemas.NotificationSent](o.settled(t))
	if len(sent) != 1 {
		t.Fatalf("told of %d mails, want 1", len(sent))
	}
	e, cause := sent[0], st.ID("o1", "placed")
	if e.Meta.OrderVersion != 1 || *e.Meta.CausationID != cause || e.Meta.CorrelationID != "correlation of o1" ||
		e.Meta.Flow != schemas.FlowChoreography || e.Meta.Producer != Group {
		t.Errorf("envelope %+v does not tell of its cause", e.Meta)
	}
	if e.Channel != schemas.NotificationChannelEmail || e.Template != orderReceived || e.DedupeKey != "notification/"+cause+"/order-received" {
		t.Errorf("got %+v", e)
	}
	text := o.mail(t, "notification."+cause+".order-received@orderflow.invalid.eml")
	if !strings.Contains(text, "Subject: Your order web o1\n") {
		t.Errorf("the mail reads\n%s", text)
	}
	if n := st.Count(t, o.pool, `SELECT count(*) FROM mails WHERE content IS NULL AND settled_at IS NOT NULL AND state = 'sent'`); n != 1 {
		t.Error("the settled mail still holds its content")
	}
	testenv.Wait(t, patience, "the job to end", func() bool { return o.jobs(t, "completed") == 1 })
	if got := o.tally(t); got != (Tally{Sent: 1}) {
		t.Errorf("tally %+v", got)
	}
}

// The worker dies between the server's answer and the commit.
func TestMailSentAgainAfterACrashIsTheSameMailAndToldOfOnce(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil)
	var first atomic.Value
	o.service.faults.sent = func() error {
		if first.CompareAndSwap(nil, o.mail(t)) {
			return errors.New("crash at mail-sent")
		}
		return nil
	}
	o.start(t)
	o.place(t, twoLines("o1"))
	told := o.settled(t)
	if o.sink.Received() != 2 || o.sink.Count() != 1 {
		t.Errorf("the server took a mail %d times and kept %d, want 2 and 1", o.sink.Received(), o.sink.Count())
	}
	if diff := cmp.Diff(first.Load(), o.mail(t)); diff != "" {
		t.Errorf("the second mail differs (-first +second):\n%s", diff)
	}
	if len(told) != 1 {
		t.Errorf("told %d times, want once", len(told))
	}
}

// A worker was killed with the job in its hands: nobody gave the job back.
func TestMailOfAKilledWorkerIsSentByTheNext(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil)
	o.place(t, twoLines("o1"))
	_, err := o.pool.Exec(t.Context(), `
		UPDATE river_job SET state = 'running', attempt = 1, attempted_by = '{killed}', attempted_at = now() - interval '1 minute'`)
	if err != nil {
		t.Fatal(err)
	}
	o.start(t)
	if told := o.settled(t); len(told) != 1 || o.sink.Count() != 1 {
		t.Errorf("told of %d mails and sent %d, want 1", len(told), o.sink.Count())
	}
}

// A worker that was thought dead settles a mail that another has already.
func TestJobOfASettledMailSendsNothing(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil)
	o.place(t, twoLines("o1"))
	if _, err := o.pool.Exec(t.Context(), `UPDATE mails SET state = 'sent'`); err != nil {
		t.Fatal(err)
	}
	o.start(t)
	testenv.Wait(t, patience, "the job to end", func() bool { return o.jobs(t, "completed") == 1 })
	if told := st.Outbox(t, o.pool); len(told) != 0 || o.sink.Received() != 0 {
		t.Errorf("told of %d mails and sent %d, want none", len(told), o.sink.Received())
	}
}

// Two workers had the same mail, one of them wrongly thought dead.
func TestMailThatIsSettledTwiceIsToldOfOnce(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil)
	o.place(t, twoLines("o1"))
	l, err := readLetter(t.Context(), o.pool, mailJob{Order: "o1", Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	s := &settler{db: o.pool, log: testenv.Logger(t), metrics: newMetrics(nil), jobs: o.service.insertJobs}
	for _, state := range []string{stateSent, stateFailed} {
		if err := s.insist(t.Context(), []*settlement{{letter: &l, outcome: outcome{state: state}}}); err != nil {
			t.Fatal(err)
		}
	}
	told := st.Outbox(t, o.pool)
	if len(told) != 1 || len(st.OfType[*schemas.NotificationSent](told)) != 1 {
		t.Errorf("told %v, want NotificationSent alone", told)
	}
	if sent := testutil.ToFloat64(s.metrics.intents.WithLabelValues(stateSent)); sent != 1 {
		t.Errorf("counted %v mails as sent, want 1", sent)
	}
	if failed := testutil.ToFloat64(s.metrics.intents.WithLabelValues(stateFailed)); failed != 0 {
		t.Errorf("counted %v mails as failed, want none", failed)
	}
}

// Nothing is told, and no mail lost, while the database is away.
func TestSettlingWaitsForADatabaseThatIsInTheWay(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil)
	o.place(t, twoLines("o1"))
	l, err := readLetter(t.Context(), o.pool, mailJob{Order: "o1", Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	failures := 2
	s := &settler{db: o.pool, log: testenv.Logger(t), metrics: newMetrics(nil), jobs: func(ctx context.Context, tx pgx.Tx, _ []mailJob) error {
		if failures--; failures >= 0 {
			return &pgconn.PgError{Code: "40001"}
		}
		return nil
	}}
	if err := s.insist(t.Context(), []*settlement{{letter: &l, outcome: outcome{state: stateSent}}}); err != nil {
		t.Fatal(err)
	}
	if told := st.Outbox(t, o.pool); len(told) != 1 {
		t.Errorf("told %d times, want once", len(told))
	}
}

func TestBacklogIsCountedAndUnknownIsNotZero(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil)
	m := newMetrics(o.registry)
	o.place(t, twoLines("o1"), twoLines("o2"))
	o.cancel(t, st.Cancelled("o1"))
	if err := m.poll(t.Context(), o.pool); err != nil {
		t.Fatal(err)
	}
	if got := testutil.ToFloat64(m.pending); got != 3 {
		t.Errorf("counted %v pending mails, want 3", got)
	}
	if got := testutil.ToFloat64(m.oldest); got <= 0 {
		t.Errorf("the oldest mail is %v s old", got)
	}
	o.pool.Close()
	ctx, cancel := context.WithCancel(context.Background())
	watching := make(chan struct{})
	go func() { defer close(watching); m.watch(ctx, o.pool, testenv.Logger(t)) }()
	testenv.Wait(t, patience, "the series to go", func() bool { return testutil.CollectAndCount(m.pending) == 0 })
	cancel()
	<-watching
}

func TestFinalRefusalIsToldOfWithoutTheAddress(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	o := newOffice(t, func(string) error { asked.Add(1); return errUnknownUser })
	o.start(t)
	o.place(t, twoLines("o1"))
	o.cancel(t, st.Cancelled("o1"))

	failed := st.OfType[*schemas.NotificationFailed](o.settled(t))
	if len(failed) != 2 || asked.Load() != 2 {
		t.Fatalf("told of %d failures after %d attempts, want 2 and 2", len(failed), asked.Load())
	}
	f := failed[0]
	if !f.Permanent || f.Attempts != 1 || f.Template != orderReceived || f.Meta.OrderVersion != 1 {
		t.Errorf("got %+v", f)
	}
	if r := *f.Reason; !strings.HasPrefix(r, "SMTP 550 5.1.1") || strings.Contains(r, "@") {
		t.Errorf("reason %q: want the server's code, and no address", r)
	}
	if got := o.tally(t); got != (Tally{Failed: 2}) {
		t.Errorf("tally %+v", got)
	}
	if got := testutil.ToFloat64(newMetrics(o.registry).intents.WithLabelValues(stateFailed)); got != 2 {
		t.Errorf("counted %v failures, want 2", got)
	}
}

func TestTemporaryRefusalIsTriedAgain(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	o := newOffice(t, func(string) error {
		if asked.Add(1) == 1 {
			return errGreylisted
		}
		return nil
	})
	o.start(t)
	o.place(t, twoLines("o1"))
	told := o.settled(t)
	if len(st.OfType[*schemas.NotificationSent](told)) != 1 || len(told) != 1 || asked.Load() != 2 {
		t.Errorf("told %v after %d attempts, want NotificationSent after 2", told, asked.Load())
	}
	if n := st.Count(t, o.pool, `SELECT count(*) FROM river_job WHERE errors::text LIKE '%@%'`); n != 0 {
		t.Error("the job's errors hold an address")
	}
}

func TestMailThatNeverGetsThroughIsGivenUp(t *testing.T) {
	t.Parallel()
	o := newOffice(t, func(string) error { return errGreylisted })
	o.place(t, twoLines("o1"))
	if _, err := o.pool.Exec(t.Context(), `UPDATE river_job SET attempt = $1`, giveUpAt-1); err != nil {
		t.Fatal(err)
	}
	o.start(t)
	failed := st.OfType[*schemas.NotificationFailed](o.settled(t))
	if len(failed) != 1 || failed[0].Attempts != giveUpAt || !failed[0].Permanent {
		t.Errorf("got %+v, want one failure after %d attempts", failed, giveUpAt)
	}
}

func TestTestTrafficSendsNoMail(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil)
	o.start(t)
	probe := twoLines("o1")
	probe.Meta.Synthetic = true
	o.place(t, probe)
	told := o.settled(t)
	if len(st.OfType[*schemas.NotificationSuppressed](told)) != 1 || o.sink.Received() != 0 {
		t.Errorf("told %v and sent %d mails, want NotificationSuppressed and none", told, o.sink.Received())
	}
	if !told[0].Event.Envelope().Synthetic {
		t.Error("what followed from test traffic does not say so")
	}
}

func TestAddressIsLookedUpWhenTheMailLeaves(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil)
	o.place(t, twoLines("o1"))
	broken := twoLines("o2")
	broken.CustomerID = "broken"
	o.place(t, broken)
	_, err := o.pool.Exec(t.Context(), `INSERT INTO contacts (customer_id, address) VALUES ('17850', 'ada@example.com'), ('broken', 'no address')`)
	if err != nil {
		t.Fatal(err)
	}
	o.start(t)
	told := o.settled(t)
	if text := o.mail(t, st.ID("o1", "placed")); !strings.Contains(text, "To: <ada@example.com>\n") {
		t.Errorf("the mail reads\n%s", text)
	}
	failed := st.OfType[*schemas.NotificationFailed](told)
	if len(failed) != 1 || strings.Contains(*failed[0].Reason, "no address\"") {
		t.Errorf("got %+v, want one failure, without the contact", failed)
	}
}

// TestVersionsHaveNoHole places and cancels orders in a random order while the
// worker sends.
func TestVersionsHaveNoHole(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil)
	o.start(t)
	story := 0
	rapid.Check(t, func(rt *rapid.T) {
		story++
		placed, mails := map[string]bool{}, int64(0)
		for _, n := range rapid.SliceOfN(rapid.IntRange(0, 5), 1, 10).Draw(rt, "steps") {
			order := fmt.Sprintf("story %d order %d", story, n/2)
			before, known := placed[order]
			if n%2 == 0 {
				o.place(t, twoLines(order))
			} else {
				o.cancel(t, st.Cancelled(order))
			}
			switch {
			case !known && n%2 == 0, known && before && n%2 == 1:
				mails++
			}
			if !known || n%2 == 1 {
				placed[order] = n%2 == 0
			}
		}
		o.settled(t)
		got := st.Count(t, o.pool, `SELECT count(*) FROM outbox.events WHERE aggregate_id LIKE $1`, fmt.Sprintf("story %d %%", story))
		if got != mails {
			rt.Errorf("told of %d mails, want %d", got, mails)
		}
	})
}

func TestServiceSendsEachMailOfEventsFromKafkaOnce(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil)
	g := st.Start(t, New(Config{SMTPAddr: o.sink.Addr()}), o.pool)
	for n := range 40 {
		g.Produce(t, twoLines(orderName8(n)))
		if n%4 == 0 {
			g.Produce(t, st.Cancelled(orderName8(n)))
		}
	}
	g.WaitApplied(t)
	sent := st.OfType[*schemas.NotificationSent](o.settled(t))
	if len(sent) != 50 || o.sink.Received() != 50 || o.sink.Count() != 50 {
		t.Errorf("told of %d mails, sent %d, kept %d, want 50 of each", len(sent), o.sink.Received(), o.sink.Count())
	}
}

// BenchmarkMails writes and sends batches of 2,500 mails.
func BenchmarkMails(b *testing.B) {
	o := newOffice(b, nil)
	o.start(b)
	batch := 0
	for b.Loop() {
		b.StopTimer()
		batch++
		orders := make([]*schemas.OrderPlaced, 2500)
		for i := range orders {
			orders[i] = st.Placed(fmt.Sprintf("%032d-%d", batch, i), st.Line("uci", "mug", 6), st.Line("uci", "lamp", 1))
		}
		b.StartTimer()
		for len(orders) > 0 {
			o.place(b, orders[:250]...)
			orders = orders[250:]
		}
		for tick := time.NewTicker(100 * time.Millisecond); ; <-tick.C {
			if st.Count(b, o.pool, `SELECT count(*) FROM mails WHERE state IN ('waiting', 'queued')`) == 0 {
				break
			}
		}
	}
	b.ReportMetric(2500*float64(b.N)/b.Elapsed().Seconds(), "mails/s")
}
