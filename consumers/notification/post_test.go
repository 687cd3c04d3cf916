package notification

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wneessen/go-mail"
)

// clerk is an SMTP server that one can make misbehave. It answers each command
// by the first word, and 250 to what the answers do not name.
type clerk struct {
	addr    string
	dialled atomic.Int64
	mails   atomic.Int64

	mu      sync.Mutex
	answers map[string]string // protected by mu; an answer of "" hangs up
	conns   []net.Conn        // protected by mu
}

func newClerk(t *testing.T) *clerk {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &clerk{addr: l.Addr().String(), answers: map[string]string{}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.dialled.Add(1)
			c.mu.Lock()
			c.conns = append(c.conns, conn)
			c.mu.Unlock()
			serving.Go(func() { c.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		c.hangUp()
		serving.Wait()
	})
	return c
}

func (c *clerk) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

func (c *clerk) answer(command, with string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers[command] = with
}

func (c *clerk) serve(conn net.Conn) {
	defer conn.Close()
	fmt.Fprint(conn, "220 clerk\r\n")
	in := bufio.NewScanner(conn)
	for body := false; in.Scan(); {
		command, _, _ := strings.Cut(in.Text(), " ")
		if body {
			if command != "." {
				continue
			}
			body = false
			c.mails.Add(1)
		}
		c.mu.Lock()
		answer, ok := c.answers[command]
		c.mu.Unlock()
		switch {
		case ok && answer == "":
			return
		case ok:
		case command == "DATA":
			answer, body = "354 go on", true
		default:
			answer = "250 2.0.0 fine"
		}
		fmt.Fprint(conn, answer+"\r\n")
	}
}

func testPost(t *testing.T, addr string, connections int) *post {
	t.Helper()
	p := newPost(Config{SMTPAddr: addr, Connections: connections, SendTimeout: 5 * time.Second}.withDefaults())
	t.Cleanup(p.close)
	return p
}

func testMail(t *testing.T) *mail.Msg {
	t.Helper()
	p, err := newPress(Config{}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	l := &letter{mailJob: mailJob{Order: "o1", Number: 1}, template: orderReceived, key: "notification/1/x", customer: "17850"}
	m, err := p.compose(l)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestConnectionsAreKeptOpenAndBounded(t *testing.T) {
	t.Parallel()
	c := newClerk(t)
	p := testPost(t, c.addr, 3)
	var sending sync.WaitGroup
	for range 12 {
		sending.Go(func() {
			for range 5 {
				if err := p.send(context.Background(), testMail(t)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	sending.Wait()
	if c.mails.Load() != 60 || c.dialled.Load() > 3 {
		t.Errorf("sent %d mails over %d connections, want 60 over 3 at most", c.mails.Load(), c.dialled.Load())
	}
}

func TestStaleConnectionIsReplacedWithoutAFailure(t *testing.T) {
	t.Parallel()
	c := newClerk(t)
	p := testPost(t, c.addr, 1)
	for range 3 {
		if err := p.send(t.Context(), testMail(t)); err != nil {
			t.Fatal(err)
		}
		c.hangUp()
	}
	if c.mails.Load() != 3 || c.dialled.Load() != 3 {
		t.Errorf("sent %d mails over %d connections, want 3 over 3", c.mails.Load(), c.dialled.Load())
	}
}

func TestOldConnectionIsNotUsedAgain(t *testing.T) {
	t.Parallel()
	c := newClerk(t)
	p := testPost(t, c.addr, 1)
	if err := p.send(t.Context(), testMail(t)); err != nil {
		t.Fatal(err)
	}
	l := <-p.idle
	l.used = time.Now().Add(-idleLimit)
	p.idle <- l
	if err := p.send(t.Context(), testMail(t)); err != nil {
		t.Fatal(err)
	}
	if c.dialled.Load() != 2 {
		t.Errorf("dialled %d times, want 2", c.dialled.Load())
	}
}

func TestAnswersOfTheServer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		command, answer string
		refused         bool // with an answer
		final           bool
		kept            bool // the connection
	}{
		{"RCPT", "550 5.1.1 <ada@example.com> unknown", true, true, true},
		{"RCPT", "452 4.2.2 mailbox of ada@example.com full", true, false, true},
		{"MAIL", "530 5.7.0 log in first", true, false, true},
		{"MAIL", "550 5.7.1 you are blocked", true, true, true},
		{"DATA", "554 5.6.0 no", true, true, true},
		{".", "552 5.3.4 too large", true, true, true},
		{".", "451 4.3.0 later", true, false, true},
		{".", "421 4.3.2 closing", true, false, false},
		{"MAIL", "", false, false, false},
		{".", "", false, false, false},
	} {
		t.Run(c.command+" "+c.answer, func(t *testing.T) {
			t.Parallel()
			server := newClerk(t)
			server.answer(c.command, c.answer)
			p := testPost(t, server.addr, 1)
			err := p.send(t.Context(), testMail(t))
			var r *refusal
			if err == nil || errors.As(err, &r) != c.refused || c.refused && r.final() != c.final {
				t.Errorf("got %v, want refused %t, final %t", err, c.refused, c.final)
			}
			if err != nil && strings.Contains(err.Error(), "@") {
				t.Errorf("error %q holds an address", err)
			}
			if kept := len(p.idle) == 1; kept != c.kept {
				t.Errorf("kept the connection: %t, want %t", kept, c.kept)
			}
		})
	}
}

func TestSilentServerIsLeftWhenTheContextEnds(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never says a word
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := testPost(t, l.Addr().String(), 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := p.send(ctx, testMail(t)); err == nil {
		t.Error("a silent server took the mail")
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("waited %s for a silent server", took)
	}
}

func TestLoginNeverGoesInTheClear(t *testing.T) {
	t.Parallel()
	c := newClerk(t)
	c.answer("EHLO", "250-clerk\r\n250 AUTH PLAIN LOGIN")
	c.answer("AUTH", "235 2.7.0 welcome")
	p := newPost(Config{SMTPAddr: c.addr, Username: "shop", Password: "secret"}.withDefaults())
	err := p.send(t.Context(), testMail(t))
	if err == nil || c.mails.Load() != 0 {
		t.Errorf("sent %d mails with a login over a connection without TLS", c.mails.Load())
	}
	if err != nil && strings.Contains(err.Error(), "secret") {
		t.Errorf("error %q holds the password", err)
	}
}

func TestConfigReportsEveryProblem(t *testing.T) {
	t.Parallel()
	if err := (Config{SMTPAddr: "localhost:25"}).Validate(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
	bad := Config{SMTPAddr: "localhost", From: "nobody", Username: "shop", TLS: "perhaps", Connections: 1000, SendTimeout: time.Hour}
	err := bad.Validate()
	for _, part := range []string{"SMTP server", "sender", "SMTP login", "SMTP TLS", "SMTP connections", "send timeout"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want a word about %q", err, part)
		}
	}
}
