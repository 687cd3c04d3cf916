package consumers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// claimWait bounds the claim within a rebalance. Heartbeats go on meanwhile,
// so a database that restarts costs no membership.
const claimWait = 20 * time.Second

// claim is what taking a partition found: the row of its position under a new
// fence, and, where the log does not fit the row, why it must stop.
type claim struct {
	topicPartition
	topicID uuid.UUID
	next    int64
	epoch   int32
	fence   int64
	seq     sequence
	holds   map[string]int // open ones, by state
	stop    *stopError
}

// bounds are what a partition's log looks like now.
type bounds struct {
	topicID    uuid.UUID
	start, end int64
	epochEnd   int64 // where the leader epoch of the position ended; -1 unknown
}

// decide compares a row with the log. The row is right and the log is right,
// or somebody has to look: there is no offset to fall back to that would not
// skip events or apply them twice.
func (c *claim) decide(b bounds) *stopError {
	at := fmt.Sprintf("%s[%d]: position %d", c.topic, c.id, c.next)
	switch {
	case c.topicID != uuid.Nil && b.topicID != uuid.Nil && c.topicID != b.topicID:
		return stopf(stopTopicRecreated, "%s belongs to topic id %s, the topic now has id %s: it was deleted and made anew, "+
			"so the offsets mean other events", at, c.topicID, b.topicID)
	case c.next < b.start:
		return stopf(stopBelowLogStart, "%s is below the log's start %d: %d offsets expired before they were read", at, b.start, b.start-c.next)
	case c.next > b.end:
		return stopf(stopAboveLogEnd, "%s is above the log's end %d: the log was truncated, or this is another cluster", at, b.end)
	case b.epochEnd >= 0 && c.next > b.epochEnd:
		return stopf(stopTruncated, "%s is above %d, where leader epoch %d ended: the log lost events that were applied, "+
			"and has others in their place", at, b.epochEnd, c.epoch)
	}
	return nil
}

const claimSQL = `
INSERT INTO consumer_position AS p (grp, topic, part, topic_id, next_offset, fence, owner)
SELECT $1, u.topic, u.part, u.topic_id, u.start, 1, $2
FROM unnest($3::text[], $4::int[], $5::uuid[], $6::bigint[]) AS u (topic, part, topic_id, start)
ORDER BY u.topic, u.part
ON CONFLICT (grp, topic, part) DO UPDATE
SET fence = p.fence + 1, owner = excluded.owner, topic_id = coalesce(p.topic_id, excluded.topic_id),
    updated_at = clock_timestamp()
RETURNING topic, part, topic_id, next_offset, leader_epoch, fence`

const claimedSourcesSQL = `
SELECT topic, part, source, incarnation, n FROM consumer_source
WHERE grp = $1 AND (topic, part) IN (SELECT * FROM unnest($2::text[], $3::int[]))`

const claimedHoldsSQL = `
SELECT topic, part, state, count(*) FROM consumer_hold
WHERE grp = $1 AND state IN ('retry', 'parked', 'dead') AND (topic, part) IN (SELECT * FROM unnest($2::text[], $3::int[]))
GROUP BY topic, part, state`

// claim takes partitions over: from its commit on, every transaction of an
// earlier owner fails. tps is sorted, so that claims that overlap cannot
// deadlock.
func (g *group) claim(ctx context.Context, tps []topicPartition, reason string) (map[topicPartition]*claim, error) {
	adm := kadm.NewClient(g.client)
	starts, err := g.logStarts(ctx, adm, tps)
	if err != nil {
		return nil, err
	}
	claims, err := g.takeRows(ctx, tps, starts)
	if err != nil {
		return nil, err
	}
	// The end is read after the claim: the earlier owner could move the
	// position until then.
	logs, err := g.logBounds(ctx, adm, claims)
	if err != nil {
		return nil, err
	}
	for tp, c := range claims {
		c.stop = c.decide(logs[tp])
		g.metrics.claims.WithLabelValues(tp.topic, reason).Inc()
	}
	return claims, nil
}

// takeRows bumps the fences and reads the rows, in one transaction.
func (g *group) takeRows(ctx context.Context, tps []topicPartition, starts map[topicPartition]bounds) (map[topicPartition]*claim, error) {
	topics, parts := make([]string, len(tps)), make([]int32, len(tps))
	ids, offsets := make([]uuid.UUID, len(tps)), make([]int64, len(tps))
	for n, tp := range tps {
		topics[n], parts[n] = tp.topic, tp.id
		ids[n], offsets[n] = starts[tp].topicID, starts[tp].start
	}
	b := &pgx.Batch{}
	b.BeginTx(pgx.TxOptions{})
	b.Queue(settingsSQL, milliseconds(g.limits.IdleInTransaction), milliseconds(g.limits.LockTimeout))
	b.Queue(claimSQL, g.name, g.owner, topics, parts, ids, offsets)
	b.Queue(claimedSourcesSQL, g.name, topics, parts)
	b.Queue(claimedHoldsSQL, g.name, topics, parts)
	br := g.db.SendBatch(ctx, b)
	tx := br.Tx()
	defer rollback(ctx, tx)
	claims, err := readClaims(br)
	if cerr := br.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = tx.Commit(ctx) // a claim that is lost here is repeated with the next fence
	}
	if err != nil {
		return nil, fmt.Errorf("claim %d partitions: %w", len(tps), err)
	}
	return claims, nil
}

