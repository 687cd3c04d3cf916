package embedded

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
)

// writer is a transactional producer to the one partition of each topic.
type writer struct {
	t  *testing.T
	cl *kgo.Client
}

func newWriter(t *testing.T, addr string) writer {
	t.Helper()
	cl := client(t, addr, kgo.TransactionalID("relay"), kgo.RequestTimeoutOverhead(time.Second), kgo.RetryTimeout(5*time.Second))
	return writer{t, cl}
}

func (w writer) write(value string, topics ...string) error {
	if err := w.cl.BeginTransaction(); err != nil {
		return err
	}
	for _, topic := range topics {
		w.cl.Produce(context.Background(), &kgo.Record{Topic: topic, Value: []byte(value)}, nil)
	}
	return w.cl.Flush(w.t.Context())
}

func (w writer) commit() error { return w.cl.EndTransaction(w.t.Context(), kgo.TryCommit) }

func (w writer) writeAndCommit(value string, topics ...string) {
	w.t.Helper()
	if err := w.write(value, topics...); err != nil {
		w.t.Fatal(err)
	}
	if err := w.commit(); err != nil {
		w.t.Fatal(err)
	}
}

func wantCommitted(t *testing.T, addr, topic string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, readAll(t, addr, topic)); diff != "" {
		t.Errorf("committed records of %s (-want +got):\n%s", topic, diff)
	}
}

func TestBrokerAbortsATransactionThatAKillInterrupted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// The producer commits, the broker is stopped and started, the producer goes on, and then the broker is killed: it
	// remembers the producer's last outcome, a commit, from its clean stop.
	b := startBroker(t, dir)
	addr := b.Addrs()[0]
	createTopic(t, addr, "orders")
	old := newWriter(t, addr)
	old.writeAndCommit("before", "orders")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	_, kill := startSupervisor(t, "broker", dir)
	if err := old.write("open", "orders"); err != nil {
		t.Fatal(err)
	}
	kill()
	startSupervisor(t, "broker", dir)
	if err := old.commit(); err == nil { // it would be a lie
		t.Error("a commit of the dropped transaction succeeded")
	}
	w := newWriter(t, addr)
	w.writeAndCommit("after", "orders")
	w.writeAndCommit("later", "orders")
	wantCommitted(t, addr, "orders", "before", "after", "later")
}

func TestBrokerAbortsATransactionThatItsOwnStopInterrupted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := startBroker(t, dir)
	addr := b.Addrs()[0]
	createTopic(t, addr, "orders")
	w := newWriter(t, addr)
	w.writeAndCommit("before", "orders")
	if err := w.write("open", "orders"); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	startBroker(t, dir)
	wantCommitted(t, addr, "orders", "before")
}

func TestBrokerFinishesACommitThatAKillCutInHalf(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := startBroker(t, dir)
	addr := b.Addrs()[0]
	for _, topic := range []string{"orders", "payments", "relays"} {
		createTopic(t, addr, topic)
	}
	w := newWriter(t, addr)
	w.writeAndCommit("first", "orders", "payments", "relays")
	w.writeAndCommit("second", "orders", "payments", "relays")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	// As if the kill had come between the markers: two partitions lose theirs, one of them and its index entry.
	for _, topic := range []string{"payments", "relays"} {
		cutLastBatch(t, filepath.Join(dir, "log", "partitions", topic+"-0"), topic == "relays")
	}
	startBroker(t, dir)
	for _, topic := range []string{"orders", "payments", "relays"} {
		wantCommitted(t, addr, topic, "first", "second")
	}
	newWriter(t, addr).writeAndCommit("third", "orders", "payments", "relays")
	for _, topic := range []string{"orders", "payments", "relays"} {
		wantCommitted(t, addr, topic, "first", "second", "third")
	}
}

// cutLastBatch leaves a piece of the last batch of a partition, as a kill in the middle of writing it does.
func cutLastBatch(t *testing.T, folder string, index bool) {
	t.Helper()
	path := filepath.Join(folder, "0.dat")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last := 0
	for at := 0; at < len(raw); {
		last = at
		at += 12 + int(uint32(raw[at+8])<<24|uint32(raw[at+9])<<16|uint32(raw[at+10])<<8|uint32(raw[at+11]))
	}
	if err := os.Truncate(path, int64(last+20)); err != nil {
		t.Fatal(err)
	}
	// The clean stop before left a snapshot, which a kill does not.
	if err := os.Remove(filepath.Join(folder, "snapshot.json")); err != nil {
		t.Fatal(err)
	}
	if !index {
		return
	}
	entries, err := os.Stat(filepath.Join(folder, "0.idx"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(folder, "0.idx"), entries.Size()-15); err != nil {
		t.Fatal(err)
	}
}

// TestBrokerKeepsTransactionsWholeThroughKills writes numbered transactions across three topics while the broker is
// killed again and again, and begins anew after each error from what is committed, as the relay does.
func TestBrokerKeepsTransactionsWholeThroughKills(t *testing.T) {
	t.Parallel()
	const kills = 6
	topics := []string{"orders", "payments", "relays"}
	dir := t.TempDir()
	addr, kill := startSupervisor(t, "broker", dir)
	for _, topic := range topics {
		createTopic(t, addr, topic)
	}
	done := make(chan struct{})
	go func() { // the killer; ends by itself after its last kill
		defer close(done)
		for range kills {
			<-time.After(time.Duration(300+rand.IntN(400)) * time.Millisecond)
			kill()
			_, kill = startSupervisor(t, "broker", dir)
		}
	}()
	next, killing := 0, true
	for killing {
		next = len(committedSoFar(t, addr, "relays"))
		w := newWriter(t, addr)
		for killing {
			if w.write(fmt.Sprint(next), topics...) != nil || w.commit() != nil {
				break
			}
			next++
			select {
			case <-done:
				killing = false
			default:
			}
		}
		w.cl.Close()
	}
	for _, topic := range topics {
		if diff := cmp.Diff(numbers(next), readAll(t, addr, topic)); diff != "" {
			t.Errorf("%s (-want +got):\n%.1500s", topic, diff)
		}
	}
	t.Logf("%d transactions through %d kills", next, kills)
}

// committedSoFar reads a topic as soon as the broker is there and stays there long enough. The predecessor's open
// transaction is ended first, as the relay's InitProducerID does.
func committedSoFar(t *testing.T, addr, topic string) (values []string) {
	t.Helper()
	eventually(t, 20*time.Second, "the broker to be there", func() bool {
		cl := client(t, addr, kgo.TransactionalID("relay"), kgo.ConsumeTopics(topic), kgo.KeepControlRecords(),
			kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		defer cl.Close()
		if _, _, err := cl.ProducerID(t.Context()); err != nil {
			return false
		}
		var err error
		values, err = readCommitted(t.Context(), cl, topic)
		return err == nil
	})
	return values
}
