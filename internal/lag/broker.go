package lag

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// metadataAge is how old the brokers' metadata may be at the start of a cycle:
// not at all, since a topic made anew is told by its id. The other requests of
// the cycle use what this one brought.
const metadataAge = time.Nanosecond

// The values of Group.Protocol that we can describe.
const (
	classic  = "classic"
	consumer = "consumer"
)

// asker puts the questions of one cycle to the brokers and keeps what went
// wrong. Questions about many groups or partitions go out as one request to
// each broker concerned, which the client takes care of.
type asker struct {
	cl   *kgo.Client
	tell func(api, code string) // counts a request
	errs []error
}

// ask sends a request to every broker concerned and hands each answer to use,
// which returns the first error inside it. Both kinds of failure are counted;
// those inside an answer are use's to keep, since only it knows whom they
// concern.
func (a *asker) ask(ctx context.Context, what string, req kmsg.Request, use func(kgo.ResponseShard) error) {
	for _, shard := range a.cl.RequestSharded(ctx, req) {
		err := shard.Err
		if err != nil {
			a.fail("%s: %w", what, err)
		} else {
			err = use(shard)
		}
		a.tell(kmsg.NameForKey(req.Key()), code(err))
	}
}

func (a *asker) fail(format string, args ...any) {
	a.errs = append(a.errs, fmt.Errorf(format, args...))
}

// code names an outcome in the words of Kafka's protocol, with one of our own
// for brokers that gave none.
func code(err error) string {
	if err == nil {
		return "NONE"
	}
	if k, ok := errors.AsType[*kerr.Error](err); ok {
		return k.Message
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "TIMEOUT"
	}
	return "NO_ANSWER"
}

// groups lists the groups that read topics, leaving out those whose protocol
// keeps no offsets.
func (a *asker) groups(ctx context.Context, watches func(string) bool) map[string]*group {
	all := map[string]*group{}
	a.ask(ctx, "list groups", kmsg.NewPtrListGroupsRequest(), func(s kgo.ResponseShard) error {
		resp := s.Resp.(*kmsg.ListGroupsResponse)
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			a.fail("list groups of broker %d: %w", s.Meta.NodeID, err)
			return err
		}
		for _, g := range resp.Groups {
			protocol := strings.ToLower(g.GroupType)
			if protocol == "" { // brokers older than the distinction
				protocol = classic
			}
			foreign := protocol == classic && g.ProtocolType != "" && g.ProtocolType != "consumer"
			if foreign || protocol == "share" || !watches(g.Group) {
				continue
			}
			all[g.Group] = &group{Group: Group{Name: g.Group, Protocol: protocol, State: g.GroupState}}
		}
		return nil
	})
	return all
}

// describe fills in the groups' members and what they read, and removes groups
// that ended meanwhile. Each protocol has a question of its own; to the other
// one, a broker answers that there is no such group.
func (a *asker) describe(ctx context.Context, all map[string]*group) {
	named := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		named[all[name].Protocol] = append(named[all[name].Protocol], name)
	}
	if names := named[classic]; len(names) > 0 {
		a.describeClassic(ctx, all, names)
	}
	if names := named[consumer]; len(names) > 0 {
		a.describeConsumer(ctx, all, names)
	}
}

func (a *asker) describeClassic(ctx context.Context, all map[string]*group, names []string) {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = names
	a.ask(ctx, "describe groups", req, func(s kgo.ResponseShard) error {
		var first error
		for _, g := range s.Resp.(*kmsg.DescribeGroupsResponse).Groups {
			to := a.described(all, g.Group, g.State, g.ErrorCode, &first)
			if to == nil {
				continue
			}
			to.Members, to.MembersKnown = len(g.Members), true
			for _, m := range g.Members {
				to.joined(m.ProtocolMetadata, m.MemberAssignment)
			}
		}
		return first
	})
}

