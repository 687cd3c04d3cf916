package consumers

import (
	"fmt"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// cutPoint is where a proxy breaks a connection.
type cutPoint int

const (
	cutNever  cutPoint = iota
	cutBefore          // what the client sends next does not arrive
	cutAfter           // it arrives and is worked off, but the answer is lost
)

// proxy stands between a pool and Postgres and can reset a connection around
// one message of the client.
type proxy struct {
	listener net.Listener
	target   string

	mu    sync.Mutex // protects next, conns, cuts
	next  cutPoint
	conns []net.Conn
	cuts  int
}

// proxied returns the URL of a database behind a proxy.
func proxied(t testing.TB, address string) (string, *proxy) {
	t.Helper()
	u := must(url.Parse(address))(t)
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	p := &proxy{listener: l, target: u.Host}
	go p.serve()
	t.Cleanup(func() {
		_ = l.Close()
		p.reset()
	})
	u.Host = l.Addr().String()
	return u.String(), p
}

// arm cuts the connection whose client speaks next.
func (p *proxy) arm(at cutPoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = at
}

// reset ends every connection.
func (p *proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

func (p *proxy) disarm() cutPoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.next
	p.next = cutNever
	if at != cutNever {
		p.cuts++
	}
	return at
}

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		answers := &answerer{client: client}
		go answers.copy(server)
		go p.copy(server, client, answers)
	}
}

// copy carries what the client says, up to the cut.
func (p *proxy) copy(server, client net.Conn, answers *answerer) {
	defer client.Close()
	defer server.Close()
	buf := make([]byte, 1<<16)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		at := p.disarm()
		if at == cutBefore {
			return
		}
		heard := answers.swallow(at == cutAfter)
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
		if at == cutAfter {
			select {
			case <-heard:
			case <-time.After(5 * time.Second):
			}
			return
		}
	}
}

// answerer carries what the server says, or swallows it.
type answerer struct {
	client net.Conn
	mu     sync.Mutex    // protects heard
	heard  chan struct{} // non-nil: swallow, and close it at the first answer
}

func (a *answerer) swallow(yes bool) chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if yes {
		a.heard = make(chan struct{})
	}
	return a.heard
}

func (a *answerer) copy(server net.Conn) {
	buf := make([]byte, 1<<16)
	for {
		n, err := server.Read(buf)
		if err != nil {
			_ = a.client.Close()
			return
		}
		a.mu.Lock()
		heard := a.heard
		a.mu.Unlock()
		if heard != nil {
			close(heard)
			return
		}
		if _, err := a.client.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (c cutPoint) String() string { return fmt.Sprint([]string{"never", "before", "after"}[c]) }
