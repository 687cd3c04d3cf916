package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"orderflow/consumers"
	"orderflow/consumers/notification"
	"orderflow/internal/pg"
	"orderflow/outbox-relay"
	"orderflow/outbox-relay/source"
	"orderflow/producers/orders"
	"orderflow/schemas"
)

// ordersCommand serves the Orders API as a process of its own.
type ordersCommand struct {
	databaseFlag
	metricsFlag
	Addr string `help:"Where to serve the API." default:"127.0.0.1:8080"`
	orders.Config
}

// ordersGC lets the collector run less often than by default: orders are
// short-lived garbage, and memory stays bounded by the limit.
const (
	ordersGC          = 400
	ordersMemoryLimit = 512 << 20
)

func (c *ordersCommand) Run(ctx context.Context, log *slog.Logger) error {
	debug.SetGCPercent(ordersGC)
	debug.SetMemoryLimit(ordersMemoryLimit)
	p, err := newPlatform(c.DatabaseURL, nil, "", log)
	if err != nil {
		return err
	}
	api, err := listen(c.Addr)
	if err != nil {
		return err
	}
	s, done, err := p.orders(ctx, c.Config, api)
	if err != nil {
		return err
	}
	defer done()
	log.Info("serve orders", "addr", api.Addr().String())
	return p.serve(ctx, c.MetricsAddr, s.Ready, s.Run)
}

// orders makes the Orders service; done closes what it uses.
func (p *platform) orders(ctx context.Context, cfg orders.Config, api net.Listener) (s *orders.Service, done func(), err error) {
	if err := cfg.Validate(); err != nil {
		return nil, nil, err
	}
	pool, err := p.pool(ctx, orders.Schema, cfg.Conns())
	if err != nil {
		return nil, nil, err
	}
	s = orders.New(cfg, orders.Deps{DB: pool, Listener: api, Log: p.log.With("stage", "orders"), Metrics: p.metrics})
	return s, pool.Close, nil
}

// relayCommand streams the outbox into Kafka.
type relayCommand struct {
	databaseFlag
	kafkaFlag
	registryFlag
	metricsFlag
	relayFlags
}

type relayFlags struct {
	SourceName  string        `help:"Name of this outbox: the transactional id in Kafka. It never changes." default:"orderflow"`
	TxnInterval time.Duration `help:"Longest Kafka transaction while events keep coming." default:"100ms"`
	LeaseTTL    time.Duration `help:"How long a silent leader keeps others waiting." default:"6s"`
}

func (c *relayCommand) Run(ctx context.Context, log *slog.Logger) error {
	debug.SetMemoryLimit(relayMemoryLimit)
	p, err := newPlatform(c.DatabaseURL, c.KafkaBrokers, c.SchemaRegistryURL, log)
	if err != nil {
		return err
	}
	r, done, err := p.relay(ctx, c.relayFlags)
	if err != nil {
		return err
	}
	defer done()
	return p.serve(ctx, c.MetricsAddr, p.relayReady(c.SourceName), r.Run)
}

// relayReady asks for the database, on which everything of a relay waits;
// whether it leads or stands by is a metric.
func (p *platform) relayReady(source string) func(context.Context) error {
	return func(ctx context.Context) error {
		pool, err := p.pool(ctx, "outbox", 1)
		if err != nil {
			return err
		}
		defer pool.Close()
		_, err = relay.ReadStatus(ctx, pool, source)
		return err
	}
}

// relayMemoryLimit makes the collector work harder before memory grows. What
// the relay holds is bounded by its source's batches, well below.
const relayMemoryLimit = 96 << 20

// relay makes a relay of this database's outbox; done closes what it uses.
func (p *platform) relay(ctx context.Context, f relayFlags) (r *relay.Relay, done func(), err error) {
	pool, err := p.pool(ctx, "outbox", 3)
	if err != nil {
		return nil, nil, err
	}
	r, err = relay.New(relay.Config{
		Source:      f.SourceName,
		Poll:        source.PollConfig{DB: pg.Config{URL: p.database}},
		Kafka:       p.kafka,
		TxnInterval: f.TxnInterval,
		LeaseTTL:    f.LeaseTTL,
	}, relay.Deps{DB: pool, Registry: p.registry, Metrics: p.metrics, Log: p.log.With("stage", "relay")})
	if err != nil {
		pool.Close()
		return nil, nil, err
	}
	return r, pool.Close, nil
}

// consumeCommand runs consumer groups by name.
type consumeCommand struct {
	databaseFlag
	kafkaFlag
	registryFlag
	metricsFlag
	Groups []string  `arg:"" help:"Groups to run, by name; an unknown one is answered with the names there are."`
	Mail   mailFlags `embed:"" prefix:"mail-"`
}

