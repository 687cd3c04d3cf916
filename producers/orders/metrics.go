package orders

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// door is the way an order came in.
type door string

const (
	doorSingle door = "single"
	doorBulk   door = "bulk"
)

type metrics struct {
	accepted  *prometheus.CounterVec // door
	replayed  *prometheus.CounterVec // door
	rejected  *prometheus.CounterVec // door, reason: a code of the catalogue or of a fault
	cancelled prometheus.Counter
	requests  *prometheus.HistogramVec // route, status
	batch     *prometheus.HistogramVec // door
	commit    *prometheus.HistogramVec // door
	splits    *prometheus.CounterVec   // cause: bad_data, key_held
	retries   prometheus.Counter
	streams   prometheus.Gauge
}

// newMetrics registers the service's metrics. queued reports how many orders
// wait for the writer.
func newMetrics(reg prometheus.Registerer, queued func() int) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "orderflow_orders_" + name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "orderflow_orders_" + name, Help: help, Buckets: buckets,
		}, labels)
	}
	m := &metrics{
		accepted: counter("accepted_total", "Orders written, each with its event.", "door"),
		replayed: counter("replayed_total", "Requests answered from what an earlier one with the same key was told.", "door"),
		rejected: counter("rejected_total", "Orders refused, by the first thing that was wrong.", "door", "reason"),
		cancelled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "orderflow_orders_cancelled_total", Help: "Orders cancelled.",
		}),
		requests: histogram("request_duration_seconds", "Time from a request's head to the end of its answer.",
			prometheus.ExponentialBuckets(0.00025, 2, 16), "route", "status"),
		batch: histogram("batch_size", "Orders that shared one transaction.",
			prometheus.ExponentialBuckets(1, 2, 11), "door"),
		commit: histogram("commit_duration_seconds", "Time to write one batch, retries included.",
			prometheus.ExponentialBuckets(0.00025, 2, 16), "door"),
		splits: counter("batch_splits_total", "Batches halved because of one order in them.", "cause"),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "orderflow_orders_batch_retries_total", Help: "Batches tried again after the database failed.",
		}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "orderflow_orders_ingest_streams", Help: "Bulk ingests that are running.",
		}),
	}
	depth := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "orderflow_orders_queue_depth", Help: "Orders waiting for the writer.",
	}, func() float64 { return float64(queued()) })
	reg.MustRegister(m.accepted, m.replayed, m.rejected, m.cancelled, m.requests,
		m.batch, m.commit, m.splits, m.retries, m.streams, depth)
	return m
}

func (m *metrics) committed(d door, orders int, took time.Duration) {
	m.batch.WithLabelValues(string(d)).Observe(float64(orders))
	m.commit.WithLabelValues(string(d)).Observe(took.Seconds())
}

func (m *metrics) split(held bool) {
	cause := "bad_data"
	if held {
		cause = "key_held"
	}
	m.splits.WithLabelValues(cause).Inc()
}

// settled counts what became of one order.
func (m *metrics) settled(d door, a answer, p *problem) {
	switch {
	case p != nil:
		m.rejected.WithLabelValues(string(d), p.reason()).Inc()
	case a.replayed:
		m.replayed.WithLabelValues(string(d)).Inc()
	default:
		m.accepted.WithLabelValues(string(d)).Inc()
	}
}

func (m *metrics) answered(route string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Observe(took.Seconds())
}