func readClaims(br pgx.BatchResults) (map[topicPartition]*claim, error) {
	claims := map[topicPartition]*claim{}
	for range 2 { // begin, settings
		if _, err := br.Exec(); err != nil {
			return nil, err
		}
	}
	rows, err := br.Query()
	if err != nil {
		return nil, err
	}
	var c claim
	var id *uuid.UUID
	_, err = pgx.ForEachRow(rows, []any{&c.topic, &c.id, &id, &c.next, &c.epoch, &c.fence}, func() error {
		one := c
		one.seq, one.holds = sequence{}, map[string]int{}
		if id != nil {
			one.topicID = *id
		}
		claims[one.topicPartition] = &one
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := readClaimedSources(br, claims); err != nil {
		return nil, err
	}
	return claims, readClaimedHolds(br, claims)
}

func readClaimedSources(br pgx.BatchResults, claims map[topicPartition]*claim) error {
	rows, err := br.Query()
	if err != nil {
		return err
	}
	var tp topicPartition
	var source string
	var incarnation, n int64
	_, err = pgx.ForEachRow(rows, []any{&tp.topic, &tp.id, &source, &incarnation, &n}, func() error {
		claims[tp].seq[source] = numbered{uint32(incarnation), uint64(n)}
		return nil
	})
	return err
}

func readClaimedHolds(br pgx.BatchResults, claims map[topicPartition]*claim) error {
	rows, err := br.Query()
	if err != nil {
		return err
	}
	var tp topicPartition
	var state string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&tp.topic, &tp.id, &state, &n}, func() error {
		claims[tp].holds[state] = n
		return nil
	})
	return err
}

// logStarts reads what a row that does not exist yet is made of.
func (g *group) logStarts(ctx context.Context, adm *kadm.Client, tps []topicPartition) (map[topicPartition]bounds, error) {
	topics := topicsOf(tps)
	details, err := adm.ListTopics(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("look at topics: %w", err)
	}
	listed, err := adm.ListStartOffsets(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("list start offsets: %w", err)
	}
	logs := make(map[topicPartition]bounds, len(tps))
	for _, tp := range tps {
		start, ok := listed.Lookup(tp.topic, tp.id)
		if err := errors.Join(details[tp.topic].Err, start.Err); err != nil || !ok {
			return nil, fmt.Errorf("look at %s[%d]: no start offset: %w", tp.topic, tp.id, err)
		}
		logs[tp] = bounds{topicID: uuid.UUID(details[tp.topic].ID), start: start.Offset}
	}
	return logs, nil
}

func (g *group) logBounds(ctx context.Context, adm *kadm.Client, claims map[topicPartition]*claim) (map[topicPartition]bounds, error) {
	tps := make([]topicPartition, 0, len(claims))
	var epochs kadm.OffsetForLeaderEpochRequest
	for tp, c := range claims {
		tps = append(tps, tp)
		if c.epoch >= 0 {
			epochs.Add(tp.topic, tp.id, c.epoch)
		}
	}
	logs, err := g.logStarts(ctx, adm, tps)
	if err != nil {
		return nil, err
	}
	ends, err := adm.ListEndOffsets(ctx, topicsOf(tps)...)
	if err != nil {
		return nil, fmt.Errorf("list end offsets: %w", err)
	}
	ended := kadm.OffsetsForLeaderEpochs{}
	if len(epochs) > 0 {
		if ended, err = adm.OffsetForLeaderEpoch(ctx, epochs); err != nil {
			return nil, fmt.Errorf("look at leader epochs: %w", err)
		}
	}
	for tp, log := range logs {
		end, ok := ends.Lookup(tp.topic, tp.id)
		if end.Err != nil || !ok {
			return nil, fmt.Errorf("look at %s[%d]: no end offset: %w", tp.topic, tp.id, end.Err)
		}
		log.end, log.epochEnd = end.Offset, -1
		if e, ok := ended[tp.topic][tp.id]; ok && e.Err == nil {
			log.epochEnd = e.EndOffset
		}
		logs[tp] = log
	}
	return logs, nil
}

func topicsOf(tps []topicPartition) []string {
	var topics []string
	for _, tp := range tps {
		topics = append(topics, tp.topic)
	}
	slices.Sort(topics)
	return slices.Compact(topics)
}

func compareTopicPartitions(a, b topicPartition) int {
	if c := strings.Compare(a.topic, b.topic); c != 0 {
		return c
	}
	return int(a.id - b.id)
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// assigned is Kafka's question where to start reading partitions that became
// ours. The answer is ours alone: Kafka's own offsets are ignored.
func (g *group) assigned(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	<-g.ready
	var tps []topicPartition
	for topic, parts := range offsets {
		for id := range parts {
			tps = append(tps, topicPartition{topic, id})
		}
	}
	slices.SortFunc(tps, compareTopicPartitions)
	claims, err := g.claimPatiently(ctx, tps, "assigned")
	if err != nil {
		// kgo takes context.Canceled for the end of the group's membership.
		return nil, errors.New(err.Error())
	}
	g.metrics.rebalances.WithLabelValues("assigned").Inc()
	for _, tp := range tps {
		c := claims[tp]
		g.start(c)
		offsets[tp.topic][tp.id] = kgo.NewOffset().At(c.next)
	}
	g.log.Info("claim partitions", "partitions", len(tps))
	g.kickMirror()
	return offsets, nil
}

// claimPatiently claims until it works, ctx ends, or claimWait is over.
func (g *group) claimPatiently(ctx context.Context, tps []topicPartition, reason string) (map[topicPartition]*claim, error) {
	ctx, cancel := context.WithTimeout(ctx, claimWait)
	defer cancel()
	for attempt := 1; ; attempt++ {
		claims, err := g.claim(ctx, tps, reason)
		if err == nil {
			return claims, nil
		}
		g.log.Warn("retry claim", "attempt", attempt, "partitions", len(tps), "error", err)
		timer := time.NewTimer(g.backoff(attempt))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, err
		}
	}
}
