package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/internal/kafka"
	"orderflow/schemas"
)

// eventLog is the log that a relay publishes to: Kafka, or in the property
// test a model of it that fails on purpose.
type eventLog interface {
	// open fences every session of the source that was opened before, and
	// ends the transaction that it left open.
	open(ctx context.Context) (session, error)
}

// session publishes transactions until its first failure; then it is closed
// and another is opened.
type session interface {
	// checkpoint reads the last committed one; nil if there is none.
	checkpoint(ctx context.Context) (*Checkpoint, error)
	// partitions tells how many partitions a topic has.
	partitions(ctx context.Context, topic string) (int32, error)
	begin() error
	// produce sends a record within the transaction; done is called once.
	produce(ctx context.Context, r *kgo.Record, done func(*kgo.Record, error))
	// flush sends what was produced without waiting for company, until
	// everything is acknowledged or ctx ends.
	flush(ctx context.Context)
	// commit ends the transaction. After an error it may have happened or not.
	commit(ctx context.Context) error
	close()
}

const (
	openTimeout       = 30 * time.Second
	checkpointTimeout = 30 * time.Second
	commitTimeout     = 30 * time.Second
	// linger is how long records wait for company. Without it a drain sends
	// many small requests, which the broker pays for.
	linger = 10 * time.Millisecond
	// maxBuffered is above what the sources' batches can hold, so that the
	// client's own bound never blocks: ours is in bytes.
	maxBuffered = 1 << 20
)

// kafkaLog is the real eventLog.
type kafkaLog struct {
	cfg    kafka.Config
	source string
	log    *slog.Logger
}

func (k kafkaLog) open(ctx context.Context) (session, error) {
	opts := append(k.cfg.Options(k.log),
		kgo.TransactionalID(k.source),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		// While events keep coming, requests fill up; flush ends the wait.
		kgo.ProducerLinger(linger),
		// Headers repeat from record to record. Compressed they cost the relay
		// no more, and the broker less, which is what bounds a drain.
		kgo.ProducerBatchCompression(kgo.SnappyCompression()),
		kgo.MaxBufferedRecords(maxBuffered),
		kgo.UnknownTopicRetries(-1),
		kgo.ConcurrentTransactionsBackoff(time.Millisecond),
	)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("make kafka producer: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if _, _, err := cl.ProducerID(ctx); err != nil {
		cl.Close()
		return nil, fmt.Errorf("fence predecessors of source %s: %w", k.source, err)
	}
	return &kafkaSession{kafkaLog: k, cl: cl}, nil
}

type kafkaSession struct {
	kafkaLog
	cl *kgo.Client
}

func (s *kafkaSession) begin() error { return s.cl.BeginTransaction() }

func (s *kafkaSession) produce(ctx context.Context, r *kgo.Record, done func(*kgo.Record, error)) {
	s.cl.Produce(ctx, r, done)
}

func (s *kafkaSession) flush(ctx context.Context) {
	_ = s.cl.Flush(ctx) // the records' own errors tell
}

func (s *kafkaSession) commit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	return s.cl.EndTransaction(ctx, kgo.TryCommit)
}

// close drops the session as it stands. An open transaction is not aborted
// here: whoever opens the next session does that, and fences this one.
func (s *kafkaSession) close() { s.cl.Close() }

func (s *kafkaSession) partitions(ctx context.Context, topic string) (int32, error) {
	details, err := kadm.NewClient(s.cl).ListTopics(ctx, topic)
	if err != nil {
		return 0, fmt.Errorf("look at topic %s: %w", topic, err)
	}
	d := details[topic]
	if errors.Is(d.Err, kerr.UnknownTopicOrPartition) {
		return 0, fmt.Errorf("topic %s does not exist, create it with `orderflow topics`: %w", topic, d.Err)
	}
	if d.Err != nil {
		return 0, fmt.Errorf("look at topic %s: %w", topic, d.Err)
	}
	return int32(len(d.Partitions)), nil
}

func (s *kafkaSession) checkpoint(ctx context.Context) (*Checkpoint, error) {
	return s.lastCheckpoint(ctx, s.cl)
}

// lastCheckpoint reads the topic of checkpoints backwards, in growing steps,
// until a step holds one of this source.
func (k kafkaLog) lastCheckpoint(ctx context.Context, cl *kgo.Client) (*Checkpoint, error) {
	ctx, cancel := context.WithTimeout(ctx, checkpointTimeout)
	defer cancel()
	start, end, err := k.bounds(ctx, cl)
	if err != nil {
		return nil, err
	}
	for step := int64(1000); ; step *= 8 {
		from := max(start, end-step)
		value, err := k.lastIn(ctx, from, end)
		if err != nil {
			return nil, fmt.Errorf("read checkpoint of source %s: %w", k.source, err)
		}
		if value != nil {
			return decodeCheckpoint(value)
		}
		if from == start {
			return nil, nil
		}
	}
}

// bounds returns the start of the checkpoints' log and its high watermark. The
// last stable offset would not do as the end: another source's open
// transaction can hold it below our own last checkpoint.
func (k kafkaLog) bounds(ctx context.Context, cl *kgo.Client) (start, end int64, err error) {
	adm := kadm.NewClient(cl)
	starts, err := adm.ListStartOffsets(ctx, schemas.RelaysTopic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return 0, 0, fmt.Errorf("find start of %s: %w", schemas.RelaysTopic, err)
	}
	ends, err := adm.ListEndOffsets(ctx, schemas.RelaysTopic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return 0, 0, fmt.Errorf("find end of %s: %w", schemas.RelaysTopic, err)
	}
	first, ok1 := starts.Lookup(schemas.RelaysTopic, 0)
	last, ok2 := ends.Lookup(schemas.RelaysTopic, 0)
	if !ok1 || !ok2 {
		return 0, 0, fmt.Errorf("topic %s does not exist, create it with `orderflow topics`", schemas.RelaysTopic)
	}
	return first.Offset, last.Offset, nil
}

// lastIn returns the source's last committed value in [from, end). It reads on
// until end itself is stable, so it waits for open transactions of others.
func (k kafkaLog) lastIn(ctx context.Context, from, end int64) ([]byte, error) {
	if from >= end {
		return nil, nil
	}
	cl, err := kgo.NewClient(append(k.cfg.Options(k.log),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{schemas.RelaysTopic: {0: kgo.NewOffset().At(from)}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
		kgo.FetchMaxWait(50*time.Millisecond),
	)...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var value []byte
	for {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return nil, err
		}
		for _, fe := range fetches.Errors() {
			return nil, fe.Err
		}
		reached := from
		fetches.EachRecord(func(r *kgo.Record) {
			reached = r.Offset + 1
			if !r.Attrs.IsControl() && string(r.Key) == k.source && r.Offset < end {
				value = r.Value
			}
		})
		if reached >= end {
			return value, nil
		}
	}
}
