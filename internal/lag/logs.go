package lag

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The timestamps that stand for the ends of a log in ListOffsets; the latest
// offset is the last stable one when asked with the committed isolation level.
const (
	latest   = -1
	earliest = -2
)

const (
	uncommitted int8 = 0
	committed   int8 = 1
)

// topics reads which of the groups' topics exist, and the cluster's id. A
// topic that is not in the result does not exist.
func (a *asker) topics(ctx context.Context, r *reading) {
	names := map[string]bool{}
	for _, g := range r.groups {
		for _, t := range g.reads() {
			names[t] = true
		}
	}
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{} // none, where nil would be all
	for _, name := range slices.Sorted(maps.Keys(names)) {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	r.topics = map[string]topic{}
	resp, err := a.cl.RequestCachedMetadata(ctx, req, metadataAge)
	if err != nil {
		a.tell(kmsg.NameForKey(req.Key()), code(err))
		a.fail("read topics: %w", err)
		r.unknownTopics(err)
		return
	}
	if resp.ClusterID != nil {
		r.cluster = *resp.ClusterID
	}
	var first error
	for _, t := range resp.Topics {
		err := kerr.ErrorForCode(t.ErrorCode)
		first = firstError(first, err)
		if t.Topic == nil || gone(err) {
			continue
		}
		if err != nil {
			a.fail("read topic %s: %w", *t.Topic, err)
		}
		r.topics[*t.Topic] = topic{id: t.TopicID, partitions: int32(len(t.Partitions)), err: err}
	}
	a.tell(kmsg.NameForKey(req.Key()), code(first))
	r.knowAtLeastCommits()
}

// unknownTopics is the case of no metadata at all.
func (r *reading) unknownTopics(err error) {
	for _, g := range r.groups {
		for _, name := range g.reads() {
			r.topics[name] = topic{err: err}
		}
	}
	r.knowAtLeastCommits()
}

// knowAtLeastCommits gives a topic that cannot be read the partitions that are
// known from commits, so that they are listed as unknown, not left out.
func (r *reading) knowAtLeastCommits() {
	for _, g := range r.groups {
		for key := range g.commits {
			if t := r.topics[key.topic]; t.err != nil {
				t.partitions = max(t.partitions, key.partition+1)
				r.topics[key.topic] = t
			}
		}
	}
}

// bounds reads the extent of every partition of the topics. Start, stable and
// end are asked for in this order, so that a log that moves meanwhile still
// gives them in order.
func (a *asker) bounds(ctx context.Context, r *reading) {
	r.logs = map[logKey]logRead{}
	var asked []string
	for name, t := range r.topics {
		if t.err == nil {
			asked = append(asked, name)
		}
	}
	if len(asked) == 0 {
		return
	}
	slices.Sort(asked)
	start := a.offsets(ctx, r, asked, uncommitted, earliest)
	stable := a.offsets(ctx, r, asked, committed, latest)
	end := a.offsets(ctx, r, asked, uncommitted, latest)
	failed := failures{}
	for key, s := range start {
		l := logRead{err: firstError(s.err, stable[key].err, end[key].err)}
		if l.err == nil {
			l.Log = newLog(key, s.offset, stable[key].offset, end[key].offset)
			l.leader = end[key].leader
		} else if !gone(l.err) {
			failed.add(key, l.err)
		}
		r.logs[key] = l
	}
	a.errs = append(a.errs, failed.errors("list offsets of")...)
}

var errNoAnswer = errors.New("the broker left it out of its answer")

// bound is one answer of ListOffsets.
type bound struct {
	offset int64
	leader int32
	err    error
}

// offsets asks for one end of every partition of the topics. Every partition
// is in the result.
func (a *asker) offsets(ctx context.Context, r *reading, topics []string, isolation int8, end int64) map[logKey]bound {
	all := map[logKey]bound{}
	req := kmsg.NewPtrListOffsetsRequest()
	req.IsolationLevel = isolation
	for _, name := range topics {
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = name
		for part := range r.topics[name].partitions {
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Partition, p.Timestamp = part, end
			t.Partitions = append(t.Partitions, p)
			key := logKey{name, part}
			all[key] = bound{err: errNoAnswer}
		}
		req.Topics = append(req.Topics, t)
	}
	for _, shard := range a.cl.RequestSharded(ctx, req) {
		a.tell(kmsg.NameForKey(req.Key()), code(listed(all, shard)))
	}
	return all
}

// listed takes in one broker's answer, or its absence, and returns the first
// error in it.
func listed(all map[logKey]bound, s kgo.ResponseShard) error {
	if s.Err != nil {
		for _, t := range s.Req.(*kmsg.ListOffsetsRequest).Topics {
			for _, p := range t.Partitions {
				all[logKey{t.Topic, p.Partition}] = bound{err: s.Err}
			}
		}
		return s.Err
	}
	var first error
	for _, t := range s.Resp.(*kmsg.ListOffsetsResponse).Topics {
		for _, p := range t.Partitions {
			err := kerr.ErrorForCode(p.ErrorCode)
			all[logKey{t.Topic, p.Partition}] = bound{offset: p.Offset, leader: s.Meta.NodeID, err: err}
			first = firstError(first, err)
		}
	}
	return first
}
