// Package consumers is the runtime that every consumer group shares: it reads
// a group's topics, and applies each event's effects exactly once to the
// group's own Postgres schema, in the order of each key.
//
// A service declares a Consumer: its group and its handlers. The runtime keeps
// the group's position in the service's schema and moves it in the transaction
// that holds the effects, under a fence that shuts out every earlier owner of
// the partition. Kafka's own offsets are a mirror for lag tools, never read.
package consumers

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/internal/kafka"
	"orderflow/schemas"
)

// Consumer is one service seen by the runtime: a group and what it does with
// each type of event.
type Consumer struct {
	// Group is the consumer group and the Postgres schema that holds the
	// group's positions and its own tables: lower-case letters, digits and
	// underscores.
	Group string
	// Migrations are the service's own *.sql files, at the root. They run
	// after the runtime's, in the schema Group. Nil means none.
	Migrations fs.FS
	// AfterMigrate runs after Migrations, for libraries that bring migrations
	// of their own. It must be repeatable. Nil means nothing to do.
	AfterMigrate func(ctx context.Context, pool *pgxpool.Pool, schema string) error
	// Handlers say which events matter, one per type. Their types decide the
	// topics the group reads; other types in those topics are skipped by
	// header, without decoding.
	Handlers []Handler
	// Worker is an optional long-running function of the service, such as a
	// sender of jobs. It runs as long as Run does, and its error ends Run.
	Worker func(ctx context.Context, w WorkerDeps) error
}

// Deps are what a Consumer needs from the process it runs in.
type Deps struct {
	// DB is a pool whose search_path is the group's schema. Each partition
	// that is at work holds one connection; more partitions than connections
	// take turns.
	DB *pgxpool.Pool
	// Kafka says how to reach the cluster.
	Kafka kafka.Config
	// Decoder turns record values into events.
	Decoder *schemas.Decoder
	// Log receives the runtime's log. Nil discards it.
	Log *slog.Logger
	// Metrics is where the runtime's metrics are registered; several groups
	// may share one. Nil keeps them private.
	Metrics prometheus.Registerer
	// Limits bound batches, buffers and waits. The zero value is the default.
	Limits Limits

	faults *faults // set by tests of this package only
}

// WorkerDeps are what a Consumer's Worker gets.
type WorkerDeps struct {
	DB      *pgxpool.Pool
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Event is one event of type E together with where it was read.
type Event[E schemas.Event] struct {
	Value     E
	Topic     string
	Partition int32
	Offset    int64
	Timestamp time.Time // when the event was written to its outbox
	Headers   []kgo.RecordHeader
}

// Handler applies the events of one type. Make one with On or OnBatch.
type Handler struct {
	schema *schemas.Schema
	apply  func(ctx context.Context, tx pgx.Tx, batch []*item) error
}

// On makes a Handler that applies one event at a time. It is a convenience:
// a statement per event costs about seven times what OnBatch's statement per
// batch does.
//
// h runs inside the transaction that also moves the group's position, and must
// touch the database through tx only. Nil means applied. An error made by
// Permanent sets the event aside as a dead letter; any other error rolls the
// batch back, and the partition tries again after a pause. h may run again
// after a rollback, so it must not have effects outside tx.
func On[E schemas.Event](h func(ctx context.Context, tx pgx.Tx, e E) error) Handler {
	return Handler{
		schema: schemaOf[E](),
		apply: func(ctx context.Context, tx pgx.Tx, batch []*item) error {
			for _, i := range batch {
				if err := h(ctx, tx, i.value.(E)); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// OnBatch makes a Handler that applies many events of one type at once, in
// their order. A key's events of several types keep their order too: the
// runtime cuts a batch wherever a key changes its type.
//
// h follows the rules of On. When it returns a Permanent error for several
// events, the runtime calls it again with one event at a time to find the
// culprit.
func OnBatch[E schemas.Event](h func(ctx context.Context, tx pgx.Tx, events []Event[E]) error) Handler {
	return Handler{
		schema: schemaOf[E](),
		apply: func(ctx context.Context, tx pgx.Tx, batch []*item) error {
			events := make([]Event[E], len(batch))
			for n, i := range batch {
				r := i.record
				events[n] = Event[E]{
					Value: i.value.(E), Topic: r.Topic, Partition: r.Partition,
					Offset: r.Offset, Timestamp: r.Timestamp, Headers: r.Headers,
				}
			}
			return h(ctx, tx, events)
		},
	}
}

// schemaOf works without a value: EventSchema is static.
func schemaOf[E schemas.Event]() *schemas.Schema {
	var none E
	return none.EventSchema()
}

// Permanent marks err as final for this event: trying again cannot help. The
// event becomes a dead letter and later events of its key are parked behind
// it, while other keys flow. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// IsPermanent reports whether err was marked by Permanent.
func IsPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}
