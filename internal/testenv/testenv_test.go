package testenv

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestMain(m *testing.M) { Main(m) }

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func queryText(t *testing.T, url, sql string) string {
	t.Helper()
	var got string
	if err := connect(t, url).QueryRow(t.Context(), sql).Scan(&got); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestEachTestHasADatabaseOfItsOwnFromOneTemplate(t *testing.T) {
	t.Parallel()
	var prepared atomic.Int64
	var names sync.Map
	template := Template("notes", func(ctx context.Context, url string) error {
		prepared.Add(1)
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		_, err = conn.Exec(ctx, "CREATE TABLE notes (text text); INSERT INTO notes VALUES ('from the template')")
		return err
	})
	t.Run("group", func(t *testing.T) {
		for i := range 4 {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				url := Postgres(t, template)
				if _, err := connect(t, url).Exec(t.Context(), "INSERT INTO notes VALUES ('our own')"); err != nil {
					t.Fatal(err)
				}
				names.Store(queryText(t, url, "SELECT current_database()::text"), nil)
				if got := queryText(t, url, "SELECT count(*)::text FROM notes"); got != "2" {
					t.Errorf("got %s notes, want the template's and our own", got)
				}
			})
		}
	})
	if prepared.Load() != 1 {
		t.Errorf("template was filled %d times, want once", prepared.Load())
	}
	url := Postgres(t)
	names.Range(func(name, _ any) bool {
		if got := queryText(t, url, fmt.Sprintf("SELECT count(*)::text FROM pg_database WHERE datname = '%s'", name)); got != "0" {
			t.Errorf("database %s is there after its test", name)
		}
		return true
	})
}

func TestOnlyDurableServersSync(t *testing.T) {
	t.Parallel()
	if os.Getenv("TEST_DATABASE_URL") != "" {
		t.Skip("the server is not ours")
	}
	if got := queryText(t, Postgres(t), "SHOW fsync"); got != "off" {
		t.Errorf("ordinary server has fsync = %s, want off", got)
	}
	if got := queryText(t, Postgres(t, Durable()), "SHOW fsync"); got != "on" {
		t.Errorf("durable server has fsync = %s, want on", got)
	}
}

// TestHoldADatabase is what the tests below run in another process.
func TestHoldADatabase(t *testing.T) {
	if os.Getenv("ORDERFLOW_TEST_HOLD") == "" {
		t.Skip("a part of other tests")
	}
	fmt.Println("holding", Postgres(t))
	if os.Getenv("ORDERFLOW_TEST_HOLD") == "for ever" {
		select {}
	}
}

func TestNothingIsLeftOfAKilledTestProcess(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	if err := os.Chmod(temp, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(temp), 0o711); err != nil {
		t.Fatal(err)
	}
	holder := startProcess(t, os.Args[0], []string{"-test.run=^TestHoldADatabase$"},
		[]string{"ORDERFLOW_TEST_HOLD=for ever", "TMPDIR=" + temp, "TEST_DATABASE_URL="})
	Wait(t, time.Minute, "the other process to hold a database", func() bool { return strings.Contains(holder.Stdout(), "holding") })
	if left, err := os.ReadDir(temp); err != nil || len(left) == 0 {
		t.Fatalf("the other process keeps its server elsewhere: %v, %v", left, err)
	}
	holder.Kill()
	Wait(t, 30*time.Second, "its files to go", func() bool {
		left, err := os.ReadDir(temp)
		return err == nil && len(left) == 0
	})
}

func TestDatabasesOfDeadTestProcessesAreDropped(t *testing.T) {
	t.Parallel()
	server := PostgresProcess(t)
	now := time.Now().Unix() / 60
	stale, young := fmt.Sprintf("orderflow_test_%d_1_1", now-300), fmt.Sprintf("orderflow_test_%d_1_1", now-10)
	for _, name := range []string{stale, young} {
		if _, err := connect(t, server.URL()).Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
			t.Fatal(err)
		}
	}
	holder := startProcess(t, os.Args[0], []string{"-test.run=^TestHoldADatabase$"},
		[]string{"ORDERFLOW_TEST_HOLD=shortly", "TEST_DATABASE_URL=" + server.URL()})
	if code := holder.Wait(time.Minute); code != 0 {
		t.Fatalf("the other process ended with %d: %s", code, holder.Stdout())
	}
	got := queryText(t, server.URL(), "SELECT string_agg(datname, ' ') FROM pg_database WHERE datname LIKE 'orderflow_test%'")
	if got != young {
		t.Errorf("server has %q, want only %q, of a test process that may still run", got, young)
	}
}

func TestAServerOfOnesOwnComesBackWithItsData(t *testing.T) {
	t.Parallel()
	server := PostgresProcess(t)
	if _, err := connect(t, server.URL()).Exec(t.Context(), "CREATE TABLE notes AS SELECT 'kept' AS text"); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	server.Start()
	if got := queryText(t, server.URL(), "SELECT text FROM notes"); got != "kept" {
		t.Errorf("got %q", got)
	}
	server.Stop()
	if _, err := pgx.Connect(t.Context(), server.URL()); err == nil {
		t.Error("a stopped server takes connections")
	}
	server.Start()
	if got := queryText(t, server.URL(), "SELECT text FROM notes"); got != "kept" {
		t.Errorf("got %q", got)
	}
}

