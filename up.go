package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"orderflow/consumers"
	"orderflow/consumers/notification"
	"orderflow/internal/embedded"
	"orderflow/internal/kafka"
	"orderflow/internal/lag"
	"orderflow/internal/mailsink"
	"orderflow/producers/importer"
	"orderflow/producers/orders"
)

// upCommand runs the whole pipeline in this process: what is not given by an
// address is embedded.
type upCommand struct {
	DatabaseURL       string   `help:"Postgres to use instead of the embedded one." env:"DATABASE_URL"`
	KafkaBrokers      []string `help:"Kafka to use instead of the embedded broker." env:"KAFKA_BROKERS"`
	SchemaRegistryURL string   `help:"Schema registry to use instead of the embedded one." env:"SCHEMA_REGISTRY_URL"`

	DataDir      string `help:"Where everything embedded keeps its data." default:".orderflow" type:"path"`
	Addr         string `help:"Where to serve the API; another port is taken, and printed, if it is in use." default:"127.0.0.1:8080"`
	MetricsAddr  string `help:"Where to serve metrics and health." default:"127.0.0.1:9464"`
	Orders       string `help:"Orders of the shipped sample to import: all, none, or a number." default:"all"`
	UntilDrained bool   `help:"Stop with a verdict once every group has applied every event."`
	JSON         bool   `help:"Print the verdict as one line of JSON on standard output."`
	NoInstall    bool   `help:"Never fetch or install a package for Postgres; say what is missing instead."`
}

// Memory of the whole process: fetched and produced batches are short-lived.
const (
	upGC          = 200
	upMemoryLimit = 220 << 20
)

// sourceName is the outbox's name where it is not chosen.
const sourceName = "orderflow"

// stopTimeout bounds how long one part may take to stop.
const stopTimeout = 20 * time.Second

func (c *upCommand) Run(ctx context.Context, log *slog.Logger, screen *screen) error {
	debug.SetGCPercent(upGC)
	debug.SetMemoryLimit(upMemoryLimit)
	began := time.Now()
	limit, err := importLimit(c.Orders)
	if err != nil {
		return err
	}
	release, err := embedded.HoldDirectory(c.DataDir)
	if err != nil {
		return err
	}
	s := newSystem(ctx, log)
	s.started("data directory", release)
	defer s.stop()
	w, err := c.start(ctx, s, log)
	if err != nil {
		return err
	}
	log.Info("ready", "seconds", time.Since(began).Seconds(), "api", w.apiURL(), "docs", w.apiURL()+"/docs",
		"metrics", "http://"+w.metricsAddr+"/metrics", "data_dir", c.DataDir, "mails", w.mailDir)
	log.Info("other commands reach it by", "environment", c.exports(w))
	t := newTable(screen, log, w)
	s.start("table", t.run)
	summary, err := c.importSample(ctx, s, w, limit, t)
	if err == nil && !c.UntilDrained {
		return s.wait(ctx)
	}
	if err != nil && !c.UntilDrained {
		return ignoreCancel(ctx, err)
	}
	var v *verdict
	if err == nil {
		v, err = w.drain(ctx, s, summary, began)
	}
	if ctx.Err() != nil {
		return errors.New("stopped before the verdict")
	}
	if err != nil {
		return err
	}
	s.stopNamed("table")
	return v.print(os.Stdout, os.Stderr, c.JSON)
}

// exports are the settings that let other commands work on the same parts.
// Addresses that were given are known to who gave them, and may hold secrets.
func (c *upCommand) exports(w *world) string {
	var vars []string
	if c.DatabaseURL == "" {
		vars = append(vars, "DATABASE_URL="+w.database)
	}
	if len(c.KafkaBrokers) == 0 {
		vars = append(vars, "KAFKA_BROKERS="+strings.Join(w.kafka.Brokers, ","))
	}
	if c.SchemaRegistryURL == "" {
		vars = append(vars, "SCHEMA_REGISTRY_URL="+w.registryURL)
	}
	return strings.Join(vars, " ")
}

