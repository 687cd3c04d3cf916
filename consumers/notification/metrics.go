package notification

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"orderflow/internal/pg"
)

const (
	backlogInterval = 10 * time.Second
	backlogTimeout  = 5 * time.Second

	resultRetried = "retried" // beside the states of a mail
)

// metrics of the service; the labels group and kind are constant.
type metrics struct {
	intents     *prometheus.CounterVec // result
	pending     *prometheus.GaugeVec   // no labels; absent while unknown
	oldest      *prometheus.GaugeVec   // the same
	lastSuccess prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"group": Group, "kind": "mail"}, reg)
	gauge := func(name, help string) *prometheus.GaugeVec {
		return register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, nil))
	}
	m := &metrics{
		intents: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "orderflow_effect_intents_total",
			Help: "Effects outside the platform, by what became of them; retried counts failed attempts.",
		}, []string{"result"})),
		pending: gauge("orderflow_effect_intents_pending", "Effects that were asked for and are not settled."),
		oldest:  gauge("orderflow_effect_intents_oldest_age_seconds", "Age of the oldest effect that is not settled; 0 if none."),
		lastSuccess: register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "orderflow_effect_intents_last_success_timestamp_seconds",
			Help: "When the pending effects were last counted.",
		})),
	}
	for _, result := range []string{stateSent, stateFailed, stateSuppressed, resultRetried} {
		m.intents.WithLabelValues(result) // a series that first appears with 1 never shows an increase
	}
	return m
}

// register returns the collector that is already there when the service runs
// for the second time in one process.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	var dup prometheus.AlreadyRegisteredError
	if err := reg.Register(c); errors.As(err, &dup) {
		if there, ok := dup.ExistingCollector.(C); ok {
			return there
		}
	}
	return c
}

// watch counts the backlog until ctx ends. While it cannot, the series are
// absent: unknown is not zero.
func (m *metrics) watch(ctx context.Context, db pg.DB, log *slog.Logger) {
	tick := time.NewTicker(backlogInterval)
	defer tick.Stop()
	for {
		if err := m.poll(ctx, db); err != nil && ctx.Err() == nil {
			m.pending.Reset()
			m.oldest.Reset()
			log.WarnContext(ctx, "retry counting mails", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (m *metrics) poll(ctx context.Context, db pg.DB) error {
	ctx, cancel := context.WithTimeout(ctx, backlogTimeout)
	defer cancel()
	var open int64
	var age float64
	err := db.QueryRow(ctx, `
		SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8
		FROM mails WHERE state IN ('waiting', 'queued')`).Scan(&open, &age)
	if err != nil {
		return err
	}
	m.pending.WithLabelValues().Set(float64(open))
	m.oldest.WithLabelValues().Set(age)
	m.lastSuccess.SetToCurrentTime()
	return nil
}
