package verify

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Bounds of one answer of a broker, and so of what is in memory at once.
const (
	fetchBytes          = 4 << 20
	fetchPartitionBytes = 1 << 20
	fetchReadBytes      = 64 << 20
	fetchWait           = 100 * time.Millisecond
)

// span is a stretch of one partition that is to be read.
type span struct {
	topic string
	id    int32
	from  int64
	// see gets every committed record and every transaction marker from from
	// on, in order, until it says that this was the last.
	see func(*kgo.Record) (last bool, err error)

	reached int64
	done    bool
}

func (s *span) String() string { return fmt.Sprintf("%s[%d] at offset %d", s.topic, s.id, s.reached) }

// read reads spans to their ends, or fails: a partition that cannot be read to
// its end is unknown, and unknown is not success.
func (c *check) read(ctx context.Context, spans []*span) error {
	if len(spans) == 0 {
		return nil
	}
	from := map[string]map[int32]kgo.Offset{}
	at := map[string]map[int32]*span{}
	for _, s := range spans {
		if from[s.topic] == nil {
			from[s.topic], at[s.topic] = map[int32]kgo.Offset{}, map[int32]*span{}
		}
		s.reached = s.from
		from[s.topic][s.id], at[s.topic][s.id] = kgo.NewOffset().At(s.from), s
	}
	cl, err := kgo.NewClient(append(c.cfg.Kafka.Options(c.cfg.Log),
		kgo.ConsumePartitions(from),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// Markers tell how far a log was read whose last records were aborted.
		kgo.KeepControlRecords(),
		kgo.FetchMaxBytes(fetchBytes),
		kgo.FetchMaxPartitionBytes(fetchPartitionBytes),
		kgo.BrokerMaxReadBytes(fetchReadBytes),
		kgo.FetchMaxWait(fetchWait),
	)...)
	if err != nil {
		return fmt.Errorf("make kafka consumer: %w", err)
	}
	defer cl.Close()
	return c.readWith(ctx, cl, at, len(spans))
}

func (c *check) readWith(ctx context.Context, cl *kgo.Client, at map[string]map[int32]*span, left int) error {
	ctx, progress, stop := waitFor(ctx, "the log", c.cfg.Patience)
	defer stop()
	for left > 0 {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("read the log: %w; not read to its end: %s", context.Cause(ctx), unread(at))
		}
		for _, fe := range fetches.Errors() {
			if s := at[fe.Topic][fe.Partition]; s != nil {
				return fmt.Errorf("read %s: %w", s, fe.Err)
			}
			return fmt.Errorf("read the log: %w", fe.Err)
		}
		var failed error
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			s := at[f.Topic][f.Partition]
			if s.done || len(f.Records) == 0 || failed != nil {
				return
			}
			progress.moved()
			if failed = s.take(f.Records); s.done {
				left--
				cl.PauseFetchPartitions(map[string][]int32{s.topic: {s.id}})
			}
		})
		if failed != nil {
			return failed
		}
	}
	return nil
}

func (s *span) take(records []*kgo.Record) (err error) {
	for _, r := range records {
		s.reached = r.Offset + 1
		if s.done, err = s.see(r); s.done || err != nil {
			return err
		}
	}
	return nil
}

// unread names the partitions that were not read to their end.
func unread(at map[string]map[int32]*span) string {
	var names []string
	for _, topic := range slices.Sorted(maps.Keys(at)) {
		for _, id := range slices.Sorted(maps.Keys(at[topic])) {
			if s := at[topic][id]; !s.done {
				names = append(names, s.String())
			}
		}
	}
	const most = 3
	if len(names) > most {
		return fmt.Sprintf("%v and %d more", names[:most], len(names)-most)
	}
	return fmt.Sprint(names)
}

// listOffsets asks for offsets by topic and partition. A topic that does not
// exist has none.
func listOffsets(ctx context.Context, list func(context.Context, ...string) (kadm.ListedOffsets, error), topics ...string) (map[string]map[int32]int64, error) {
	listed, err := list(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("list offsets: %w", err)
	}
	offsets := map[string]map[int32]int64{}
	for topic, parts := range listed {
		for id, o := range parts {
			if id < 0 {
				continue // the topic does not exist
			}
			if o.Err != nil {
				return nil, fmt.Errorf("list offsets of %s[%d]: %w", topic, id, o.Err)
			}
			if offsets[topic] == nil {
				offsets[topic] = map[int32]int64{}
			}
			offsets[topic][id] = o.Offset
		}
	}
	return offsets, nil
}
