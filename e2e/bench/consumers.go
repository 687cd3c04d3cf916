package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow/consumers"
	"orderflow/internal/kafka"
	"orderflow/internal/pg"
	"orderflow/schemas"
)

// ConsumersOptions size the bench of the consumer runtime.
type ConsumersOptions struct {
	Options
	// Events are applied in each round.
	Events int
}

const (
	minEffectsRatio = 0.9
	effectConns     = 4    // connections of both sides
	bareBatch       = 1000 // rows of one bare insert
	effectsPoll     = 20 * time.Millisecond
	effectsLimit    = 5 * time.Minute
)

const effectSQL = `INSERT INTO effects (order_id, customer_id, total_minor, placed_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[])`

// effects are rows to insert, by column.
type effects struct {
	orders, customers []string
	totals            []int64
	at                []time.Time
}

func (e *effects) add(o *schemas.OrderPlaced) {
	e.orders, e.customers = append(e.orders, o.Meta.OrderID), append(e.customers, o.CustomerID)
	e.totals, e.at = append(e.totals, o.Totals.Grand.Minor), append(e.at, o.Meta.OccurredAt)
}

func (e *effects) args() []any { return []any{e.orders, e.customers, e.totals, e.at} }

// Consumers applies a topic's events through the runtime (fetch, decode,
// fence, position, self-check, effects), beside a plain consumer that inserts
// the same rows in batches without position and fence, and beside the inserts
// alone, without Kafka and Avro.
func Consumers(ctx context.Context, o ConsumersOptions) ([]Row, error) {
	l, err := newLab(ctx, o.Options)
	if err != nil {
		return nil, err
	}
	defer l.close()
	if err := errors.Join(l.startKafka(ctx, o.Options), l.migrateOutbox(ctx)); err != nil {
		return nil, err
	}
	if err := l.fill(ctx, o.Events); err != nil {
		return nil, err
	}
	if _, err := l.drain(ctx, RelayOptions{Options: o.Options}, o.Events, "consumers"); err != nil {
		return nil, err
	}
	batches, err := bareBatches(ctx, o.Events)
	if err != nil {
		return nil, err
	}
	var applied, plain, bare []float64
	for round := range o.Rounds {
		b, err := l.bareRound(ctx, batches, o.Events)
		if err != nil {
			return nil, err
		}
		a, err := l.consumeRound(ctx, fmt.Sprintf("bench_%d", round), o.Events)
		if err != nil {
			return nil, err
		}
		p, err := l.plainRound(ctx, o.Events)
		if err != nil {
			return nil, err
		}
		applied, plain, bare = append(applied, a), append(plain, p), append(bare, b)
		l.log.Info("measured", "round", round+1, "effects", a, "plain", p, "bare", b)
	}
	return []Row{
		compared("consumer effects, fenced", "effects/s",
			"a plain consumer: the same fetch, decode and batch inserts, without position and fence", applied, plain, minEffectsRatio),
		compared("consumer effects, against inserts", "effects/s",
			fmt.Sprintf("the bare inserts alone, %d rows a statement, %d connections", bareBatch, effectConns), applied, bare, 0),
	}, nil
}

// bareBatches makes rows like those of the events, without decoding them.
func bareBatches(ctx context.Context, n int) ([]effects, error) {
	rows, err := prepareOrders(ctx, preparedOrders)
	if err != nil {
		return nil, err
	}
	var batches []effects
	for done := 0; done < n; done += bareBatch {
		var e effects
		for i := range min(bareBatch, n-done) {
			e.orders, e.customers = append(e.orders, rows[(done+i)%len(rows)].AggregateID), append(e.customers, "12345")
			e.totals, e.at = append(e.totals, int64(done+i)), append(e.at, time.Now())
		}
		batches = append(batches, e)
	}
	return batches, nil
}

// groupPool opens a pool on a schema of the group's own, with the table of the
// effects.
func (l *lab) groupPool(ctx context.Context, group string) (*pgxpool.Pool, error) {
	for _, sql := range []string{
		`CREATE SCHEMA IF NOT EXISTS ` + group,
		`CREATE TABLE ` + group + `.effects (order_id text, customer_id text, total_minor bigint, placed_at timestamptz)`,
	} {
		if _, err := l.db.Exec(ctx, sql); err != nil {
			return nil, fmt.Errorf("make schema of %s: %w", group, err)
		}
	}
	return pg.Open(ctx, pg.Config{URL: l.url, Schema: group, MaxConns: effectConns})
}

func (l *lab) dropGroup(ctx context.Context, group string) error {
	if _, err := l.db.Exec(ctx, `DROP SCHEMA `+group+` CASCADE`); err != nil {
		return fmt.Errorf("drop schema of %s: %w", group, err)
	}
	return nil
}

func (l *lab) bareRound(ctx context.Context, batches []effects, events int) (float64, error) {
	db, err := l.groupPool(ctx, "bare")
	if err != nil {
		return 0, err
	}
	defer db.Close()
	next := make(chan *effects, len(batches)) // closed below
	for i := range batches {
		next <- &batches[i]
	}
	close(next)
	errs := make([]error, effectConns)
	var wg sync.WaitGroup
	began := time.Now()
	for c := range effectConns {
		wg.Go(func() {
			for e := range next {
				if _, err := db.Exec(ctx, effectSQL, e.args()...); err != nil {
					errs[c] = fmt.Errorf("insert bare: %w", err)
					return
				}
			}
		})
	}
	wg.Wait()
	rate := float64(events) / time.Since(began).Seconds()
	return rate, errors.Join(append(errs, l.dropGroup(ctx, "bare"))...)
}

func insertEffects(ctx context.Context, tx pgx.Tx, events []consumers.Event[*schemas.OrderPlaced]) error {
	var e effects
	for i := range events {
		e.add(events[i].Value)
	}
	_, err := tx.Exec(ctx, effectSQL, e.args()...)
	return err
}

// consumeRound runs a group of its own over the whole topic.
func (l *lab) consumeRound(ctx context.Context, group string, events int) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, effectsLimit)
	defer cancel()
	db, err := l.groupPool(ctx, group)
	if err != nil {
		return 0, err
	}
	defer db.Close()
	registry, err := schemas.NewRegistry(l.registry.URL())
	if err != nil {
		return 0, err
	}
	c := consumers.Consumer{Group: group, Handlers: []consumers.Handler{consumers.OnBatch(insertEffects)}}
	if err := c.Migrate(ctx, l.db); err != nil {
		return 0, err
	}
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- c.Run(run, consumers.Deps{DB: db, Kafka: kafka.Config{Brokers: l.brokers}, Decoder: schemas.NewDecoder(registry), Log: l.log})
	}()
	rate, err := l.awaitApplied(ctx, group, int64(events))
	stop()
	return rate, errors.Join(err, <-done, l.dropGroup(context.WithoutCancel(ctx), group))
}

// awaitApplied returns events a second between the first sight of effects and
// the last.
func (l *lab) awaitApplied(ctx context.Context, group string, events int64) (float64, error) {
	tick := time.NewTicker(effectsPoll)
	defer tick.Stop()
	var first int64
	var began time.Time
	for {
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("wait for the effects of %s: %w", group, ctx.Err())
		case <-tick.C:
		}
		positions, err := consumers.Positions(ctx, l.db, group)
		if err != nil {
			return 0, err
		}
		var n int64
		for _, p := range positions {
			n += p.AppliedCount
		}
		if began.IsZero() && n > 0 {
			first, began = n, time.Now()
		}
		if n >= events {
			return float64(n-first) / time.Since(began).Seconds(), nil
		}
	}
}
