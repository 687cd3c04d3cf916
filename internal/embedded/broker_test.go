package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

func startBroker(t *testing.T, dir string) *Broker {
	t.Helper()
	b, err := StartBroker(t.Context(), BrokerConfig{DataDir: dir, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func client(t *testing.T, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(addr), kgo.ProducerLinger(0), kgo.DisableClientMetrics()}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func createTopic(t *testing.T, addr, topic string) {
	t.Helper()
	if _, err := kadm.NewClient(client(t, addr)).CreateTopic(t.Context(), 1, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
}

// readAll returns the values of a topic's one partition as a read_committed reader sees them, up to its end.
func readAll(t *testing.T, addr, topic string) []string {
	t.Helper()
	values, err := readCommitted(t.Context(), client(t, addr, kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())), topic)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

func readCommitted(ctx context.Context, cl *kgo.Client, topic string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	ends, err := kadm.NewClient(cl).ListCommittedOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	end, _ := ends.Lookup(topic, 0)
	if end.Err != nil {
		return nil, end.Err
	}
	var values []string
	for next := int64(0); next < end.Offset; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return nil, fmt.Errorf("read %s up to %d, got to %d: %w", topic, end.Offset, next, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			if !r.Attrs.IsControl() {
				values = append(values, string(r.Value))
			}
		})
	}
	return values, nil
}

func numbers(n int) []string {
	values := make([]string, n)
	for i := range values {
		values[i] = fmt.Sprint(i)
	}
	return values
}

func TestBrokerKeepsRecordsOffsetsAndPort(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := startBroker(t, dir)
	addr := b.Addrs()[0]
	createTopic(t, addr, "orders")
	for _, v := range numbers(10) {
		if err := client(t, addr).ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: []byte(v)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	var offsets kadm.Offsets
	offsets.AddOffset("orders", 0, 7, -1)
	if err := kadm.NewClient(client(t, addr)).CommitAllOffsets(t.Context(), "seller", offsets); err != nil {
		t.Fatal(err)
	}
	before, err := kadm.NewClient(client(t, addr)).BrokerMetadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	if again := startBroker(t, dir); again.Addrs()[0] != addr {
		t.Errorf("address is %s, was %s", again.Addrs()[0], addr)
	}
	if diff := cmp.Diff(numbers(10), readAll(t, addr, "orders")); diff != "" {
		t.Errorf("records after a restart (-want +got):\n%s", diff)
	}
	kept, err := kadm.NewClient(client(t, addr)).FetchOffsets(t.Context(), "seller")
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := kept.Lookup("orders", 0); got.At != 7 {
		t.Errorf("group's offset is %d, was 7", got.At)
	}
	after, err := kadm.NewClient(client(t, addr)).BrokerMetadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after.Cluster != before.Cluster || after.Cluster == "kfake" {
		t.Errorf("cluster id is %s, was %s", after.Cluster, before.Cluster)
	}
}

func TestBrokerLosesAndRepeatsNothingThroughKills(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	addr, kill := startSupervisor(t, "broker", dir)
	createTopic(t, addr, "orders")
	producer := client(t, addr, kgo.DefaultProduceTopic("orders"), kgo.MaxBufferedRecords(1000))
	const total = 30_000
	var acknowledged, failed atomic.Int64
	go func() { // ends when all records are handed over; Flush below waits for them
		for i := range total {
			producer.Produce(context.Background(), &kgo.Record{Value: fmt.Append(nil, i)}, func(_ *kgo.Record, err error) {
				if err != nil {
					failed.Add(1)
				} else {
					acknowledged.Add(1)
				}
			})
		}
	}()
	for _, share := range []int64{total / 8, total / 3, total / 2} {
		eventually(t, 30*time.Second, "the producer to get ahead", func() bool { return acknowledged.Load() > share })
		kill()
		var again string
		if again, kill = startSupervisor(t, "broker", dir); again != addr {
			t.Fatalf("address is %s, was %s", again, addr)
		}
	}
	eventually(t, 60*time.Second, "all records to be acknowledged", func() bool { return acknowledged.Load()+failed.Load() == total })
	if failed.Load() > 0 {
		t.Errorf("%d records failed", failed.Load())
	}
	if diff := cmp.Diff(numbers(total), readAll(t, addr, "orders")); diff != "" {
		t.Errorf("records (-want +got):\n%.2000s", diff)
	}
}

func TestBrokerRefusesASecondUserOfItsDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	startBroker(t, dir)
	if _, err := StartBroker(t.Context(), BrokerConfig{DataDir: dir}); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v, want %v", err, ErrInUse)
	}
}

// TestBrokerKnowsABatchThatIsSentAgainAfterAKill is the case of an acknowledgement that the kill swallowed.
func TestBrokerKnowsABatchThatIsSentAgainAfterAKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	addr, kill := startSupervisor(t, "broker", dir)
	createTopic(t, addr, "orders")
	cl := client(t, addr, kgo.MaxVersions(kversion.V2_8_0())) // topics by name in the requests below
	id, epoch, err := cl.ProducerID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for sequence := range int32(7) {
		if got := produceRaw(t, cl, id, epoch, sequence); got != int64(sequence) {
			t.Fatalf("batch %d is at offset %d", sequence, got)
		}
	}
	kill()
	startSupervisor(t, "broker", dir)
	for sequence := int32(2); sequence < 9; sequence++ { // the last five again, and two new ones
		if got := produceRaw(t, cl, id, epoch, sequence); got != int64(sequence) {
			t.Errorf("batch %d, sent again, is at offset %d", sequence, got)
		}
	}
	if got := readAll(t, addr, "orders"); len(got) != 9 {
		t.Errorf("log holds %d records, want 9", len(got))
	}
}

// produceRaw sends one record as an idempotent producer's batch of a given sequence number, and returns its offset.
func produceRaw(t *testing.T, cl *kgo.Client, id int64, epoch int16, sequence int32) int64 {
	t.Helper()
	record := kmsg.Record{Value: []byte("x")}
	record.Length = int32(len(record.AppendTo(nil)) - 1)
	batch := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, ProducerID: id, ProducerEpoch: epoch, FirstSequence: sequence,
		NumRecords: 1, Records: record.AppendTo(nil), FirstTimestamp: 1, MaxTimestamp: 1,
	}
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], castagnoli))
	partition := kmsg.NewProduceRequestTopicPartition()
	partition.Records = raw
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic, topic.Partitions = "orders", []kmsg.ProduceRequestTopicPartition{partition}
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis, req.Topics = -1, 5000, []kmsg.ProduceRequestTopic{topic}
	answer, err := req.RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	got := answer.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
		t.Fatalf("produce batch %d: %v", sequence, err)
	}
	return got.BaseOffset
}
