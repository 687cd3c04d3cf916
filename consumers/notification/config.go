package notification

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"strconv"
	"strings"
	"time"
)

const (
	defaultFrom        = "Orderflow <orders@orderflow.invalid>"
	defaultConnections = 16
	defaultSendTimeout = 8 * time.Second
	maxConnections     = 100
	maxSendTimeout     = 5 * time.Minute
)

// Values of Config.TLS.
const (
	TLSOpportunistic = "opportunistic"
	TLSMandatory     = "mandatory"
	TLSNone          = "none"
)

// Config says how mails leave. All but SMTPAddr has a default.
type Config struct {
	// SMTPAddr is the server that takes the mails, host:port.
	SMTPAddr string `help:"SMTP server that takes the mails, host:port."`
	// From is the sender, an address with or without a name. Its domain is
	// also that of every Message-ID. Default Orderflow <orders@orderflow.invalid>.
	From string `help:"Sender of the mails (default Orderflow <orders@orderflow.invalid>)."`
	// Username and Password log in to the server. Empty means no login.
	Username string `help:"User name for the SMTP server; none means no login."`
	Password string `help:"Password for the SMTP server. Better given by the environment."`
	// TLS says when STARTTLS is used: opportunistic (if the server offers it,
	// the default), mandatory or none.
	TLS string `help:"Use of STARTTLS: opportunistic, mandatory or none (default opportunistic)."`
	// Connections is how many connections to the server are kept open, and how
	// many mails are sent at once. They open as they are needed. Default 16.
	Connections int `help:"Connections to the SMTP server, and mails sent at once (default 16)."`
	// SendTimeout bounds one mail's dialogue with the server. A mail that was
	// in the dialogue when the process died is sent again this much and a few
	// seconds later. Default 8 s.
	SendTimeout time.Duration `help:"Longest dialogue about one mail (default 8s)."`
}

func (c Config) withDefaults() Config {
	c.From = cmp.Or(c.From, defaultFrom)
	c.TLS = cmp.Or(c.TLS, TLSOpportunistic)
	c.Connections = cmp.Or(c.Connections, defaultConnections)
	c.SendTimeout = cmp.Or(c.SendTimeout, defaultSendTimeout)
	return c
}

// Validate reports every problem of the Config.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	if _, _, err := c.server(); err != nil {
		errs = append(errs, err)
	}
	if _, err := mail.ParseAddress(c.From); err != nil {
		errs = append(errs, fmt.Errorf("sender %q: want an address such as Shop <orders@example.com>", c.From))
	}
	if (c.Username == "") != (c.Password == "") {
		errs = append(errs, errors.New("SMTP login: give user name and password, or neither"))
	}
	switch c.TLS {
	case TLSOpportunistic, TLSMandatory, TLSNone:
	default:
		errs = append(errs, fmt.Errorf("SMTP TLS %q: want %s, %s or %s", c.TLS, TLSOpportunistic, TLSMandatory, TLSNone))
	}
	if c.Connections < 1 || c.Connections > maxConnections {
		errs = append(errs, fmt.Errorf("SMTP connections %d: want 1 to %d", c.Connections, maxConnections))
	}
	if c.SendTimeout < time.Second || c.SendTimeout > maxSendTimeout {
		errs = append(errs, fmt.Errorf("send timeout %s: want 1s to %s", c.SendTimeout, maxSendTimeout))
	}
	return errors.Join(errs...)
}

func (c Config) server() (host string, port int, err error) {
	host, service, err := net.SplitHostPort(c.SMTPAddr)
	if err == nil {
		port, err = strconv.Atoi(service)
	}
	if err != nil || host == "" || port < 1 || port > 65535 {
		return "", 0, fmt.Errorf("SMTP server %q: want host:port", c.SMTPAddr)
	}
	return host, port, nil
}

// domain is what stands behind the @ of the sender.
func (c Config) domain() string {
	a, err := mail.ParseAddress(c.From)
	if err != nil {
		return "localhost"
	}
	return a.Address[strings.LastIndexByte(a.Address, '@')+1:]
}