func (a *asker) describeConsumer(ctx context.Context, all map[string]*group, names []string) {
	req := kmsg.NewPtrConsumerGroupDescribeRequest()
	req.Groups = names
	a.ask(ctx, "describe groups", req, func(s kgo.ResponseShard) error {
		var first error
		for _, g := range s.Resp.(*kmsg.ConsumerGroupDescribeResponse).Groups {
			to := a.described(all, g.Group, g.State, g.ErrorCode, &first)
			if to == nil {
				continue
			}
			to.Members, to.MembersKnown = len(g.Members), true
			for _, m := range g.Members {
				to.read(m.SubscribedTopics...)
				for _, t := range m.Assignment.TopicPartitions {
					to.read(t.Topic)
				}
			}
		}
		return first
	})
}

// described returns the group that an answer is about, nil when the answer
// holds nothing or the group has ended.
func (a *asker) described(all map[string]*group, name, state string, errorCode int16, first *error) *group {
	err := kerr.ErrorForCode(errorCode)
	g := all[name]
	switch {
	case g == nil:
	case errors.Is(err, kerr.GroupIDNotFound) || err == nil && state == "Dead":
		delete(all, name)
	case err != nil:
		a.fail("describe group %s: %w", name, err)
		*first = firstError(*first, err)
	default:
		g.State = state
		return g
	}
	return nil
}

// joined takes in a classic member's subscription and assignment. Members of
// unusual clients may carry something else there; what they have committed
// still counts.
func (g *group) joined(metadata, assignment []byte) {
	var m kmsg.ConsumerMemberMetadata
	if err := m.ReadFrom(metadata); err == nil {
		g.read(m.Topics...)
	}
	var as kmsg.ConsumerMemberAssignment
	if err := as.ReadFrom(assignment); err == nil {
		for _, t := range as.Topics {
			g.read(t.Topic)
		}
	}
}

func (g *group) read(topics ...string) {
	for _, t := range topics {
		if t == "" {
			continue
		}
		if g.topics == nil {
			g.topics = map[string]bool{}
		}
		g.topics[t] = true
	}
}

// commits fills in what the groups have committed.
func (a *asker) commits(ctx context.Context, all map[string]*group) {
	if len(all) == 0 {
		return
	}
	req := kmsg.NewPtrOffsetFetchRequest()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = name
		req.Groups = append(req.Groups, g)
		all[name].unread = true // until answered
	}
	a.ask(ctx, "fetch offsets", req, func(s kgo.ResponseShard) error {
		var first error
		for i := range s.Resp.(*kmsg.OffsetFetchResponse).Groups {
			rg := &s.Resp.(*kmsg.OffsetFetchResponse).Groups[i]
			g, err := all[rg.Group], kerr.ErrorForCode(rg.ErrorCode)
			switch {
			case g == nil:
			case errors.Is(err, kerr.GroupIDNotFound):
				delete(all, rg.Group)
			case err != nil:
				a.fail("fetch offsets of group %s: %w", rg.Group, err)
				first = firstError(first, err)
			default:
				first = firstError(first, a.committed(g, rg))
			}
		}
		return first
	})
}

func (a *asker) committed(g *group, rg *kmsg.OffsetFetchResponseGroup) error {
	var first error
	failed := failures{}
	g.unread = false
	g.commits, g.broken = map[logKey]int64{}, map[logKey]error{}
	for _, t := range rg.Topics {
		for _, p := range t.Partitions {
			key := logKey{t.Topic, p.Partition}
			err := kerr.ErrorForCode(p.ErrorCode)
			switch {
			case t.Topic == "": // a commit outlives its topic, of which newer brokers give only the id
			case err != nil:
				g.broken[key] = err
				failed.add(key, err)
				first = firstError(first, err)
			case p.Offset >= 0:
				g.commits[key] = p.Offset
			}
		}
	}
	a.errs = append(a.errs, failed.errors("fetch offset of group "+g.Name+" in")...)
	return first
}
