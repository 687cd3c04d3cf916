package relay

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	leader       prometheus.Gauge
	restarts     prometheus.Counter
	events       prometheus.Counter
	bytes        prometheus.Counter
	transactions prometheus.Counter
	txnSeconds   prometheus.Histogram
	ageSeconds   prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, source string) *metrics {
	labels := prometheus.Labels{"source": source}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "orderflow_relay_" + name, Help: help, ConstLabels: labels})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "orderflow_relay_" + name, Help: help, ConstLabels: labels, Buckets: buckets,
		})
	}
	m := &metrics{
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "orderflow_relay_leader", Help: "1 while this relay leads its source.", ConstLabels: labels,
		}),
		restarts:     counter("restarts_total", "Times that a relay began again after a failure."),
		events:       counter("events_published_total", "Events committed to Kafka."),
		bytes:        counter("published_bytes_total", "Bytes of payload and headers committed to Kafka."),
		transactions: counter("transactions_total", "Kafka transactions committed."),
		txnSeconds: histogram("transaction_duration_seconds", "Time from the begin of a Kafka transaction to its commit.",
			[]float64{0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5, 30}),
		ageSeconds: histogram("publish_age_seconds", "Age of a transaction's oldest event at its commit, since it was appended.",
			[]float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600}),
	}
	reg.MustRegister(m.leader, m.restarts, m.events, m.bytes, m.transactions, m.txnSeconds, m.ageSeconds)
	return m
}

func (m *metrics) committed(x *transaction, began time.Time) {
	now := time.Now()
	m.transactions.Inc()
	m.events.Add(float64(x.events))
	m.bytes.Add(float64(x.bytes))
	m.txnSeconds.Observe(now.Sub(began).Seconds())
	m.ageSeconds.Observe(now.Sub(x.oldest).Seconds())
}
