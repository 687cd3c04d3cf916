// Package mailsink is an SMTP server for development: it takes every mail and
// keeps it as a file that one can read, and sends nothing on. A mail's file is
// named by its Message-ID, so a mail that is sent again, as after a crash, is
// still one file.
package mailsink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"
)

const (
	defaultAddr     = "127.0.0.1:0"
	defaultMaxBytes = 256 << 10
	maxSessions     = 32 // times MaxBytes bounds the memory
	maxRecipients   = 10
	idleTimeout     = time.Minute
	suffix          = ".eml"
)

// Config says where a sink listens and keeps what it takes.
type Config struct {
	// Dir holds the mails, one file each. It is made if it is missing.
	Dir string
	// Addr is where to listen. Empty means a free port on 127.0.0.1.
	Addr string
	// MaxBytes bounds one mail. Zero means 256 KiB.
	MaxBytes int64
	// Refuse, if set, is asked about each recipient; its error is the
	// server's answer. An *smtp.SMTPError chooses the code, any other error
	// is a temporary failure.
	Refuse func(recipient string) error
	// Log receives what goes wrong. Nil discards it.
	Log *slog.Logger
}

// Sink is a server that runs from Start to Close.
type Sink struct {
	cfg      Config
	addr     string
	close    func() error
	sessions atomic.Int64
	received atomic.Int64

	mu     sync.Mutex // one mail is written at a time
	count  int        // protected by mu; files in Dir
	closed bool       // protected by mu; no file is written any more
}

// Start listens and serves until Close. Mails of an earlier run in the same
// directory count.
func Start(ctx context.Context, c Config) (*Sink, error) {
	if c.Addr == "" {
		c.Addr = defaultAddr
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = defaultMaxBytes
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	count, err := prepare(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("start mail sink: %w", err)
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", c.Addr)
	if err != nil {
		return nil, fmt.Errorf("start mail sink: %w", err)
	}
	s := &Sink{cfg: c, addr: listener.Addr().String(), count: count}
	server, served := s.newServer(), make(chan error, 1)
	go func() { served <- server.Serve(listener) }() // ends when Close ends the server, and is waited for there
	s.close = sync.OnceValue(func() error {
		err := server.Close()
		_ = listener.Close() // the server closes it too, unless it was too young to know it
		s.stopWriting()
		return errors.Join(err, <-served)
	})
	return s, nil
}

func (s *Sink) newServer() *smtp.Server {
	srv := smtp.NewServer(smtp.BackendFunc(s.newSession))
	srv.Domain = "localhost"
	srv.MaxMessageBytes = s.cfg.MaxBytes
	srv.MaxRecipients = maxRecipients
	srv.ReadTimeout = idleTimeout
	srv.WriteTimeout = idleTimeout
	srv.ErrorLog = serverLog{s.cfg.Log}
	return srv
}

// prepare counts the mails that are there, and removes what a crash left half
// written.
func prepare(dir string) (int, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	count := 0
	for _, e := range entries {
		switch name := e.Name(); {
		case strings.HasPrefix(name, incoming):
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return 0, err
			}
		case strings.HasSuffix(name, suffix):
			count++
		}
	}
	return count, nil
}

// Addr is where the sink listens, host:port.
func (s *Sink) Addr() string { return s.addr }

// Count is the number of mails in the directory: each Message-ID once.
func (s *Sink) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// Received is how often a mail was taken since Start, one that came again
// included.
func (s *Sink) Received() int64 { return s.received.Load() }

// Close stops the server and cuts off who is connected. When it returns, no
// file is written any more.
func (s *Sink) Close() error { return s.close() }

func (s *Sink) stopWriting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// serverLog passes on what the SMTP library complains about.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Printf(format string, args ...any) {
	l.log.Warn("mail sink reports", "report", fmt.Sprintf(format, args...))
}

func (l serverLog) Println(args ...any) {
	l.log.Warn("mail sink reports", "report", strings.TrimSpace(fmt.Sprintln(args...)))
}

// session is one connection's dialogue.
type session struct{ sink *Sink }

var errBusy = &smtp.SMTPError{Code: 421, EnhancedCode: smtp.EnhancedCode{4, 3, 2}, Message: "Too many connections"}

func (s *Sink) newSession(*smtp.Conn) (smtp.Session, error) {
	if s.sessions.Add(1) > maxSessions {
		s.sessions.Add(-1)
		return nil, errBusy
	}
	return session{s}, nil
}

func (session) Mail(string, *smtp.MailOptions) error { return nil }

func (n session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if n.sink.cfg.Refuse == nil {
		return nil
	}
	return n.sink.cfg.Refuse(to)
}

func (n session) Data(r io.Reader) error {
	mail, err := io.ReadAll(r) // the server ends it at MaxBytes
	if err != nil {
		return err
	}
	if err := n.sink.keep(mail); err != nil {
		n.sink.cfg.Log.Error("keep mail", "error", err)
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "Cannot keep the mail now"}
	}
	return nil
}

func (session) Reset() {}

func (n session) Logout() error {
	n.sink.sessions.Add(-1)
	return nil
}
