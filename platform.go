package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/consumers"
	"orderflow/internal/kafka"
	"orderflow/internal/ops"
	"orderflow/internal/pg"
	"orderflow/outbox-relay"
	"orderflow/outbox-relay/outbox"
	"orderflow/producers/orders"
	"orderflow/schemas"
)

func (c *commands) logger(out *screen) (*slog.Logger, error) {
	format := c.LogFormat
	if format == "auto" && out.terminal {
		format = "text"
	}
	return ops.NewLogger(out, format, c.LogLevel)
}

// Connection flags, by what a command needs.
type (
	databaseFlag struct {
		DatabaseURL string `help:"Postgres, as postgres://user@host:port/database." env:"DATABASE_URL" required:""`
	}
	kafkaFlag struct {
		KafkaBrokers []string `help:"Kafka brokers, host:port." env:"KAFKA_BROKERS" required:""`
	}
	registryFlag struct {
		SchemaRegistryURL string `help:"Confluent-compatible schema registry." env:"SCHEMA_REGISTRY_URL" required:""`
	}
	metricsFlag struct {
		MetricsAddr string `help:"Where to serve /metrics, /livez and /readyz." default:"127.0.0.1:9464"`
	}
)

// platform is what the stages of one process share.
type platform struct {
	database    string // URL
	registryURL string
	kafka       kafka.Config
	registry    *schemas.Registry
	metrics     *prometheus.Registry
	log         *slog.Logger
}

func newPlatform(database string, brokers []string, registryURL string, log *slog.Logger) (*platform, error) {
	p := &platform{database: database, registryURL: registryURL, kafka: kafka.Config{Brokers: brokers}, metrics: ops.NewRegistry(), log: log}
	if registryURL != "" {
		r, err := schemas.NewRegistry(registryURL)
		if err != nil {
			return nil, err
		}
		p.registry = r
	}
	return p, nil
}

// pool opens a pool that looks into schema first.
func (p *platform) pool(ctx context.Context, schema string, conns int32) (*pgxpool.Pool, error) {
	name := "orderflow"
	if schema != "" {
		name += " " + schema
	}
	return pg.Open(ctx, pg.Config{URL: p.database, Schema: schema, MaxConns: conns, Name: name})
}

// migrate makes or updates every table of the platform.
func (p *platform) migrate(ctx context.Context, groups []consumers.Consumer) error {
	pool, err := p.pool(ctx, "", 4)
	if err != nil {
		return err
	}
	defer pool.Close()
	for _, step := range []func(context.Context, *pgxpool.Pool) error{
		outbox.Migrate, relay.Migrate, orders.Migrate,
	} {
		if err := step(ctx, pool); err != nil {
			return err
		}
	}
	for _, c := range groups {
		if err := c.Migrate(ctx, pool); err != nil {
			return fmt.Errorf("migrate %s: %w", c.Group, err)
		}
	}
	return outbox.EnsurePartitions(ctx, pool)
}

// ensureTopics creates the topics that are missing.
func (p *platform) ensureTopics(ctx context.Context, replication int16) error {
	cl, err := kafka.Open(ctx, p.kafka, p.log, kgo.ClientID("orderflow-topics"))
	if err != nil {
		return err
	}
	defer cl.Close()
	return kafka.EnsureTopics(ctx, cl, schemas.Topics(), replication)
}

// listen opens a loopback or other address for a server.
func listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return l, nil
}

// serveOps shows the process's metrics and health until ctx ends.
func (p *platform) serveOps(ctx context.Context, l net.Listener, ready func(context.Context) error) error {
	s := ops.Server{Listener: l, Registry: p.metrics, Ready: ready, Log: p.log}
	return s.Run(ctx)
}

// ignoreCancel turns the end of ctx into success: the stage was told to stop.
func ignoreCancel(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
