package lag

import (
	"context"
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The size of one request for timestamps. A broker answers the first partition
// with a whole batch however large it is, and the others only within the
// limits, so that many small batches come with one request and a large one by
// itself.
const (
	maxPartitionsPerFetch = 64
	maxPartitionBytes     = 16 << 10
	maxFetchBytes         = 1 << 20
	maxFetchWaitMillis    = 500
)

// lookUp reads the first committed record at or after each spot, with at most
// budget reads of a partition, and hands on every finding. Records of aborted
// transactions, markers and offsets that compaction left empty are passed
// over; when only those are left below the last stable offset, that is a
// finding too. A spot that the budget left out has neither finding nor error.
func (a *asker) lookUp(ctx context.Context, todo []*lookup, budget int, note func(*lookup, finding)) {
	byLeader := map[int32][]*lookup{}
	for _, l := range todo {
		byLeader[l.leader] = append(byLeader[l.leader], l)
	}
	for leader, queue := range byLeader {
		for len(queue) > 0 && budget > 0 {
			batch, rest := distinct(queue, min(maxPartitionsPerFetch, budget))
			parts, err := a.fetch(ctx, leader, batch)
			if err != nil {
				giveUp(queue, err)
				break
			}
			reads, again := take(batch, parts, note)
			budget -= reads
			queue = append(rest, again...)
		}
	}
}

func giveUp(queue []*lookup, err error) {
	for _, l := range queue {
		l.err = err
	}
}

// take hands out what one request returned. It says how many partitions were
// read and which look-ups go on: those without an answer first, since they
// may need a request to themselves, and those that need many reads last.
func take(batch []*lookup, parts map[logKey]*kmsg.FetchResponseTopicPartition, note func(*lookup, finding)) (reads int, again []*lookup) {
	var unfinished []*lookup
	for i, l := range batch {
		l.tried = true
		rp := parts[l.log()]
		switch read := rp != nil && l.step(rp, note); {
		case read:
			reads++
			if l.from < l.until {
				unfinished = append(unfinished, l)
			}
		case l.err != nil:
		case i == 0:
			l.err = errNothingRead
		default:
			again = append(again, l)
		}
	}
	return reads, append(again, unfinished...)
}

// errNothingRead is for a partition that was asked for first and still came
// back without a record.
var errNothingRead = errors.New("the broker returned no record")

// distinct takes up to n look-ups of different partitions off the queue.
func distinct(queue []*lookup, n int) (batch, rest []*lookup) {
	taken := map[logKey]bool{}
	for _, l := range queue {
		if len(batch) < n && !taken[l.log()] {
			taken[l.log()] = true
			batch = append(batch, l)
		} else {
			rest = append(rest, l)
		}
	}
	return batch, rest
}

// fetch sends one request to the partitions' leader.
func (a *asker) fetch(ctx context.Context, leader int32, batch []*lookup) (map[logKey]*kmsg.FetchResponseTopicPartition, error) {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = maxFetchWaitMillis, 1, maxFetchBytes
	req.IsolationLevel = committed
	for _, l := range batch {
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes = l.spot.partition, l.from, maxPartitionBytes
		// The order is kept, so a topic may come more than once.
		t := kmsg.NewFetchRequestTopic()
		t.Topic, t.TopicID = l.spot.name, l.spot.topic
		t.Partitions = []kmsg.FetchRequestTopicPartition{p}
		req.Topics = append(req.Topics, t)
	}
	kresp, err := a.cl.Broker(int(leader)).RetriableRequest(ctx, req)
	if err == nil {
		err = kerr.ErrorForCode(kresp.(*kmsg.FetchResponse).ErrorCode)
	}
	if err != nil {
		a.tell(kmsg.NameForKey(req.Key()), code(err))
		return nil, err
	}
	var first error
	parts := map[logKey]*kmsg.FetchResponseTopicPartition{}
	for _, t := range kresp.(*kmsg.FetchResponse).Topics {
		name := t.Topic
		if i := slices.IndexFunc(batch, func(l *lookup) bool { return l.spot.topic == t.TopicID }); name == "" && i >= 0 {
			name = batch[i].spot.name // newer brokers answer by id only
		}
		for i := range t.Partitions {
			parts[logKey{name, t.Partitions[i].Partition}] = &t.Partitions[i]
			first = firstError(first, kerr.ErrorForCode(t.Partitions[i].ErrorCode))
		}
	}
	a.tell(kmsg.NameForKey(req.Key()), code(first))
	return parts, nil
}

// step takes in what one read returned and says whether it got anywhere.
func (l *lookup) step(rp *kmsg.FetchResponseTopicPartition, note func(*lookup, finding)) bool {
	got, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset:         l.from,
		IsolationLevel: kgo.ReadCommitted(),
		Topic:          l.spot.name,
		Partition:      l.spot.partition,
	}, rp, kgo.DefaultDecompressor(), nil)
	switch {
	case len(got.Records) > 0:
		note(l, finding{found: true, at: got.Records[0].Timestamp})
		l.from = l.until // done
	case got.Err != nil:
		l.err = got.Err
		return false
	case next <= l.from:
		return false
	default:
		l.from = next
		note(l, finding{scanned: next})
	}
	return true
}

// moved says that a read failed because the log is no longer what it was when
// its bounds were read. The next cycle looks again.
func moved(err error) bool {
	return gone(err) || errors.Is(err, errNothingRead) || errors.Is(err, kerr.OffsetOutOfRange) ||
		errors.Is(err, kerr.NotLeaderForPartition) || errors.Is(err, kerr.InconsistentTopicID)
}
