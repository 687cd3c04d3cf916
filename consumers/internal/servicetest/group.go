package servicetest

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/consumers"
	"orderflow/internal/kafka"
	"orderflow/internal/testenv"
	"orderflow/schemas"
)

const (
	source  = "test"
	endWait = 30 * time.Second
	// applyWait is how long a group may take for the few events of a test.
	applyWait = 30 * time.Second
)

// Group is a service at work: its runtime reads a broker of its own.
type Group struct {
	pool     *pgxpool.Pool
	client   *kgo.Client
	registry *schemas.Registry
	group    string
	produced int64
	numbers  map[place]uint64 // the last position by place
	topics   map[string]int32 // partitions by topic
}

type place struct {
	topic     string
	partition int32
}

// Start runs the consumer until the test ends.
func Start(t testing.TB, c consumers.Consumer, pool *pgxpool.Pool) *Group {
	t.Helper()
	registry, err := schemas.NewRegistry(testenv.Registry(t))
	if err != nil {
		t.Fatal(err)
	}
	log := testenv.Logger(t)
	cfg := kafka.Config{Brokers: testenv.Kafka(t)}
	client, err := kafka.Open(t.Context(), cfg, log, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	g := &Group{pool: pool, client: client, registry: registry, group: c.Group, numbers: map[place]uint64{}, topics: map[string]int32{}}
	if err := kafka.EnsureTopics(t.Context(), client, schemas.Topics(), 1); err != nil {
		t.Fatal(err)
	}
	for _, topic := range schemas.Topics() {
		g.topics[topic.Name] = topic.Partitions
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- c.Run(ctx, consumers.Deps{
			DB: pool, Kafka: cfg, Decoder: schemas.NewDecoder(registry), Log: log, Metrics: prometheus.NewRegistry(),
		})
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("run %s: %v", c.Group, err)
			}
		case <-time.After(endWait):
			t.Errorf("run %s: still running %s after the end", c.Group, endWait)
		}
	})
	return g
}

// Produce publishes events as the relay does, in order and acknowledged.
func (g *Group) Produce(t testing.TB, events ...schemas.Event) {
	t.Helper()
	records := make([]*kgo.Record, len(events))
	for i, e := range events {
		records[i] = g.record(t, e)
	}
	if err := g.client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	g.produced += int64(len(events))
}

func (g *Group) record(t testing.TB, e schemas.Event) *kgo.Record {
	t.Helper()
	s, m := e.EventSchema(), e.Envelope()
	m.EventType = s.FullName
	value, err := s.AppendFramed(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	id, err := g.registry.ID(t.Context(), s.Subject, s.Text)
	if err != nil {
		t.Fatal(err)
	}
	schemas.PutSchemaID(value, id)
	key := []byte(schemas.Key(e))
	at := place{s.Topic, kafka.Partition(key, g.topics[s.Topic])}
	g.numbers[at]++
	header := func(k, v string) kgo.RecordHeader { return kgo.RecordHeader{Key: k, Value: []byte(v)} }
	position := kafka.Position{Incarnation: 1, N: g.numbers[at], Source: source}
	return &kgo.Record{
		Topic: s.Topic, Partition: at.partition, Key: key, Value: value, Timestamp: time.Now(),
		Headers: []kgo.RecordHeader{
			header(kafka.HeaderID, m.EventID), header(kafka.HeaderType, s.FullName),
			header(kafka.HeaderSource, "/services/"+m.Producer), header(kafka.HeaderSubject, m.OrderID),
			header(kafka.HeaderTime, m.OccurredAt.Format(time.RFC3339Nano)), header(kafka.HeaderSpecVersion, "1.0"),
			header(kafka.HeaderCorrelation, m.CorrelationID), header(kafka.HeaderPosition, string(position.Append(nil))),
		},
	}
}

// WaitApplied returns when the group has applied all that was produced.
func (g *Group) WaitApplied(t testing.TB) {
	t.Helper()
	testenv.Wait(t, applyWait, "the group to apply what was produced", func() bool {
		positions, err := consumers.Positions(t.Context(), g.pool, g.group)
		if err != nil {
			t.Fatal(err)
		}
		var applied int64
		for _, p := range positions {
			applied += p.AppliedCount
		}
		return applied == g.produced
	})
}
