package orders

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"orderflow/internal/testenv"
)

// result is one line of an ingest's answer.
type result struct {
	Line     int
	Status   int
	OrderID  string `json:"order_id"`
	Version  int
	Replayed bool
	Problem  *problem
	Summary  *struct{ Accepted, Replayed, Rejected int }
}

func results(t testing.TB, lines []string) []result {
	t.Helper()
	all := make([]result, len(lines))
	for i, line := range lines {
		if err := json.Unmarshal([]byte(line), &all[i]); err != nil {
			t.Fatalf("line %d %q: %v", i+1, line, err)
		}
	}
	return all
}

func bulkLines(prefix string, n int) []string {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = bulkLine(fmt.Sprintf("%s-%d", prefix, i))
	}
	return lines
}

func TestAStreamCanBeSentAgain(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	const n = 2300 // three batches
	lines := bulkLines("again", n)
	first := results(t, h.ingest(lines...))
	second := results(t, h.ingest(lines...))
	for i := range n {
		a, b := first[i], second[i]
		if a.Line != i+1 || a.Status != 201 || a.Version != 1 || a.Replayed {
			t.Fatalf("line %d: got %+v", i+1, a)
		}
		if b.Line != i+1 || b.Status != 200 || b.OrderID != a.OrderID || b.Version != 1 || !b.Replayed {
			t.Fatalf("line %d again: got %+v after %+v", i+1, b, a)
		}
	}
	if s := first[n].Summary; s == nil || s.Accepted != n || s.Replayed+s.Rejected != 0 {
		t.Errorf("summary: got %+v", s)
	}
	if s := second[n].Summary; s == nil || s.Replayed != n || s.Accepted+s.Rejected != 0 {
		t.Errorf("second summary: got %+v", s)
	}
	if o, e := h.count(`SELECT count(*) FROM orders.orders`), h.count(`SELECT count(*) FROM outbox.events`); o != n || e != n {
		t.Errorf("%d orders and %d events, want %d", o, e, n)
	}
}

func TestOneKeyIsOneOrderThroughEitherDoor(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	id := results(t, h.ingest(bulkLine(key(1))))[0].OrderID
	r := h.place(key(1))
	if r.header.Get("Idempotency-Replayed") != "true" || orderIDIn(t, r.body) != id {
		t.Errorf("placed singly: got %d %s, want order %s", r.status, r.body, id)
	}
	other := strings.Replace(bulkLine(key(1)), `"quantity":6`, `"quantity":7`, 1)
	got := results(t, h.ingest(bulkLine(key(1)), other, bulkLine("twice"), bulkLine("twice")))
	if !got[0].Replayed || got[1].Problem == nil || got[1].Problem.Code != codeKeyReused || !got[3].Replayed || got[3].OrderID != got[2].OrderID {
		t.Errorf("got %+v", got)
	}
}

