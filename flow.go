package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"

	"orderflow/consumers"
	"orderflow/consumers/notification"
	"orderflow/outbox-relay"
)

// flow is where the orders' events are at one moment, read from the truth:
// the outbox, the log's ends, and each group's positions.
type flow struct {
	published uint64
	backlog   int64
	oldest    time.Time // of the backlog, zero if there is none
	groups    []groupFlow
	mailsSent int64
	mailsDue  int64
}

type groupFlow struct {
	name    string
	applied int64
	behind  int64 // offsets below the last stable one that are not applied
	held    int64
}

// watcher reads flows with connections of its own.
type watcher struct {
	db     *pgxpool.Pool
	admin  *kadm.Client
	groups []consumers.Consumer
	source string
}

const lookTimeout = 10 * time.Second

// look reads what is due before what makes it due, so that an empty flow
// stays empty: mails, then groups, then the outbox.
func (w *watcher) look(ctx context.Context) (flow, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	var f flow
	mails, err := notification.Count(ctx, w.db)
	if err != nil {
		return flow{}, err
	}
	f.mailsSent, f.mailsDue = mails.Sent, mails.Open
	for _, c := range w.groups {
		g, err := w.group(ctx, c)
		if err != nil {
			return flow{}, fmt.Errorf("look at group %s: %w", c.Group, err)
		}
		f.groups = append(f.groups, g)
	}
	s, err := relay.ReadStatus(ctx, w.db, w.source)
	if err != nil {
		return flow{}, err
	}
	f.published, f.backlog, f.oldest = s.Published(), s.Backlog.Events, s.Backlog.Oldest
	return f, nil
}

func (w *watcher) group(ctx context.Context, c consumers.Consumer) (groupFlow, error) {
	g := groupFlow{name: c.Group}
	positions, err := consumers.Positions(ctx, w.db, c.Group)
	if err != nil {
		return g, err
	}
	next := make(map[string]map[int32]int64)
	for _, p := range positions {
		if next[p.Topic] == nil {
			next[p.Topic] = make(map[int32]int64)
		}
		next[p.Topic][p.Partition] = p.NextOffset
		g.applied += p.AppliedCount
	}
	ends, err := w.admin.ListCommittedOffsets(ctx, c.Topics()...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return g, fmt.Errorf("list ends: %w", err)
	}
	ends.Each(func(o kadm.ListedOffset) {
		g.behind += max(0, o.Offset-next[o.Topic][o.Partition])
	})
	g.held, err = consumers.Held(ctx, w.db, c.Group)
	return g, err
}

// drained says whether nothing is under way, and if not, what is.
func (f flow) drained() (bool, string) {
	if f.backlog > 0 {
		return false, fmt.Sprintf("the relay to publish %d events, the oldest %s old", f.backlog, time.Since(f.oldest).Round(time.Second))
	}
	for _, g := range f.groups {
		if g.behind > 0 {
			return false, fmt.Sprintf("group %s to apply %d records", g.name, g.behind)
		}
	}
	if f.mailsDue > 0 {
		return false, fmt.Sprintf("notification to send %d mails", f.mailsDue)
	}
	return true, ""
}

// progress is a number that grows as long as anything moves.
func (f flow) progress() int64 {
	sum := int64(f.published) + f.mailsSent
	for _, g := range f.groups {
		sum += g.applied - g.behind
	}
	return sum - f.backlog
}
