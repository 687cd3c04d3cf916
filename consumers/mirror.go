package consumers

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// mirrorTimeout bounds one commit to Kafka.
const mirrorTimeout = 5 * time.Second

// mirror tells Kafka the positions, for lag tools and autoscalers. Nothing
// reads them back, so a failure is only counted and made good by the next.
// It runs until ctx ends; close sends the last one.
func (g *group) mirror(ctx context.Context) {
	ticker := time.NewTicker(g.limits.CommitInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-g.mirrorKick:
		}
		g.commitMirror(ctx, g.owned())
	}
}

func (g *group) kickMirror() {
	select {
	case g.mirrorKick <- struct{}{}:
	default: // one is due already
	}
}

// commitMirror commits the positions that Kafka does not have, and waits.
func (g *group) commitMirror(ctx context.Context, parts []*partition) {
	offsets := unmirrored(parts)
	if len(offsets) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, mirrorTimeout)
	defer cancel()
	g.client.CommitOffsetsSync(ctx, offsets, g.mirrored(parts))
}

// commitMirrorRevoked does the same without waiting: a rebalance must not wait
// for a courtesy. kgo lets the commit finish before it joins again.
func (g *group) commitMirrorRevoked(parts []*partition) {
	offsets := unmirrored(parts)
	if len(offsets) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), mirrorTimeout)
	done := g.mirrored(parts)
	g.client.CommitOffsets(ctx, offsets, func(cl *kgo.Client, req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		cancel()
		done(cl, req, resp, err)
	})
}

func unmirrored(parts []*partition) map[string]map[int32]kgo.EpochOffset {
	offsets := map[string]map[int32]kgo.EpochOffset{}
	for _, p := range parts {
		at := p.position.Load()
		if at == p.mirrored.Load() {
			continue
		}
		if offsets[p.topic] == nil {
			offsets[p.topic] = map[int32]kgo.EpochOffset{}
		}
		offsets[p.topic][p.id] = kgo.EpochOffset{Epoch: p.epoch.Load(), Offset: at}
	}
	return offsets
}

// mirrored notes what a commit's answer says.
func (g *group) mirrored(parts []*partition) func(*kgo.Client, *kmsg.OffsetCommitRequest, *kmsg.OffsetCommitResponse, error) {
	return func(_ *kgo.Client, req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		if err != nil {
			g.metrics.mirrorErrors.Inc()
			g.log.Debug("commit to kafka", "error", err)
			return
		}
		sent := map[topicPartition]int64{}
		for _, t := range req.Topics {
			for _, p := range t.Partitions {
				sent[topicPartition{t.Topic, p.Partition}] = p.Offset
			}
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					g.metrics.mirrorErrors.Inc()
					g.log.Debug("commit to kafka", "topic", t.Topic, "partition", p.Partition, "error", err)
					delete(sent, topicPartition{t.Topic, p.Partition})
				}
			}
		}
		for _, p := range parts {
			if at, ok := sent[p.topicPartition]; ok {
				p.mirrored.Store(at)
			}
		}
	}
}