func kafkaClient(t *testing.T, addrs []string) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.DefaultProduceTopic("orders"), kgo.DisableClientMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// TestEachTestHasABrokerOfItsOwn holds for embedded brokers and for a shared real one: everybody finds it empty.
func TestEachTestHasABrokerOfItsOwn(t *testing.T) {
	t.Parallel()
	for i := range 3 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			adm := kadm.NewClient(kafkaClient(t, Kafka(t)))
			topics, err := adm.ListTopics(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			groups, err := adm.ListGroups(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(topics)+len(groups) > 0 {
				t.Fatalf("broker has topics %v and groups %v", topics.Names(), groups.Groups())
			}
			if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, "orders"); err != nil {
				t.Fatal(err)
			}
			var offsets kadm.Offsets
			offsets.AddOffset("orders", 0, 3, -1)
			if err := adm.CommitAllOffsets(t.Context(), "seller", offsets); err != nil {
				t.Fatal(err)
			}
			t.Run("a part of the test", func(t *testing.T) {
				topics, err := kadm.NewClient(kafkaClient(t, Kafka(t))).ListTopics(t.Context())
				if RealKafka() && (err != nil || !topics.Has("orders")) {
					t.Errorf("a subtest sees %v, %v, want its parent's topic", topics.Names(), err)
				}
			})
		})
	}
}

func TestABrokerComesBackWithItsRecords(t *testing.T) {
	t.Parallel()
	broker := BrokerProcess(t)
	cl := kafkaClient(t, broker.Addrs())
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord("x")).FirstErr(); err != nil {
			t.Fatal(err)
		}
		broker.Kill()
		broker.Start()
	}
	ends, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	if end, _ := ends.Lookup("orders", 0); end.Offset != 2 {
		t.Errorf("topic ends at %d, want 2", end.Offset)
	}
}

func TestTestsNeverWipeABrokerElsewhere(t *testing.T) {
	for addr, fine := range map[string]bool{
		"127.0.0.1:9092": true, "localhost:9092": true, "[::1]:9092": true,
		"10.0.0.7:9092": false, "kafka.example.com:9092": false, "127.0.0.1:9092,kafka.example.com:9092": false, "localhost": false,
	} {
		if err := mayWipe(strings.Split(addr, ",")); (err == nil) != fine {
			t.Errorf("%s: got %v, want fine = %t", addr, err, fine)
		}
	}
	t.Setenv("ORDERFLOW_TEST_KAFKA_WIPE", "1")
	if err := mayWipe([]string{"kafka.example.com:9092"}); err != nil {
		t.Error(err)
	}
}

func TestAProcessCanBeFrozenWokenStoppedAndKilled(t *testing.T) {
	t.Parallel()
	const script = `trap 'echo stopping >&2; exit 7' TERM; n=0; while :; do n=$((n+1)); echo $n; sleep 0.02; done`
	p := startProcess(t, "/bin/sh", []string{"-c", script}, nil)
	lines := func() int { return strings.Count(p.Stdout(), "\n") }
	Wait(t, 10*time.Second, "output", func() bool { return lines() > 2 })
	p.Freeze()
	Wait(t, 10*time.Second, "the process to stand still", func() bool {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid()))
		return err != nil || strings.Contains(string(state), ") T ")
	})
	frozen := lines()
	p.Wake()
	Wait(t, 10*time.Second, "the process to go on", func() bool { return lines() > frozen+2 })
	if code := p.Stop(10 * time.Second); code != 7 || !strings.Contains(p.Stderr(), "stopping") {
		t.Errorf("process ended with %d and wrote %q, want 7 and its last word", code, p.Stderr())
	}
	if !p.Ended() {
		t.Error("process is said to run")
	}
	killed := startProcess(t, "/bin/sh", []string{"-c", script}, nil)
	killed.Kill()
	if code := killed.Wait(time.Second); code != -1 {
		t.Errorf("killed process ended with %d, want -1", code)
	}
	if err := syscall.Kill(killed.Pid(), 0); err == nil {
		t.Error("killed process is still there")
	}
}

func TestARegistryGoesAndComesBack(t *testing.T) {
	t.Parallel()
	r := StoppableRegistry(t)
	url := r.URL()
	r.Stop()
	r.Start()
	if r.URL() != url {
		t.Errorf("address is %s, was %s", r.URL(), url)
	}
}

// failing is a test that notes its failure.
type failing struct {
	testing.TB
	message string
}

func (f *failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.message = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestWaitFailsWithWhatItWaitedFor(t *testing.T) {
	t.Parallel()
	f := &failing{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		Wait(f, 30*time.Millisecond, "the moon", func() bool { return false })
	}()
	<-done
	if !strings.Contains(f.message, "the moon") || !strings.Contains(f.message, "30ms") {
		t.Errorf("got %q", f.message)
	}
	asked := 0
	Wait(t, 10*time.Second, "the third question", func() bool { asked++; return asked == 3 })
}
