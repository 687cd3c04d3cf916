package lag

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A broker answers for each partition: with a commit, with none, with an
// error, or for a topic that is no more and has only its id left.
func TestCommitsAreToldFromErrorsAndFromNone(t *testing.T) {
	t.Parallel()
	part := func(number int32, offset int64, err *kerr.Error) kmsg.OffsetFetchResponseGroupTopicPartition {
		p := kmsg.NewOffsetFetchResponseGroupTopicPartition()
		p.Partition, p.Offset = number, offset
		if err != nil {
			p.ErrorCode = err.Code
		}
		return p
	}
	answer := kmsg.NewOffsetFetchResponseGroup()
	answer.Topics = []kmsg.OffsetFetchResponseGroupTopic{
		{Topic: "orders", Partitions: []kmsg.OffsetFetchResponseGroupTopicPartition{
			part(0, 7, nil), part(1, 0, nil), part(2, -1, nil),
			part(4, -1, kerr.TopicAuthorizationFailed), part(3, -1, kerr.TopicAuthorizationFailed),
		}},
		{TopicID: [16]byte{1}, Partitions: []kmsg.OffsetFetchResponseGroupTopicPartition{part(0, 3, kerr.UnknownTopicID)}},
	}
	g := &group{Group: Group{Name: "seller"}, unread: true}
	a := &asker{}
	if first := a.committed(g, &answer); !errors.Is(first, kerr.TopicAuthorizationFailed) {
		t.Errorf("got first error %v, want that of partition 4", first)
	}
	if diff := cmp.Diff(map[logKey]int64{{"orders", 0}: 7, {"orders", 1}: 0}, g.commits, cmp.AllowUnexported(logKey{})); diff != "" {
		t.Errorf("commits (-want +got):\n%s", diff)
	}
	if len(g.broken) != 2 || g.broken[logKey{"orders", 3}] == nil || g.unread {
		t.Errorf("got broken %v, unread %v, want partitions 3 and 4 and a group that was read", g.broken, g.unread)
	}
	want := "fetch offset of group seller in orders[3] and 1 more: " + kerr.TopicAuthorizationFailed.Error()
	if len(a.errs) != 1 || a.errs[0].Error() != want {
		t.Errorf("got errors %v, want %s", a.errs, want)
	}
}
