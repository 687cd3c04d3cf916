package notification

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"orderflow/consumers"
	st "orderflow/consumers/internal/servicetest"
	"orderflow/internal/mailsink"
	"orderflow/internal/testenv"
	"orderflow/schemas"
)

const patience = 30 * time.Second

// office is the service without Kafka: its database, its handlers, its worker
// once started, and the server that takes its mails.
type office struct {
	service  *service
	pool     *pgxpool.Pool
	sink     *mailsink.Sink
	dir      string
	registry *prometheus.Registry
}

// newOffice makes an office whose worker does not run yet. refuse may be nil.
func newOffice(t testing.TB, refuse func(recipient string) error) *office {
	t.Helper()
	dir := t.TempDir()
	sink, err := mailsink.Start(t.Context(), mailsink.Config{Dir: dir, Refuse: refuse, Log: testenv.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sink.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg := Config{SMTPAddr: sink.Addr()}
	return &office{
		service: newService(cfg), pool: st.Database(t, New(cfg)), sink: sink, dir: dir, registry: prometheus.NewRegistry(),
	}
}

// start runs the worker until the test ends, or the returned function ran.
func (o *office) start(t testing.TB) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- o.service.work(ctx, consumers.WorkerDeps{DB: o.pool, Log: testenv.Logger(t), Metrics: o.registry})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("worker: %v", err)
			}
		case <-time.After(patience):
			t.Errorf("worker still runs %s after the end", patience)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (o *office) place(t testing.TB, events ...*schemas.OrderPlaced) {
	t.Helper()
	st.Apply(t, o.pool, func(ctx context.Context, tx pgx.Tx) error { return o.service.placed(ctx, tx, st.Batch(events...)) })
}

func (o *office) cancel(t testing.TB, events ...*schemas.OrderCancelled) {
	t.Helper()
	st.Apply(t, o.pool, func(ctx context.Context, tx pgx.Tx) error { return o.service.cancelled(ctx, tx, st.Batch(events...)) })
}

// settled waits until no mail is open and returns what the service told.
func (o *office) settled(t testing.TB) []st.Told {
	t.Helper()
	testenv.Wait(t, patience, "every mail to be settled", func() bool { return o.tally(t).Open == 0 })
	told := st.Outbox(t, o.pool)
	st.CheckVersions(t, told)
	return told
}

func (o *office) tally(t testing.TB) Tally {
	t.Helper()
	tally, err := Count(t.Context(), o.pool)
	if err != nil {
		t.Fatal(err)
	}
	return tally
}

// mail returns the text of the only mail whose name holds all of parts.
func (o *office) mail(t testing.TB, parts ...string) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(o.dir, "*.eml"))
	if err != nil {
		t.Fatal(err)
	}
	paths = slices.DeleteFunc(paths, func(p string) bool {
		return slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(p, part) })
	})
	if len(paths) != 1 {
		t.Fatalf("found the mails %q, want one with %q", paths, parts)
	}
	text, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(text), "\r\n", "\n")
}

// stories are the mails in the database, as "order number template state".
func (o *office) stories(t testing.TB) []string {
	t.Helper()
	rows, err := o.pool.Query(t.Context(), `
		SELECT order_id || ' ' || number || ' ' || template || ' ' || state FROM mails ORDER BY order_id, number`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (o *office) jobs(t testing.TB, state string) int64 {
	t.Helper()
	return st.Count(t, o.pool, `SELECT count(*) FROM river_job WHERE state::text = $1`, state)
}

func twoLines(order string) *schemas.OrderPlaced {
	return st.Placed(order, st.Line("anna", "mug", 2), st.Line("ben", "lamp", 13))
}

func orderName8(n int) string { return fmt.Sprintf("order-%08d", n) }

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}
