package embedded

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	fetchTopic      = "full.fetches"
	fetchPartitions = 4
	perTransaction  = 20
)

// abortedShown writes committed and aborted transactions in turn to every
// partition and returns how many aborted records a read_committed client with
// small fetches is shown.
func abortedShown(t *testing.T, addrs []string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.TransactionalID("full"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, fetchPartitions, 1, nil, fetchTopic); err != nil {
		t.Fatal(err)
	}
	want := 0
	for n := range 20 {
		commit := n%2 == 0
		transact(ctx, t, cl, commit)
		if commit {
			want += fetchPartitions * perTransaction
		}
	}
	return countAborted(ctx, t, addrs, want)
}

func transact(ctx context.Context, t *testing.T, cl *kgo.Client, commit bool) {
	t.Helper()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	value := fmt.Sprintf("commit=%t %s", commit, strings.Repeat("x", 1000))
	for p := range int32(fetchPartitions) {
		for range perTransaction {
			if err := cl.ProduceSync(ctx, &kgo.Record{Topic: fetchTopic, Partition: p, Value: []byte(value)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cl.EndTransaction(ctx, kgo.TransactionEndTry(commit)); err != nil {
		t.Fatal(err)
	}
}

func countAborted(ctx context.Context, t *testing.T, addrs []string, want int) int {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.ConsumeTopics(fetchTopic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxBytes(70<<10), kgo.FetchMaxPartitionBytes(50<<10))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	aborted := 0
	for committed := 0; committed < want; {
		for _, r := range cl.PollFetches(ctx).Records() {
			if strings.HasPrefix(string(r.Value), "commit=true") {
				committed++
			} else {
				aborted++
			}
		}
		if ctx.Err() != nil {
			t.Fatalf("%d of %d committed records", committed, want)
		}
	}
	return aborted
}

func TestAbortedRecordsStayHiddenWhenAFetchIsFull(t *testing.T) {
	t.Parallel()
	b, err := StartBroker(t.Context(), BrokerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	if n := abortedShown(t, b.Addrs()); n > 0 {
		t.Errorf("%d aborted records shown", n)
	}
}

// The control: once kfake does this by itself, boundFetches can go.
func TestAFullFetchOfABareBrokerShowsAbortedRecords(t *testing.T) {
	t.Parallel()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n := abortedShown(t, c.ListenAddrs()); n == 0 {
		t.Error("no aborted records shown: kfake needs no boundFetches any more")
	}
}
