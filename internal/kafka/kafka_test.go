package kafka_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"orderflow/internal/kafka"
	"orderflow/internal/testenv"
	"orderflow/schemas"
)

// The values are those of the Java client for these keys (its own test
// vectors for murmur2, sign bit cleared).
func TestKeysGoWhereTheJavaClientPutsThem(t *testing.T) {
	t.Parallel()
	const all = 1<<31 - 1
	for key, hash := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107,
	} {
		if got, want := kafka.Partition([]byte(key), all), (hash&0x7fffffff)%all; got != want {
			t.Errorf("hash of %q = %d, want %d", key, got, want)
		}
	}
}

func TestPositionSurvivesItsWireForm(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := kafka.Position{
			AtLeastOnce: rapid.Bool().Draw(t, "at least once"), Incarnation: rapid.Uint32().Draw(t, "incarnation"),
			N: rapid.Uint64().Draw(t, "n"), Source: rapid.StringN(1, 50, 200).Draw(t, "source"),
		}
		got, err := kafka.ParsePosition(want.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

func TestForeignPositionsAreRefused(t *testing.T) {
	t.Parallel()
	good := kafka.Position{N: 1, Source: "s"}.Append(nil)
	newer := append([]byte{2}, good[1:]...)
	for name, b := range map[string][]byte{
		"empty": nil, "cut": good[:13], "no source": good[:14], "a later version": newer, "too long": append(good, make([]byte, 300)...),
	} {
		if _, err := kafka.ParsePosition(b); !errors.Is(err, kafka.ErrPosition) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestATopicWithAnotherPartitionCountIsRefused(t *testing.T) {
	t.Parallel()
	cl, err := kafka.Open(t.Context(), kafka.Config{Brokers: testenv.Kafka(t)}, testenv.Logger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	topics := []schemas.Topic{{Name: "a.events", Partitions: 3}}
	for range 2 { // making it again changes nothing
		if err := kafka.EnsureTopics(t.Context(), cl, topics, 1); err != nil {
			t.Fatal(err)
		}
	}
	topics[0].Partitions = 4
	err = kafka.EnsureTopics(t.Context(), cl, topics, 1)
	if err == nil || !strings.Contains(err.Error(), "a.events has 3 partitions, want 4") {
		t.Errorf("error %v", err)
	}
}

func TestConfigNamesEveryProblem(t *testing.T) {
	t.Parallel()
	err := kafka.Config{Brokers: []string{"a", "b:1", "c"}}.Validate()
	if err == nil || !strings.Contains(err.Error(), `"a"`) || !strings.Contains(err.Error(), `"c"`) {
		t.Errorf("error %v", err)
	}
	if err := (kafka.Config{}).Validate(); err == nil {
		t.Error("no brokers pass")
	}
}

func TestABrokerThatIsAwayIsNamed(t *testing.T) {
	t.Parallel()
	_, err := kafka.Open(t.Context(), kafka.Config{Brokers: []string{"127.0.0.1:1"}}, testenv.Logger(t))
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("error %v", err)
	}
}