// mailFlags are for notification alone, and asked for only with it.
type mailFlags struct {
	SMTPAddr    string        `help:"Server that takes the mails of notification, host:port." name:"smtp-addr"`
	From        string        `help:"Sender of the mails." default:"Orderflow <orders@orderflow.invalid>"`
	Username    string        `help:"Login at the server."`
	Password    string        `help:"Password at the server; set it by the environment."`
	TLS         string        `help:"STARTTLS: opportunistic, mandatory or none." default:"opportunistic" name:"tls"`
	Connections int           `help:"Connections to the server." default:"8"`
	SendTimeout time.Duration `help:"Longest dialogue for one mail." default:"8s"`
}

func (f mailFlags) config() notification.Config { return notification.Config(f) }

func (c *consumeCommand) Run(ctx context.Context, log *slog.Logger) error {
	p, err := newPlatform(c.DatabaseURL, c.KafkaBrokers, c.SchemaRegistryURL, log)
	if err != nil {
		return err
	}
	chosen, err := choose(services(c.Mail.config()), c.Groups)
	if err != nil {
		return err
	}
	if slices.Contains(c.Groups, notification.Group) {
		if err := c.Mail.config().Validate(); err != nil {
			return fmt.Errorf("consume %s (--mail-smtp-addr and its like): %w", notification.Group, err)
		}
	}
	runs := make([]func(context.Context) error, 0, len(chosen))
	for _, group := range chosen {
		run, done, err := p.consumer(ctx, group)
		if err != nil {
			return err
		}
		defer done()
		runs = append(runs, run)
	}
	return p.serve(ctx, c.MetricsAddr, p.consumersReady(chosen), runs...)
}

// consumersReady asks whether every group's positions can be read.
func (p *platform) consumersReady(groups []consumers.Consumer) func(context.Context) error {
	return func(ctx context.Context) error {
		pool, err := p.pool(ctx, "", 1)
		if err != nil {
			return err
		}
		defer pool.Close()
		for _, g := range groups {
			if _, err := consumers.Positions(ctx, pool, g.Group); err != nil {
				return err
			}
		}
		return nil
	}
}

func choose(all []consumers.Consumer, names []string) ([]consumers.Consumer, error) {
	var known []string
	var chosen []consumers.Consumer
	for _, c := range all {
		known = append(known, c.Group)
		if slices.Contains(names, c.Group) {
			chosen = append(chosen, c)
		}
	}
	for _, n := range names {
		if !slices.Contains(known, n) {
			return nil, fmt.Errorf("no group %q: there are %s", n, strings.Join(known, ", "))
		}
	}
	return chosen, nil
}

// groupConns bounds the partitions of a group that are at work at once;
// workerConns is what a group's worker needs beside them.
const (
	groupConns  = 4
	workerConns = 10
)

// consumer makes a group ready to run; done closes what it uses.
func (p *platform) consumer(ctx context.Context, c consumers.Consumer) (run func(context.Context) error, done func(), err error) {
	conns := int32(groupConns)
	if c.Worker != nil {
		conns += workerConns
	}
	pool, err := p.pool(ctx, c.Group, conns)
	if err != nil {
		return nil, nil, err
	}
	d := consumers.Deps{
		DB: pool, Kafka: p.kafka, Decoder: schemas.NewDecoder(p.registry),
		Log: p.log, Metrics: p.metrics,
	}
	return func(ctx context.Context) error { return c.Run(ctx, d) }, pool.Close, nil
}

// serve runs stages and the metrics server beside them until ctx ends or one
// of them fails.
func (p *platform) serve(ctx context.Context, metricsAddr string, ready func(context.Context) error, stages ...func(context.Context) error) error {
	l, err := listen(metricsAddr)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.serveOps(ctx, l, ready) })
	for _, s := range stages {
		g.Go(func() error { return s(ctx) })
	}
	return ignoreCancel(ctx, g.Wait())
}

// migrateCommand makes or updates every table.
type migrateCommand struct{ databaseFlag }

func (c *migrateCommand) Run(ctx context.Context, log *slog.Logger) error {
	p, err := newPlatform(c.DatabaseURL, nil, "", log)
	if err != nil {
		return err
	}
	if err := p.migrate(ctx, services(notification.Config{})); err != nil {
		return err
	}
	log.Info("migrated")
	return nil
}

// topicsCommand creates the topics that are missing.
type topicsCommand struct {
	kafkaFlag
	Replication int16 `help:"Replicas of a new topic; -1 is the broker's default." default:"-1"`
}

func (c *topicsCommand) Run(ctx context.Context, log *slog.Logger) error {
	p, err := newPlatform("", c.KafkaBrokers, "", log)
	if err != nil {
		return err
	}
	if err := p.ensureTopics(ctx, c.Replication); err != nil {
		return err
	}
	log.Info("topics are there", "count", len(schemas.Topics()))
	return nil
}

// healthcheckCommand is what a container asks of the process beside it.
type healthcheckCommand struct {
	Addr string `arg:"" optional:"" help:"Address of /readyz." default:"127.0.0.1:9464"`
}

func (c *healthcheckCommand) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.Addr+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", c.Addr, err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", c.Addr, err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s: %s", c.Addr, res.Status)
	}
	return nil
}
