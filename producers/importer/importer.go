// Package importer replays real order files into the Orders API: UCI Online
// Retail (one file of invoice lines) and Olist (a folder of tables). It decides
// for every oddity of those files whether it is taken, mapped or refused, and
// counts each decision, so that the summary adds up to what was read.
//
// An import keeps no state of its own. Every order carries a client order id
// made from its source (uci:536365), so running an import again, after a crash
// or on purpose, makes no second order: the API answers what it already has.
package importer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
)

// Formats an import understands.
const (
	FormatUCI   = "uci"
	FormatOlist = "olist"
)

// What an order gets where its source says nothing. UCI has no sellers, weights,
// sizes, regions or payments; Olist lacks the weight and size of a few products.
const (
	DefaultSeller   = "uci"         // the one shop behind the UCI set
	DefaultWeightG  = 300           // grams of one piece: a small gift
	DefaultLengthCM = 20            // of one piece, packed
	DefaultWidthCM  = 15            //
	DefaultHeightCM = 10            //
	DefaultRegion   = "UNSPECIFIED" // a region nobody named
	DefaultPayment  = "INVOICE"     // the UCI set knows invoices only
)

const (
	batchOrders   = 500     // orders in one ingest request
	batchBytes    = 4 << 20 // and their size, whichever comes first
	connections   = 2       // ingest requests in flight
	flushAfter    = 50 * time.Millisecond
	firstContact  = 10 * time.Second // an API that never answered is given up after this
	patience      = time.Minute      // one that went away, after this
	requestTime   = time.Minute      // the longest one request may take
	progressEvery = 200 * time.Millisecond
)

// Config says what to import, where to and how fast.
type Config struct {
	// API is the base URL of the Orders API.
	API string `help:"Base URL of the Orders API." default:"http://127.0.0.1:8080"`
	// Format is FormatUCI or FormatOlist; empty means Olist for a folder and UCI
	// for anything else.
	Format string `kong:"-"`
	// Path is a file (UCI, .csv or .csv.gz) or a folder (Olist).
	Path string `arg:"" help:"File (uci) or folder (olist) to import."`
	// Input replaces Path for UCI: plain or gzip'd CSV. Sample gives one.
	Input io.Reader `kong:"-"`
	// Rate is the most orders offered a second; zero means as fast as the API takes them.
	Rate float64 `help:"Orders a second; 0 = as fast as they are taken." placeholder:"N"`
	// Speed replays the true gaps between orders, this many times faster; zero means no gaps.
	Speed float64 `help:"Keep the true gaps between orders, N times faster." placeholder:"N"`
	// Limit is the most orders offered to the API; zero means all.
	Limit int `help:"Stop after N orders; 0 = all." placeholder:"N"`
	// Patience is how long an API that went away is waited for; zero means a minute.
	Patience time.Duration `help:"How long to wait for an API that went away." default:"1m"`
	// ClientID is the scope of the client order ids; empty means "importer".
	ClientID string `kong:"-"`
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if u, err := url.Parse(c.API); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		add("api: %q is no http or https address", c.API)
	}
	if c.Format != "" && c.Format != FormatUCI && c.Format != FormatOlist {
		add("format: %q is neither %s nor %s", c.Format, FormatUCI, FormatOlist)
	}
	if (c.Path == "") == (c.Input == nil) {
		add("path: give either a path or an input")
	}
	if c.Input != nil && c.Format == FormatOlist {
		add("input: %s is a folder of tables, not one stream", FormatOlist)
	}
	if !(c.Rate >= 0) || !(c.Speed >= 0) {
		add("rate, speed: must not be negative")
	}
	if c.Rate > 0 && c.Speed > 0 {
		add("rate, speed: give one of them")
	}
	if c.Limit < 0 {
		add("limit: must not be negative")
	}
	if c.Patience < 0 {
		add("patience: must not be negative")
	}
	return errors.Join(problems...)
}

func (c Config) withDefaults() Config {
	if c.Patience == 0 {
		c.Patience = patience
	}
	if c.Format == "" {
		c.Format = FormatUCI
		if info, err := os.Stat(c.Path); err == nil && info.IsDir() {
			c.Format = FormatOlist
		}
	}
	if c.ClientID == "" {
		c.ClientID = "importer"
	}
	return c
}

// Deps are what an import borrows from its surroundings; the zero value works.
type Deps struct {
	// HTTP is the client used; nil means one of its own.
	HTTP *http.Client
	// Log takes retries, refusals and, without a terminal, progress; nil means silence.
	Log *slog.Logger
	// Terminal is where the progress bar is drawn if it is a terminal.
	Terminal io.Writer
	// Progress, when set, replaces bar and log lines. It is called from one
	// goroutine, about five times a second and once at the end.
	Progress func(Progress)
}

func (d Deps) withDefaults() Deps {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return d
}

func ownHTTP() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		MaxIdleConnsPerHost: connections + 1,
		IdleConnTimeout:     time.Minute,
	}}
}

// source hands out the orders and cancellations of a file in the order of their
// time. next returns io.EOF after the last one.
type source interface {
	next() (item, error)
	progress() (done, total int64) // total is zero when nobody knows it
	Close() error
}

// Run imports and returns what became of everything it read, also when it ends
// early: with ctx's error when ctx ended it. An import that ended early is
// continued by running it again.
func Run(ctx context.Context, cfg Config, deps Deps) (Summary, error) {
	if err := cfg.Validate(); err != nil {
		return Summary{}, fmt.Errorf("import: %w", err)
	}
	cfg, deps = cfg.withDefaults(), deps.withDefaults()
	src, err := open(cfg)
	if err != nil {
		return Summary{}, fmt.Errorf("import: %w", err)
	}
	defer src.Close()

	if deps.HTTP == nil {
		deps.HTTP = ownHTTP()
		defer deps.HTTP.CloseIdleConnections()
	}
	r := &run{
		cfg: cfg, log: deps.Log, source: src, ledger: newLedger(cfg, deps.Log),
		client: newClient(cfg, deps), jobs: make(chan job),
	}
	if err := r.client.hello(ctx); err != nil {
		return r.ledger.summary(), fmt.Errorf("import: %w", err)
	}
	stop := r.report(ctx, deps)
	err = r.all(ctx)
	stop()
	if err != nil {
		err = fmt.Errorf("import: %w", err)
	}
	return r.ledger.summary(), err
}

func open(cfg Config) (source, error) {
	if cfg.Format == FormatOlist {
		return openOlist(cfg.Path)
	}
	return openUCI(cfg.Path, cfg.Input)
}

// all runs the reader and the senders until the source is empty and everything
// read has an answer. The reader closes jobs; the senders end with it.
func (r *run) all(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(r.jobs)
		return r.read(ctx)
	})
	for range connections {
		g.Go(func() error { return r.send(ctx) })
	}
	return g.Wait()
}
