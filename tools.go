package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"orderflow/consumers"
	"orderflow/consumers/notification"
	"orderflow/e2e/verify"
	"orderflow/internal/lag"
	"orderflow/internal/ops"
	"orderflow/producers/importer"
	"orderflow/schemas"
)

// importUCICommand imports a file of UCI Online Retail.
type importUCICommand struct {
	importer.Config
	JSON bool `help:"Print the summary as JSON."`
}

func (c *importUCICommand) Run(ctx context.Context, log *slog.Logger) error {
	c.Format = importer.FormatUCI
	return runImport(ctx, c.Config, c.JSON, log)
}

// importOlistCommand imports a folder of Olist tables.
type importOlistCommand struct {
	importer.Config
	JSON bool `help:"Print the summary as JSON."`
}

func (c *importOlistCommand) Run(ctx context.Context, log *slog.Logger) error {
	c.Format = importer.FormatOlist
	return runImport(ctx, c.Config, c.JSON, log)
}

func runImport(ctx context.Context, cfg importer.Config, asJSON bool, log *slog.Logger) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	summary, err := importer.Run(ctx, cfg, importer.Deps{Log: log, Terminal: os.Stderr})
	if err != nil && summary.Lines == 0 {
		return err
	}
	if printErr := printResult(summary, summary.String(), asJSON); err == nil {
		err = printErr
	}
	return err
}

// printResult writes a result to standard output, as JSON on one line or as
// text for people.
func printResult(result any, text string, asJSON bool) error {
	if !asJSON {
		_, err := fmt.Fprintln(os.Stdout, strings.TrimRight(text, "\n"))
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		return fmt.Errorf("print result: %w", err)
	}
	return nil
}

// schemasCheckCommand checks today's schemas against every released one.
type schemasCheckCommand struct {
	SchemaRegistryURL string `help:"Check against this registry too." env:"SCHEMA_REGISTRY_URL"`
}

func (c *schemasCheckCommand) Run(ctx context.Context) error {
	released, err := schemas.Released()
	if err != nil {
		return err
	}
	report, err := schemas.Check(released)
	if err != nil {
		return err
	}
	fmt.Println(strings.TrimRight(report.String(), "\n"))
	ok := len(report.Problems) == 0
	if c.SchemaRegistryURL != "" {
		r, err := schemas.NewRegistry(c.SchemaRegistryURL)
		if err != nil {
			return err
		}
		report, err := schemas.CheckRegistry(ctx, r)
		if err != nil {
			return err
		}
		fmt.Println(strings.TrimRight(report.String(), "\n"))
		ok = ok && len(report.Problems) == 0
	}
	if !ok {
		return errVerdict
	}
	return nil
}

// schemasRegisterCommand registers today's schemas.
type schemasRegisterCommand struct{ registryFlag }

func (c *schemasRegisterCommand) Run(ctx context.Context) error {
	r, err := schemas.NewRegistry(c.SchemaRegistryURL)
	if err != nil {
		return err
	}
	done, err := schemas.RegisterAll(ctx, r)
	for _, d := range done {
		fmt.Println(d)
	}
	return err
}

// verifyCommand compares the outbox with Kafka and with every group.
type verifyCommand struct {
	databaseFlag
	kafkaFlag
	SourceName string `help:"Name of the outbox." default:"orderflow"`
	JSON       bool   `help:"Print the report as one line of JSON."`
}

func (c *verifyCommand) Run(ctx context.Context, log *slog.Logger) error {
	p, err := newPlatform(c.DatabaseURL, c.KafkaBrokers, "", log)
	if err != nil {
		return err
	}
	report, err := p.verify(ctx, c.SourceName, services(notification.Config{}))
	if err != nil {
		return err
	}
	var text strings.Builder
	if err := report.Print(&text); err != nil {
		return err
	}
	if err := printResult(report, text.String(), c.JSON); err != nil {
		return err
	}
	if !report.OK() {
		return errVerdict
	}
	return nil
}

func (p *platform) verify(ctx context.Context, sourceName string, groups []consumers.Consumer) (verify.Report, error) {
	pool, err := p.pool(ctx, "", 4)
	if err != nil {
		return verify.Report{}, err
	}
	defer pool.Close()
	cfg := verify.Config{DB: pool, Kafka: p.kafka, Source: sourceName, Log: p.log}
	for _, g := range groups {
		cfg.Groups = append(cfg.Groups, verify.Group{Name: g.Group, Topics: g.Topics()})
	}
	return verify.Run(ctx, cfg)
}

// lagCommand shows the lag of every group, once or again and again, or serves
// it as metrics.
type lagCommand struct {
	kafkaFlag
	Watch       bool          `help:"Show it again and again."`
	Serve       bool          `help:"Serve it as metrics instead of showing it."`
	MetricsAddr string        `help:"Where to serve metrics." default:"127.0.0.1:9464"`
	Interval    time.Duration `help:"Time between two readings." default:"10s"`
	JSON        bool          `help:"Print one line of JSON a group."`
}

func (c *lagCommand) Run(ctx context.Context, log *slog.Logger) error {
	p, err := newPlatform("", c.KafkaBrokers, "", log)
	if err != nil {
		return err
	}
	l := lag.New(lag.Config{Kafka: p.kafka, Interval: c.Interval}, log, p.metrics)
	if c.Serve {
		return p.serve(ctx, c.MetricsAddr, nil, l.Run)
	}
	for {
		s, err := l.Collect(ctx)
		if err != nil {
			return err
		}
		if err := c.print(s); err != nil || !c.Watch {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(c.Interval):
		}
	}
}

func (c *lagCommand) print(s lag.Snapshot) error {
	totals := s.Totals()
	slices.SortFunc(totals, func(a, b lag.Total) int { return strings.Compare(a.Group, b.Group) })
	if c.JSON {
		for _, t := range totals {
			if err := printResult(t, "", true); err != nil {
				return err
			}
		}
		return nil
	}
	if c.Watch && ops.Terminal(os.Stdout) {
		fmt.Print("\x1b[H\x1b[2J")
	}
	fmt.Printf("%-24s %12s %10s\n", "GROUP", "LAG", "SECONDS")
	for _, t := range totals {
		fmt.Printf("%-24s %12s %10s\n", t.Group, orUnknown(t.RecordsKnown, t.Records), orUnknown(t.SecondsKnown, fmt.Sprintf("%.1f", t.Seconds)))
	}
	return nil
}

func orUnknown(known bool, v any) string {
	if !known {
		return "?"
	}
	return fmt.Sprint(v)
}