// world is the running pipeline as the rest of up sees it.
type world struct {
	*platform
	groups      []consumers.Consumer
	lag         *lag.Collector
	watcher     *watcher
	apiAddr     string
	metricsAddr string
	mailDir     string
}

func (w *world) apiURL() string { return "http://" + w.apiAddr }

// start brings everything up in the order of dependence; s stops it in the
// reverse order.
func (c *upCommand) start(ctx context.Context, s *system, log *slog.Logger) (*world, error) {
	// A port that is in use is found out before anything else is started.
	api, err := listenOrAny(c.Addr, log)
	if err != nil {
		return nil, err
	}
	metrics, err := listenOrAny(c.MetricsAddr, log)
	if err != nil {
		_ = api.Close()
		return nil, err
	}
	p, sink, err := c.environment(ctx, s, log)
	if err != nil {
		_, _ = api.Close(), metrics.Close()
		return nil, err
	}
	mail := notification.Config{SMTPAddr: sink.Addr(), From: "orders@orderflow.invalid"}
	w := &world{
		platform: p, groups: services(mail), apiAddr: api.Addr().String(),
		metricsAddr: metrics.Addr().String(), mailDir: filepath.Join(c.DataDir, "mails"),
	}
	if err := prepare(ctx, w); err != nil {
		_, _ = api.Close(), metrics.Close()
		return nil, err
	}
	if err := w.watch(ctx, s); err != nil {
		_, _ = api.Close(), metrics.Close()
		return nil, err
	}
	return w, w.startStages(ctx, s, api, metrics)
}

// prepare makes tables and topics, side by side.
func prepare(ctx context.Context, w *world) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.migrate(ctx, w.groups) })
	g.Go(func() error { return w.ensureTopics(ctx, -1) })
	return g.Wait()
}

