package verify_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"orderflow/consumers"
	"orderflow/e2e/verify"
	"orderflow/internal/kafka"
	"orderflow/internal/pg"
	"orderflow/internal/testenv"
	"orderflow/outbox-relay/outbox"
	"orderflow/schemas"
)

var benchEvents = flag.Int("verify.events", 20_000, "events of BenchmarkVerify")

// childVariable turns the test binary into a process that verifies once, so
// that its memory can be measured without the broker's and the test's.
const childVariable = "ORDERFLOW_VERIFY_CHILD"

// childTask is what such a process is told.
type childTask struct {
	URL     string
	Brokers []string
	TempDir string
}

// childAnswer is what it says.
type childAnswer struct {
	OK      bool
	Rows    int64
	Records int64
	Applied int64
	Seconds float64
	Peak    int64 // most resident bytes
}

func TestMain(m *testing.M) {
	if task := os.Getenv(childVariable); task != "" {
		if err := runChild(task); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func runChild(task string) error {
	var c childTask
	if err := json.Unmarshal([]byte(task), &c); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	db, err := pg.Open(ctx, pg.Config{URL: c.URL})
	if err != nil {
		return err
	}
	defer db.Close()
	r, err := verify.Run(ctx, verify.Config{
		DB: db, Kafka: kafka.Config{Brokers: c.Brokers}, TempDir: c.TempDir,
		Groups: []verify.Group{{Name: groupName, Topics: []string{ordersTopic}}},
	})
	if err != nil {
		return err
	}
	peak, err := peakResident()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(childAnswer{
		OK: r.OK(), Rows: r.Outbox.Rows, Records: r.Log.Events, Applied: r.Groups[0].Applied, Seconds: r.Seconds, Peak: peak,
	})
}

// peakResident reads the most memory that this process had; 0 where the
// system does not tell.
func peakResident() (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if os.IsNotExist(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0, nil
	}
	kib, err := strconv.ParseInt(fields[0], 10, 64)
	return kib << 10, err
}

// BenchmarkVerify measures the check of a drained platform with one group, in
// a process of its own. The events' number is the flag -verify.events.
func BenchmarkVerify(b *testing.B) {
	w := newWorld(b)
	w.bulk(*benchEvents)
	stopRelay, stopGroup := w.relay(), w.idleGroup()
	testenv.Wait(b, 10*time.Minute, "the group to apply every event", func() bool {
		return w.count(`SELECT sum(applied_count) FROM ledger.consumer_position`) >= int64(*benchEvents)
	})
	stopGroup()
	stopRelay()
	task := string(must(json.Marshal(childTask{URL: w.url, Brokers: w.brokers, TempDir: b.TempDir()}))(b))
	var seconds, peak float64
	b.ResetTimer()
	for range b.N {
		a := child(b, task)
		if want := int64(*benchEvents); !a.OK || a.Rows != want || a.Records != want || a.Applied != want {
			b.Fatalf("got %+v, want %d of each", a, want)
		}
		seconds += a.Seconds
		peak = max(peak, float64(a.Peak))
	}
	b.ReportMetric(float64(*benchEvents)*float64(b.N)/seconds, "events/s")
	b.ReportMetric(peak/(1<<20), "peak-MiB")
}

func child(b *testing.B, task string) childAnswer {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+task)
	cmd.Stderr = os.Stderr
	out := must(cmd.Output())(b)
	var a childAnswer
	check(b, json.Unmarshal(out, &a))
	return a
}

// bulk writes n events of n/2 orders, of a typical order's size.
func (w *world) bulk(n int) {
	w.t.Helper()
	row := must(outbox.Prepare(w.t.Context(), placed(order(0), 1)))(w.t)
	const batch = 100_000
	for from := 0; from < n; from += batch {
		w.exec(`
INSERT INTO outbox.events (event_id, aggregate_type, aggregate_id, aggregate_version, event_type, topic, schema_fp, payload, headers)
SELECT gen_random_uuid(), $1, '01890a5d-ac96-774b-bcce-' || lpad((i / 2)::text, 12, '0'), i % 2 + 1, $2, $3, $4, $5, $6
FROM generate_series($7::bigint, $8::bigint - 1) i`,
			row.AggregateType, row.EventType, row.Topic, row.SchemaFP, row.Payload, row.Headers, from, min(from+batch, n))
	}
}

// idleGroup passes events without decoding them: it has no handler of their
// type.
func (w *world) idleGroup() (stop func()) {
	w.t.Helper()
	db := must(pg.Open(w.t.Context(), pg.Config{URL: w.url, Schema: groupName, MaxConns: 8}))(w.t)
	w.t.Cleanup(db.Close)
	nothing := func(context.Context, pgx.Tx, *schemas.OrderCancelled) error { return nil }
	c := consumers.Consumer{Group: groupName, Handlers: []consumers.Handler{consumers.On(nothing)}}
	d := consumers.Deps{
		DB: db, Kafka: w.kafka(), Decoder: schemas.NewDecoder(w.registry), Log: testenv.Logger(w.t), Metrics: prometheus.NewRegistry(),
	}
	return w.begin(func(ctx context.Context) error { return c.Run(ctx, d) })
}
