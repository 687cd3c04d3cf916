package orders

import (
	"bytes"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy stands between a pool and Postgres and can lose a connection at the
// worst moment.
type proxy struct {
	url    string
	target string
	l      net.Listener
	gate   sync.RWMutex // held for writing while nothing may pass

	mu    sync.Mutex
	armed bool       // protected by mu; cut at the next COMMIT
	after bool       // protected by mu; let it reach the server first
	cut   bool       // protected by mu
	conns []net.Conn // protected by mu
}

func newProxy(t *testing.T, databaseURL string) *proxy {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{target: u.Host, l: l}
	u.Host = l.Addr().String()
	p.url = u.String()
	t.Cleanup(p.close)
	go p.accept()
	return p
}

func (p *proxy) accept() {
	for {
		client, err := p.l.Accept()
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
		mute := new(atomic.Bool)
		go p.answers(client, server, mute)
		go p.requests(client, server, mute)
	}
}

// close ends every connection and takes no new one.
func (p *proxy) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.l.Close()
	for _, c := range p.conns {
		_ = c.Close()
	}
}

// hold keeps what is sent to the server until the returned function is called.
func (p *proxy) hold() (release func()) {
	p.gate.Lock()
	return p.gate.Unlock
}

// cutAtCommit loses the connection that commits next: after the server has
// the commit and before its answer comes back, or before the server has it.
func (p *proxy) cutAtCommit(after bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed, p.after = true, after
}

func (p *proxy) wasCut() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut
}

// requests passes on what the client sends. A batch ends with the prepared
// statement that commits, or with a plain COMMIT after a COPY.
func (p *proxy) requests(client, server net.Conn, mute *atomic.Bool) {
	defer client.Close()
	defer server.Close()
	buf := make([]byte, 1<<20)
	var tail []byte // of the chunk before, in case the name is split
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		p.gate.RLock()
		p.gate.RUnlock() //nolint:staticcheck // waits while the gate is shut, and holds nothing
		seen := append(tail, buf[:n]...)
		cut, after := p.commits(seen)
		if cut && !after {
			return
		}
		// From here on the client hears nothing more, but the server finishes.
		mute.Store(cut)
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
		tail = append([]byte(nil), seen[max(0, len(seen)-len(stmtCommit)):]...)
	}
}

func (p *proxy) commits(sent []byte) (cut, after bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	cut = p.armed && (bytes.Contains(sent, []byte(stmtCommit+"\x00")) || bytes.Contains(sent, []byte("COMMIT\x00")))
	if cut {
		p.armed, p.cut = false, true
	}
	return cut, p.after
}

// answers passes on what the server sends. What it sends after a commit shows
// that the commit is done: only then does the client lose its connection.
func (p *proxy) answers(client, server net.Conn, mute *atomic.Bool) {
	defer client.Close()
	defer server.Close()
	buf := make([]byte, 1<<16)
	for {
		n, err := server.Read(buf)
		if err != nil || mute.Load() {
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}
