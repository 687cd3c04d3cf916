package notification

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"
)

const (
	// idleLimit is the age from which a connection is not used again; servers
	// hang up on silent ones after a minute and more.
	idleLimit = 30 * time.Second
	hangUp    = 421 // the server closes the connection
)

// post keeps connections to the SMTP server open and sends mails over them,
// as many at once as there are connections. It is safe for concurrent use.
type post struct {
	cfg  Config
	idle chan *line    // bounded by cfg.Connections
	room chan struct{} // one token for each connection that may be in use
}

func newPost(c Config) *post {
	return &post{cfg: c, idle: make(chan *line, c.Connections), room: make(chan struct{}, c.Connections)}
}

// close hangs up all connections. Nobody may send any more.
func (p *post) close() {
	for {
		select {
		case l := <-p.idle:
			_ = l.smtp.Quit() // good manners; the connection is closed either way
			l.conn.Close()
		default:
			return
		}
	}
}

// send returns nil when the server has the mail, a refusal when it answered
// no, and any other error when there was no answer.
func (p *post) send(ctx context.Context, m *mail.Msg) error {
	select {
	case p.room <- struct{}{}:
		defer func() { <-p.room }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if l := p.take(); l != nil {
		err := p.sendOver(ctx, l, m)
		if !errors.Is(err, errStale) {
			return err
		}
	}
	l, err := p.dial(ctx)
	if err != nil {
		return fmt.Errorf("reach SMTP server: %w", err)
	}
	return p.sendOver(ctx, l, m)
}

// take returns an open connection, or nil when there is none that is young.
func (p *post) take() *line {
	for {
		select {
		case l := <-p.idle:
			if time.Since(l.used) < idleLimit {
				return l
			}
			l.conn.Close()
		default:
			return nil
		}
	}
}

// line is one connection to the server.
type line struct {
	client *mail.Client
	smtp   *smtp.Client
	conn   net.Conn
	used   time.Time
	worn   bool // it has sent a mail before
}

// dial connects and logs in. The library heeds ctx only until the connection
// stands, so the end of ctx closes it.
func (p *post) dial(ctx context.Context) (*line, error) {
	l := &line{}
	stop := func() bool { return true }
	client, err := p.newClient(func(dctx context.Context, network, address string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(dctx, network, address)
		if err == nil {
			l.conn = conn
			stop = context.AfterFunc(ctx, func() { conn.Close() })
		}
		return conn, err
	})
	if err != nil {
		return nil, err
	}
	l.client = client
	l.smtp, err = client.DialToSMTPClientWithContext(ctx)
	if !stop() {
		return nil, ctx.Err()
	}
	if err != nil && l.conn != nil {
		l.conn.Close()
	}
	return l, err
}

func (p *post) newClient(dial mail.DialContextFunc) (*mail.Client, error) {
	host, port, err := p.cfg.server()
	if err != nil {
		return nil, err
	}
	opts := []mail.Option{
		mail.WithPort(port), mail.WithTimeout(p.cfg.SendTimeout), mail.WithTLSPolicy(tlsPolicy(p.cfg.TLS)),
		mail.WithoutNoop(), mail.WithoutRset(), // DATA ends the dialogue of a mail; a dead connection shows at MAIL
		mail.WithDialContextFunc(dial),
	}
	if p.cfg.Username != "" {
		opts = append(opts, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover),
			mail.WithUsername(p.cfg.Username), mail.WithPassword(p.cfg.Password))
	}
	return mail.NewClient(host, opts...)
}

func tlsPolicy(name string) mail.TLSPolicy {
	switch name {
	case TLSMandatory:
		return mail.TLSMandatory
	case TLSNone:
		return mail.NoTLS
	default:
		return mail.TLSOpportunistic
	}
}

// errStale says that a connection was dead before anything of a mail went
// over it.
var errStale = errors.New("connection is stale")

// sendOver sends over l and keeps l for the next mail if it is still good.
func (p *post) sendOver(ctx context.Context, l *line, m *mail.Msg) error {
	stop := context.AfterFunc(ctx, func() { l.conn.Close() }) // the library knows no context
	err := l.client.SendWithSMTPClient(l.smtp, m)
	stopped := stop()
	var se *mail.SendError
	answered := err == nil
	if errors.As(err, &se) {
		answered = se.ErrorCode() != 0 && se.ErrorCode() != hangUp
	}
	if answered && stopped {
		l.used, l.worn = time.Now(), true
		p.idle <- l // has room: at most cfg.Connections are in use or idle
	} else {
		l.conn.Close()
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case se == nil:
		return err
	case se.ErrorCode() != 0:
		return &refusal{stage: se.Reason, code: se.ErrorCode(), enhanced: se.EnhancedStatusCode()}
	case l.worn && (se.Reason == mail.ErrSMTPMailFrom || se.Reason == mail.ErrConnCheck):
		return errStale
	default:
		return fmt.Errorf("SMTP server did not answer: %s", se.Reason)
	}
}

// refusal is the server's answer to a mail it does not take. It repeats
// nothing of the server's text, which often holds the address.
type refusal struct {
	stage    mail.SendErrReason
	code     int    // SMTP reply code, 4xx or 5xx
	enhanced string // RFC 3463 status code, may be empty
}

func (r *refusal) Error() string {
	s := fmt.Sprintf("SMTP %d", r.code)
	if r.enhanced != "" {
		s += " " + r.enhanced
	}
	return s + ": " + r.stage.String()
}

// final reports whether sending the same mail again cannot help. Answers about
// our login (RFC 4954) say nothing about the mail: they are for an operator
// to heal.
func (r *refusal) final() bool {
	switch r.code {
	case 530, 534, 535, 538:
		return false
	default:
		return r.code >= 500
	}
}
