package orders

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"orderflow/internal/testenv"
)

// postTo sends the sample order to any server.
func postTo(url, key string) (*http.Response, error) {
	req, err := http.NewRequest("POST", url+"/v1/orders", strings.NewReader(sample))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentJSON)
	req.Header.Set("Idempotency-Key", key)
	res, err := http.DefaultClient.Do(req)
	if err == nil {
		_ = res.Body.Close()
	}
	return res, err
}

func TestAFullQueueIsAnsweredAtOnceAndTheQueuedAreWritten(t *testing.T) {
	t.Parallel()
	const room = 3
	cfg := Config{QueueOrders: room}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(cfg, Deps{DB: openPool(t, database(t), cfg.Conns()), Listener: l, Log: testenv.Logger(t), Metrics: prometheus.NewRegistry()})
	front := httptest.NewServer(s.Handler()) // no writer runs yet
	defer front.Close()

	var queued sync.WaitGroup
	for i := range room {
		queued.Go(func() {
			if res, err := postTo(front.URL, key(i)); err != nil || res.StatusCode != http.StatusCreated {
				t.Errorf("queued request %d: %v %v", i, res, err)
			}
		})
	}
	testenv.Wait(t, 10*time.Second, "the queue to fill", func() bool { return len(s.queue) == room })
	res, err := postTo(front.URL, key(99))
	if err != nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Fatalf("one too many: got %v %v", res, err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	queued.Wait()
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

func TestStoppingFinishesWhatIsQueued(t *testing.T) {
	t.Parallel()
	url := database(t)
	p := newProxy(t, url)
	h := startOn(t, p.url, Config{BatchOrders: 1})
	h.place(key(0))

	release := p.hold()
	var requests sync.WaitGroup
	const n = 20
	for i := range n {
		requests.Go(func() {
			if res, err := postTo(h.url, key(i+1)); err != nil || res.StatusCode != http.StatusCreated {
				t.Errorf("request %d: %v %v", i, res, err)
			}
		})
	}
	// One is being written, the others wait.
	testenv.Wait(t, 10*time.Second, "requests to queue", func() bool { return len(h.service.queue) == n-1 })
	stopped := make(chan struct{})
	go func() { h.stop(); close(stopped) }()
	<-h.service.stopping
	release()
	requests.Wait()
	<-stopped
	if _, err := postTo(h.url, key(100)); err == nil {
		t.Error("a request was taken after the service stopped")
	}
}

func TestAnOrderIsWrittenEvenIfItsClientGoesAway(t *testing.T) {
	t.Parallel()
	p := newProxy(t, database(t))
	h := startOn(t, p.url, Config{})
	h.place(key(99)) // it runs
	release := p.hold()
	ctx, leave := context.WithCancel(context.Background())
	var gone sync.WaitGroup
	for i := range 2 {
		gone.Go(func() {
			req, _ := http.NewRequestWithContext(ctx, "POST", h.url+"/v1/orders", strings.NewReader(sample))
			req.Header.Set("Content-Type", contentJSON)
			req.Header.Set("Idempotency-Key", key(i))
			if res, err := http.DefaultClient.Do(req); err == nil {
				_ = res.Body.Close()
				t.Error("an answer came while the database was held")
			}
		})
	}
	testenv.Wait(t, 10*time.Second, "one order at the writer and one behind it", func() bool { return len(h.service.queue) == 1 })
	leave()
	gone.Wait()
	release()
	testenv.Wait(t, 10*time.Second, "the orders to be written", func() bool { return h.count(`SELECT count(*) FROM orders.orders`) == 3 })
	if r := h.place(key(1)); r.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("repeated: got %d %v", r.status, r.header)
	}
}

func TestWhoWaitsBehindALostBatchIsNotMadeToWaitAgain(t *testing.T) {
	t.Parallel()
	p := newProxy(t, database(t))
	h := startOn(t, p.url, Config{Patience: 500 * time.Millisecond, BatchOrders: 1})
	h.place(key(0))
	p.close()
	begun := time.Now()
	var requests sync.WaitGroup
	for i := range 30 {
		requests.Go(func() {
			r, err := h.send("POST", "/v1/orders", strings.NewReader(sample), "Idempotency-Key", key(i+1))
			if err != nil || r.status != http.StatusServiceUnavailable {
				t.Errorf("request %d: %d %v", i, r.status, err)
			}
		})
	}
	requests.Wait()
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("30 requests waited %v for a database that is away", took)
	}
}

func TestNothingOfKafkaIsNeededToTakeOrders(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-f", `{{join .Imports "\n"}}`, ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, imported := range strings.Fields(string(out)) {
		for _, banned := range []string{"kafka", "franz-go", "srclient", "orderflow/producers", "orderflow/consumers"} {
			if strings.Contains(imported, banned) {
				t.Errorf("the service imports %s", imported)
			}
		}
	}
}

func TestConfigReportsEveryProblem(t *testing.T) {
	t.Parallel()
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("the zero Config: %v", err)
	}
	err := Config{Writers: -1, Streams: -1, KeyRetention: time.Hour, Patience: -1}.Validate()
	for _, want := range []string{"writers", "streams", "key retention", "patience"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not reported in %v", want, err)
		}
	}
	if got := fmt.Sprint(Config{}.Conns()); got != "17" {
		t.Errorf("a default Config wants %s connections", got)
	}
}
