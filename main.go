// Command orderflow runs the order pipeline: the whole of it on one machine
// (up), or one stage a process.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"orderflow/consumers"
	"orderflow/consumers/logistics"
	"orderflow/consumers/loyalty"
	"orderflow/consumers/notification"
	"orderflow/consumers/seller"
	"orderflow/internal/embedded"
	"orderflow/internal/pg"
)

// commands is the table of contents of the system.
type commands struct {
	LogFormat string `help:"Log format: json, text, or auto (text on a terminal)." enum:"json,text,auto" default:"auto"`
	LogLevel  string `help:"Least level to log." enum:"debug,info,warn,error" default:"info"`

	Up      upCommand      `cmd:"" help:"Run everything on this machine and take real orders."`
	Reset   resetCommand   `cmd:"" help:"Clear the data directory of up."`
	Migrate migrateCommand `cmd:"" help:"Make or update every table."`
	Topics  topicsCommand  `cmd:"" help:"Create the topics that are missing."`

	Orders  ordersCommand  `cmd:"" help:"Serve the Orders API."`
	Relay   relayCommand   `cmd:"" help:"Stream the outbox into Kafka."`
	Consume consumeCommand `cmd:"" help:"Run consumer groups."`
	Lag     lagCommand     `cmd:"" help:"Show how far every consumer group is behind."`

	Import struct {
		UCI   importUCICommand   `cmd:"" name:"uci" help:"Import a file of UCI Online Retail."`
		Olist importOlistCommand `cmd:"" help:"Import a folder of Olist tables."`
	} `cmd:"" help:"Turn real order files into orders."`
	Schemas struct {
		Check    schemasCheckCommand    `cmd:"" help:"Check compatibility, offline and against the registry."`
		Register schemasRegisterCommand `cmd:"" help:"Register every schema."`
	} `cmd:"" help:"Look after the contract."`
	Verify verifyCommand `cmd:"" help:"Compare the outbox with Kafka and with every group."`
	Bench  benchCommand  `cmd:"" help:"Measure a part beside what it is compared with."`

	Healthcheck healthcheckCommand `cmd:"" help:"Ask a process whether it is ready."`
}

// services are the consumer groups of the platform. A service that joins is a
// line here and a folder under consumers/.
func services(mail notification.Config) []consumers.Consumer {
	return []consumers.Consumer{
		notification.New(mail),
		seller.New(),
		logistics.New(),
		loyalty.New(),
	}
}

// errVerdict ends the process with status 1 without a further word: the
// verdict was printed.
var errVerdict = errors.New("verdict: not as it should be")

// undefinedTable is the SQLSTATE of a table that is not there.
const undefinedTable = "42P01"

// exitMissing is the status of a command that lacks what it needs to run.
const exitMissing = 2

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal kills
	}()
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	var c commands
	parser, err := kong.New(&c,
		kong.Name("orderflow"),
		kong.Description("Order pipelines on Postgres and Kafka. Every flag can be set as ORDERFLOW_<FLAG>; "+
			"DATABASE_URL, KAFKA_BROKERS and SCHEMA_REGISTRY_URL are taken under these names."),
		kong.DefaultEnvars("ORDERFLOW"),
		kong.UsageOnError(),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		fmt.Fprintln(os.Stderr, "orderflow:", err)
		return 1
	}
	k, err := parser.Parse(args)
	if err != nil {
		parser.Errorf("%s", err)
		return exitMissing
	}
	screen := newScreen(os.Stderr)
	log, err := c.logger(screen)
	if err == nil {
		err = k.Run(log, screen)
	}
	return exitStatus(err)
}

func exitStatus(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errVerdict):
		return 1
	case embedded.Missing(err):
		fmt.Fprintln(os.Stderr, "orderflow:", err)
		return exitMissing
	case pg.Code(err) == undefinedTable:
		fmt.Fprintln(os.Stderr, "orderflow:", err, "(run `orderflow migrate` first)")
		return 1
	default:
		fmt.Fprintln(os.Stderr, "orderflow:", err)
		return 1
	}
}