func TestBlankAndLongLinesCount(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	got := results(t, h.ingest(bulkLine("a"), "", "  \r", strings.Repeat("x", maxLine+1), bulkLine("b"), strings.Repeat("y", 3*maxLine), bulkLine("c")))
	var lines []string
	for _, r := range got[:len(got)-1] {
		lines = append(lines, fmt.Sprint(r.Line, r.Status))
	}
	if diff := cmp.Diff([]string{"1 201", "4 413", "5 201", "6 413", "7 201"}, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAStreamMayBeCompressed(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write([]byte(strings.Join(bulkLines("z", 50), "\n"))) // and no line feed at the end
	_ = z.Close()
	header := []string{"Content-Type", "application/jsonl", "Content-Encoding", "gzip"}
	r := h.do("POST", "/v1/orders:ingest", zipped.String(), header...)
	if got := results(t, strings.Split(strings.TrimSpace(r.body), "\n")); len(got) != 51 || got[50].Summary.Accepted != 50 {
		t.Errorf("got %s", r.body)
	}
	if r := h.do("POST", "/v1/orders:ingest", "not gzip at all", header...); r.status != http.StatusBadRequest {
		t.Errorf("no gzip: got %d", r.status)
	}
	r = h.do("POST", "/v1/orders:ingest", zipped.String()[:zipped.Len()-20], header...)
	got := results(t, strings.Split(strings.TrimSpace(r.body), "\n"))
	if last := got[len(got)-1]; last.Problem == nil || last.Problem.Code != codeBodyUnreadable || last.Summary != nil {
		t.Errorf("cut off: the last line is %+v", last)
	}
}

// talk opens an ingest whose body is written by hand.
func (h *harness) talk(header ...string) (send *io.PipeWriter, receive *bufio.Reader, hangUp func()) {
	h.t.Helper()
	r, w := io.Pipe()
	req, err := http.NewRequest("POST", h.url+"/v1/orders:ingest", r)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	transport := &http.Transport{}
	res, err := transport.RoundTrip(req)
	if err != nil {
		h.t.Fatal(err)
	}
	hangUp = func() { _ = w.Close(); _ = res.Body.Close(); transport.CloseIdleConnections() }
	h.t.Cleanup(hangUp)
	return w, bufio.NewReader(res.Body), hangUp
}

func TestEachLineIsAnsweredBeforeTheNextIsSent(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	send, receive, _ := h.talk()
	for i := range 20 {
		if _, err := fmt.Fprintln(send, bulkLine(fmt.Sprint("talk-", i))); err != nil {
			t.Fatal(err)
		}
		line, err := receive.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if r := results(t, []string{line})[0]; r.Line != i+1 || r.Status != 201 {
			t.Fatalf("line %d: got %s", i+1, line)
		}
	}
	_ = send.Close()
	if rest, err := io.ReadAll(receive); err != nil || !strings.Contains(string(rest), `"accepted":20`) {
		t.Errorf("end: got %q %v", rest, err)
	}
}

// TestAClientMaySendEverythingBeforeItReads speaks plain TCP with small
// buffers: were results not put aside, both sides would wait for ever.
func TestAClientMaySendEverythingBeforeItReads(t *testing.T) {
	t.Parallel()
	h := start(t, Config{SpoolDir: t.TempDir()})
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetReadBuffer(128 << 10)
	_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
	const n = 60_000
	const line = "{}\n" // each result is a hundred times as long
	fmt.Fprintf(conn, "POST /v1/orders:ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n", n*len(line))
	if _, err := conn.Write([]byte(strings.Repeat(line, n))); err != nil {
		t.Fatalf("send everything: %v", err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	lines, last := 0, ""
	for scan := bufio.NewScanner(res.Body); scan.Scan(); lines++ {
		last = scan.Text()
	}
	if want := fmt.Sprintf(`{"summary":{"accepted":0,"replayed":0,"rejected":%d}}`, n); lines != n+1 || last != want {
		t.Errorf("got %d lines, the last %s", lines, last)
	}
	if left, err := os.ReadDir(h.service.cfg.SpoolDir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestAStreamCutInTheMiddleKeepsItsWholeLines(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	lines := bulkLines("cut", 30)
	// The last line is whole JSON already, but more of it might have followed.
	body := strings.Join(lines, "\n")
	fmt.Fprintf(conn, "POST /v1/orders:ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n%s", len(body)+1000, body)
	testenv.Wait(t, 20*time.Second, "the whole lines to be written", func() bool { return h.count(`SELECT count(*) FROM orders.orders`) == 29 })
	_ = conn.Close()
	testenv.Wait(t, 20*time.Second, "the stream to end", func() bool { return len(h.service.streams) == 0 })
	got := results(t, h.ingest(lines...))
	if s := got[30].Summary; s == nil || s.Replayed != 29 || s.Accepted != 1 {
		t.Errorf("sent again: got %+v", s)
	}
}

func TestAnIdleStreamIsEnded(t *testing.T) {
	t.Parallel()
	h := start(t, Config{StreamIdle: 300 * time.Millisecond})
	send, receive, _ := h.talk()
	fmt.Fprintln(send, bulkLine("idle"))
	all, err := io.ReadAll(receive)
	if err != nil {
		t.Fatal(err)
	}
	got := results(t, strings.Split(strings.TrimSpace(string(all)), "\n"))
	if len(got) != 2 || got[0].Status != 201 || got[1].Problem == nil || got[1].Problem.Code != codeBodyUnreadable {
		t.Errorf("got %s", all)
	}
}

func TestStoppingEndsAStreamAfterWhatWasRead(t *testing.T) {
	t.Parallel()
	h := start(t, Config{})
	send, receive, _ := h.talk()
	for i := range 10 {
		fmt.Fprintln(send, bulkLine(fmt.Sprint("stop-", i)))
	}
	if _, err := receive.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	go h.stop()
	rest, err := io.ReadAll(receive)
	if err != nil {
		t.Fatal(err)
	}
	got := results(t, strings.Split(strings.TrimSpace(string(rest)), "\n"))
	if last := got[len(got)-1]; last.Problem == nil || last.Problem.Code != codeStopping {
		t.Errorf("the last line is %+v", last)
	}
	if n := h.count(`SELECT count(*) FROM orders.orders`); n != len(got) { // the first result and the last line cancel out
		t.Errorf("%d orders, %d results", n, len(got))
	}
}

func TestOneStreamTooManyIsRefused(t *testing.T) {
	t.Parallel()
	h := start(t, Config{Streams: 1})
	_, _, hangUp := h.talk()
	r := h.do("POST", "/v1/orders:ingest", bulkLine("x"), "Content-Type", "application/x-ndjson")
	if p := problemIn(t, r); r.status != http.StatusServiceUnavailable || p.Code != codeTooManyStreams {
		t.Errorf("got %d %s", r.status, r.body)
	}
	hangUp()
	testenv.Wait(t, 10*time.Second, "the stream to end", func() bool { return len(h.service.streams) == 0 })
	h.ingest(bulkLine("x"))
}

func TestADatabaseLostDuringAStreamEndsItHonestly(t *testing.T) {
	t.Parallel()
	p := newProxy(t, database(t))
	h := startOn(t, p.url, Config{Patience: 300 * time.Millisecond})
	send, receive, _ := h.talk()
	fmt.Fprintln(send, bulkLine("before"))
	if line, err := receive.ReadString('\n'); err != nil || !strings.Contains(line, "201") {
		t.Fatalf("got %q %v", line, err)
	}
	p.close()
	fmt.Fprintln(send, bulkLine("after"))
	rest, err := io.ReadAll(receive)
	if err != nil {
		t.Fatal(err)
	}
	got := results(t, strings.Split(strings.TrimSpace(string(rest)), "\n"))
	if len(got) != 2 || got[0].Status != 503 || got[1].Problem == nil || got[1].Problem.Code != codeUnavailable {
		t.Errorf("got %s", rest)
	}
}
