package consumers

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Values of the label result.
const (
	resultApplied = "applied"
	resultSkipped = "skipped"
	resultHeld    = "held"
	resultFenced  = "fenced"
)

var ageBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600}

// metrics of one group; the label group is constant. Every counter that an
// alert watches exists with zero from the claim on, because a series that
// first appears with 1 never shows an increase.
type metrics struct {
	records         *prometheus.CounterVec   // topic, result
	batchSeconds    *prometheus.HistogramVec // topic
	batchRecords    *prometheus.HistogramVec // topic
	handlerSeconds  *prometheus.HistogramVec // topic, event_type
	eventAge        *prometheus.HistogramVec // topic
	position        *prometheus.GaugeVec     // topic, partition
	attempts        *prometheus.GaugeVec     // topic, partition
	stopped         *prometheus.GaugeVec     // topic, partition, reason
	retries         *prometheus.CounterVec   // topic, cause
	fenceRejections *prometheus.CounterVec   // topic
	claims          *prometheus.CounterVec   // topic, reason
	rebalances      *prometheus.CounterVec   // phase
	revokeSeconds   prometheus.Histogram
	gaps, repeats   *prometheus.CounterVec // topic, source
	commitUnknown   *prometheus.CounterVec // resolution
	holds           *prometheus.GaugeVec   // topic, state
	deadLetters     *prometheus.CounterVec // topic, error_class
	mirrorErrors    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, group string) *metrics {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	r := registrar{prometheus.WrapRegistererWith(prometheus.Labels{"group": group}, reg)}
	m := &metrics{
		records: r.counters("orderflow_consumer_records_total",
			"Events that passed a group, by what became of them.", "topic", "result"),
		batchSeconds: r.histograms("orderflow_consumer_batch_duration_seconds",
			"Time of one batch's transaction.", prometheus.ExponentialBuckets(.001, 2, 15), "topic"),
		batchRecords: r.histograms("orderflow_consumer_batch_records",
			"Records of one batch.", prometheus.ExponentialBuckets(1, 2, 13), "topic"),
		handlerSeconds: r.histograms("orderflow_consumer_handler_duration_seconds",
			"Time of one call of a handler.", prometheus.ExponentialBuckets(.0005, 2, 15), "topic", "event_type"),
		eventAge: r.histograms("orderflow_event_age_at_effect_seconds",
			"From the event's write to its outbox to the commit of its effect.", ageBuckets, "topic"),
		position: r.gauges("orderflow_consumer_position_offset",
			"The first offset not yet applied, as committed in Postgres.", "topic", "partition"),
		attempts: r.gauges("orderflow_consumer_attempts",
			"Failed attempts at the batch in hand; 0 when all is well.", "topic", "partition"),
		stopped: r.gauges("orderflow_consumer_partition_stopped",
			"1 while a partition waits for a person, with the reason.", "topic", "partition", "reason"),
		retries: r.counters("orderflow_consumer_retries_total",
			"Batches rolled back to be tried again.", "topic", "cause"),
		fenceRejections: r.counters("orderflow_consumer_fence_rejections_total",
			"Transactions refused because a newer owner exists.", "topic"),
		claims: r.counters("orderflow_consumer_claims_total",
			"Partitions claimed.", "topic", "reason"),
		rebalances: r.counters("orderflow_consumer_rebalances_total",
			"Changes of the group's assignment.", "phase"),
		gaps: r.counters("orderflow_consumer_sequence_gaps_total",
			"Holes found in the numbers of a source.", "topic", "source"),
		repeats: r.counters("orderflow_consumer_sequence_duplicates_total",
			"Repeats found in the numbers of a source.", "topic", "source"),
		commitUnknown: r.counters("orderflow_consumer_commit_unknown_total",
			"Commits whose answer was lost, by what reading back found.", "resolution"),
		holds: r.gauges("orderflow_hold_records",
			"Events set aside in the partitions this process owns.", "topic", "state"),
		deadLetters: r.counters("orderflow_dead_letters_total",
			"Events that became dead letters.", "topic", "error_class"),
	}
	m.revokeSeconds = register(r.Registerer, prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "orderflow_consumer_rebalance_blocked_seconds", Buckets: ageBuckets,
		Help: "How long a rebalance waited for batches in hand.",
	}))
	m.mirrorErrors = register(r.Registerer, prometheus.NewCounter(prometheus.CounterOpts{
		Name: "orderflow_consumer_mirror_errors_total",
		Help: "Commits to Kafka that failed; they are advisory.",
	}))
	m.zero()
	return m
}

func (m *metrics) zero() {
	for _, phase := range []string{"assigned", "revoked", "lost"} {
		m.rebalances.WithLabelValues(phase)
	}
	for _, r := range []string{"committed", "retry", "fenced"} {
		m.commitUnknown.WithLabelValues(r)
	}
}

// zeroTopic makes the counters of a topic exist.
func (m *metrics) zeroTopic(topic string) {
	for _, r := range []string{resultApplied, resultSkipped, resultHeld, resultFenced} {
		m.records.WithLabelValues(topic, r)
	}
	for _, c := range []string{causeHandler, causeInfrastructure} {
		m.retries.WithLabelValues(topic, c)
	}
	for _, class := range []string{classDecode, classSchema, classHandler} {
		m.deadLetters.WithLabelValues(topic, class)
	}
	for _, state := range []string{stateDead, stateParked} {
		m.holds.WithLabelValues(topic, state)
	}
	m.fenceRejections.WithLabelValues(topic)
}

func (m *metrics) zeroSource(topic, source string) {
	m.gaps.WithLabelValues(topic, source)
	m.repeats.WithLabelValues(topic, source)
}

type registrar struct{ prometheus.Registerer }

func (r registrar) counters(name, help string, labels ...string) *prometheus.CounterVec {
	return register(r.Registerer, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
}

func (r registrar) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return register(r.Registerer, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels))
}

func (r registrar) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return register(r.Registerer, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels))
}

// register returns the collector that is already there when a group runs for
// the second time in one process.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	var dup prometheus.AlreadyRegisteredError
	if err := reg.Register(c); errors.As(err, &dup) {
		if there, ok := dup.ExistingCollector.(C); ok {
			return there
		}
	}
	return c
}
