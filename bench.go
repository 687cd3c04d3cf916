package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"orderflow/e2e/bench"
)

// benchCommand measures parts of the platform beside what they are compared
// with.
type benchCommand struct {
	Ingest    benchIngestCommand    `cmd:"" help:"Take orders, beside pgbench that writes the same rows."`
	Relay     benchRelayCommand     `cmd:"" help:"Drain a backlog, beside binary COPY of the same rows."`
	Consumers benchConsumersCommand `cmd:"" help:"Apply events, beside bare inserts of the same rows."`
}

type benchFlags struct {
	Rounds       int      `help:"Rounds of each pair." default:"3"`
	KafkaBrokers []string `help:"A real Kafka to use; without one an Apache Kafka is started." env:"KAFKA_BROKERS"`
	JSON         bool     `help:"Print one line of JSON a row."`
}

func (f benchFlags) options(log *slog.Logger) (bench.Options, error) {
	program, err := os.Executable()
	if err != nil {
		return bench.Options{}, fmt.Errorf("find this program: %w", err)
	}
	return bench.Options{Rounds: f.Rounds, Brokers: f.KafkaBrokers, Program: program, Log: log}, nil
}

func (f benchFlags) print(rows []bench.Row, err error) error {
	if err != nil {
		return err
	}
	return bench.Print(os.Stdout, rows, f.JSON)
}

type benchRelayCommand struct {
	benchFlags
	Events      int `help:"Backlog to drain." default:"2000000"`
	SmallEvents int `help:"Backlog that memory is compared with." default:"100000"`
}

func (c *benchRelayCommand) Run(ctx context.Context, log *slog.Logger) error {
	o, err := c.options(log)
	if err != nil {
		return err
	}
	return c.print(bench.Relay(ctx, bench.RelayOptions{Options: o, Events: c.Events, SmallEvents: c.SmallEvents}))
}

type benchIngestCommand struct {
	benchFlags
	Seconds     int `help:"How long single orders are sent, and pgbench runs." default:"10"`
	BulkOrders  int `help:"Orders of one bulk stream." default:"200000"`
	Connections int `help:"Connections that send single orders." default:"64"`
}

func (c *benchIngestCommand) Run(ctx context.Context, log *slog.Logger) error {
	o, err := c.options(log)
	if err != nil {
		return err
	}
	return c.print(bench.Ingest(ctx, bench.IngestOptions{
		Options: o, Seconds: c.Seconds, BulkOrders: c.BulkOrders, Connections: c.Connections,
	}))
}

type benchConsumersCommand struct {
	benchFlags
	Events int `help:"Events to apply in each round." default:"500000"`
}

func (c *benchConsumersCommand) Run(ctx context.Context, log *slog.Logger) error {
	o, err := c.options(log)
	if err != nil {
		return err
	}
	return c.print(bench.Consumers(ctx, bench.ConsumersOptions{Options: o, Events: c.Events}))
}
