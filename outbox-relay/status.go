package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"orderflow/internal/pg"
	"orderflow/outbox-relay/source"
)

// Status is how a source stands, as the database knows it: the checkpoint is
// the copy that the leader renews, up to a quarter of a lease old.
type Status struct {
	// Leader is who holds the lease; nil if it is free or expired.
	Leader *uuid.UUID
	// Checkpoint is nil before the first publishing.
	Checkpoint *Checkpoint
	// Backlog is what the outbox holds behind the checkpoint.
	Backlog source.Backlog
}

// Published counts the events of this incarnation that the checkpoint stands
// behind.
func (s Status) Published() uint64 {
	var sum uint64
	if s.Checkpoint != nil {
		for _, partitions := range s.Checkpoint.Published {
			for _, n := range partitions {
				sum += n
			}
		}
	}
	return sum
}

// maxBacklog bounds the counting; a larger backlog reads as this much.
const maxBacklog = 1_000_000

// ReadStatus asks the database how a source stands.
func ReadStatus(ctx context.Context, db pg.DB, sourceName string) (Status, error) {
	var s Status
	var copied []byte
	err := db.QueryRow(ctx, `
		SELECT CASE WHEN expires_at > clock_timestamp() THEN holder END, checkpoint
		FROM outbox.relay WHERE source = $1`, sourceName).Scan(&s.Leader, &copied)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return Status{}, fmt.Errorf("read lease of source %s: %w", sourceName, err)
	}
	var point source.Point
	if copied != nil {
		if s.Checkpoint, err = decodeCheckpoint(copied); err != nil {
			return Status{}, err
		}
		point = s.Checkpoint.Point
	}
	s.Backlog, err = source.PollBacklog(ctx, db, point, maxBacklog)
	return s, err
}

// backlogMetrics shows the latest Status. A failed reading drops the series:
// unknown is not zero.
type backlogMetrics struct {
	events, age, at *prometheus.GaugeVec
}

const (
	statusInterval = 5 * time.Second
	statusTimeout  = 10 * time.Second
)

func newBacklogMetrics(reg prometheus.Registerer) *backlogMetrics {
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"source"})
	}
	m := &backlogMetrics{
		events: gauge("orderflow_outbox_backlog_events", "Committed events that are not published yet, at most 1,000,000."),
		age:    gauge("orderflow_outbox_oldest_age_seconds", "Age of the oldest event that is not published yet, 0 if there is none."),
		at:     gauge("orderflow_outbox_status_timestamp_seconds", "When the outbox was last looked at."),
	}
	reg.MustRegister(m.events, m.age, m.at)
	return m
}

// watch looks at the outbox again and again until ctx ends.
func (r *Relay) watch(ctx context.Context) {
	for ctx.Err() == nil {
		r.look(ctx)
		sleep(ctx, statusInterval)
	}
}

func (r *Relay) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	m, name := r.backlog, r.cfg.Source
	s, err := ReadStatus(ctx, r.db, name)
	if err != nil {
		m.events.DeleteLabelValues(name)
		m.age.DeleteLabelValues(name)
		return
	}
	age := 0.0
	if !s.Backlog.Oldest.IsZero() {
		age = time.Since(s.Backlog.Oldest).Seconds()
	}
	m.events.WithLabelValues(name).Set(float64(s.Backlog.Events))
	m.age.WithLabelValues(name).Set(age)
	m.at.WithLabelValues(name).SetToCurrentTime()
}
