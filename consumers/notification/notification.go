// Package notification is the service that writes to the buyers: a mail when
// an order is placed and one when it is cancelled.
//
// A handler never sends. It writes the mail down and makes a job for it, in
// the transaction of its effects, and only if the idempotency key is new. A
// worker sends the mail and then, in one transaction, settles it and appends
// NotificationSent; a job that runs again after that finds its mail settled.
// Between the server's answer and that transaction lies the one crash point
// that nobody can close: the mail is then sent again, with the same Message-ID
// and the same content, by which servers and readers tell that it is the same.
// The event comes once.
//
// The mails of one order leave one after the other: a cancellation waits
// until the mail about the order is settled, so nobody reads of the end
// before the beginning.
package notification

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"orderflow/consumers"
	"orderflow/internal/pg"
)

// Group is the service's consumer group and its Postgres schema.
const Group = "notification"

//go:embed migrations/*.sql
var files embed.FS

// New returns the service. The Config must be valid. The pool it runs with
// needs a connection for the queue's LISTEN and some more for jobs, beside
// the handlers'.
func New(c Config) consumers.Consumer {
	s := newService(c)
	migrations, _ := fs.Sub(files, "migrations") // fails for a malformed name only
	return consumers.Consumer{
		Group:        Group,
		Migrations:   migrations,
		AfterMigrate: migrateQueue,
		Handlers: []consumers.Handler{
			consumers.OnBatch(s.placed),
			consumers.OnBatch(s.cancelled),
		},
		Worker: s.work,
	}
}

type service struct {
	cfg    Config
	faults faults
	// inserter makes jobs in other people's transactions; it never works any.
	inserter func() (*river.Client[pgx.Tx], error)
}

func newService(c Config) *service {
	return &service{
		cfg: c.withDefaults(),
		inserter: sync.OnceValues(func() (*river.Client[pgx.Tx], error) {
			return river.NewClient(riverpgxv5.New(nil), &river.Config{
				FetchCooldown: wakeCooldown,
				Logger:        slog.New(slog.DiscardHandler),
			})
		}),
	}
}

// faults are the crash points that this package's tests reach. The zero value,
// the only one outside those tests, does nothing.
type faults struct {
	// sent runs at the crash point mail-sent: the server has the mail, and
	// nothing of it is committed.
	sent func() error
}

// Tally counts the mails by what became of them.
type Tally struct {
	Open       int64 // queued, or waiting for an earlier mail of their order
	Sent       int64
	Failed     int64 // for good
	Suppressed int64 // not sent on purpose
}

// Count reads the tally from the service's schema, which need not be on the
// search_path.
func Count(ctx context.Context, db pg.DB) (Tally, error) {
	var t Tally
	err := db.QueryRow(ctx, `
		SELECT count(*) FILTER (WHERE state IN ('waiting', 'queued')), count(*) FILTER (WHERE state = 'sent'),
		       count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state = 'suppressed')
		FROM notification.mails`).Scan(&t.Open, &t.Sent, &t.Failed, &t.Suppressed)
	if err != nil {
		return Tally{}, fmt.Errorf("count mails: %w", err)
	}
	return t, nil
}