// environment starts what is embedded, side by side.
func (c *upCommand) environment(ctx context.Context, s *system, log *slog.Logger) (*platform, *mailsink.Sink, error) {
	database, brokers, registry := c.DatabaseURL, c.KafkaBrokers, c.SchemaRegistryURL
	var sink *mailsink.Sink
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		if database == "" {
			database, err = c.startPostgres(gctx, s, log)
		}
		return err
	})
	g.Go(func() error {
		if len(brokers) > 0 {
			return nil
		}
		b, err := embedded.StartBroker(ctx, embedded.BrokerConfig{DataDir: filepath.Join(c.DataDir, "kafka"), Log: log})
		if err == nil {
			brokers = b.Addrs()
			s.started("broker", b.Close)
		}
		return err
	})
	g.Go(func() error {
		if registry != "" {
			return nil
		}
		r, err := embedded.StartRegistry(ctx, embedded.RegistryConfig{DataDir: filepath.Join(c.DataDir, "registry"), Log: log})
		if err == nil {
			registry = r.URL()
			s.started("registry", r.Close)
		}
		return err
	})
	g.Go(func() (err error) {
		sink, err = mailsink.Start(ctx, mailsink.Config{Dir: filepath.Join(c.DataDir, "mails"), Log: log})
		if err == nil {
			s.started("mail sink", sink.Close)
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	p, err := newPlatform(database, brokers, registry, log)
	return p, sink, err
}

func (c *upCommand) startPostgres(ctx context.Context, s *system, log *slog.Logger) (string, error) {
	bin, err := embedded.FindPostgres(ctx, embedded.FindOptions{NoInstall: c.NoInstall, Out: os.Stderr, Log: log})
	if err != nil {
		return "", err
	}
	p, err := embedded.StartPostgres(ctx, embedded.PostgresConfig{
		BinDir: bin, DataDir: filepath.Join(c.DataDir, "postgres"), Log: log,
	})
	if err != nil {
		return "", err
	}
	s.startedBelow("postgres", func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		return p.Stop(ctx)
	})
	return p.URL(), nil
}

// startStages starts the consumers, then the relay that feeds them, then the
// API that feeds the relay.
func (w *world) startStages(ctx context.Context, s *system, api, metrics net.Listener) error {
	s.start("metrics", func(ctx context.Context) error { return w.serveOps(ctx, metrics, w.ready) })
	w.lag = lag.New(lag.Config{Kafka: w.kafka, Interval: time.Second}, w.log, w.metrics)
	s.start("lag", w.lag.Run)
	r, closeRelay, err := w.relay(ctx, relayFlags{SourceName: sourceName})
	if err != nil {
		return err
	}
	// Asked first: groups on a Kafka that is not theirs would each complain.
	if err := r.Check(ctx); err != nil {
		closeRelay()
		return err
	}
	for _, g := range w.groups {
		run, done, err := w.consumer(ctx, g)
		if err != nil {
			return err
		}
		s.start(g.Group, then(run, done))
	}
	s.start("relay", then(r.Run, closeRelay))
	o, done, err := w.orders(ctx, orders.Config{}, api)
	if err != nil {
		return err
	}
	s.start("orders", then(o.Run, done))
	return nil
}

// watch opens what reads the flow.
func (w *world) watch(ctx context.Context, s *system) error {
	pool, err := w.pool(ctx, "", 2)
	if err != nil {
		return err
	}
	cl, err := kafka.Open(ctx, w.kafka, w.log, kgo.ClientID("orderflow-up"))
	if err != nil {
		pool.Close()
		return err
	}
	w.watcher = &watcher{db: pool, admin: kadm.NewClient(cl), groups: w.groups, source: sourceName}
	s.started("watcher", func() error {
		cl.Close()
		pool.Close()
		return nil
	})
	return nil
}

// ready asks for what the whole stands on.
func (w *world) ready(ctx context.Context) error {
	_, err := w.watcher.look(ctx)
	return err
}

// then closes what a stage used once it has ended.
func then(run func(context.Context) error, done func()) func(context.Context) error {
	return func(ctx context.Context) error {
		defer done()
		return run(ctx)
	}
}

// listenOrAny takes another port of the same address when this one is in use.
func listenOrAny(addr string, log *slog.Logger) (net.Listener, error) {
	l, err := listen(addr)
	if err == nil {
		return l, nil
	}
	host, _, splitErr := net.SplitHostPort(addr)
	if splitErr != nil {
		return nil, err
	}
	l, anyErr := listen(net.JoinHostPort(host, "0"))
	if anyErr != nil {
		return nil, err
	}
	log.Warn("take another port", "wanted", addr, "addr", l.Addr().String())
	return l, nil
}

// importSample offers the shipped orders to the API, as any client would.
// Orders that an earlier run placed are answered as they were.
func (c *upCommand) importSample(ctx context.Context, s *system, w *world, limit int, t *table) (importer.Summary, error) {
	if limit < 0 {
		return importer.Summary{}, nil
	}
	ctx, cancel := s.whileHealthy(ctx)
	defer cancel()
	summary, err := importer.Run(ctx, importer.Config{
		API: w.apiURL(), Format: importer.FormatUCI, Input: importer.Sample(), Limit: limit,
	}, importer.Deps{Log: w.log, Progress: t.progress})
	if err != nil {
		if cause := s.failure(); cause != nil {
			return summary, cause
		}
		return summary, fmt.Errorf("import the sample: %w", err)
	}
	w.log.Info("imported the sample", "accepted", summary.Accepted, "replayed", summary.Replayed,
		"rejected", summary.Rejected, "cancelled", summary.Cancelled)
	return summary, nil
}

// importLimit reads --orders; -1 is none, 0 is all.
func importLimit(s string) (int, error) {
	switch s {
	case "all":
		return 0, nil
	case "none":
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("--orders=%s: want all, none, or a number above 0", s)
	}
	return n, nil
}
