package embedded

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestApacheKafkaKeepsRecordsAndPortThroughAKill(t *testing.T) {
	dir := t.TempDir()
	k, err := StartApacheKafka(t.Context(), dir, ApacheKafkaConfig{Log: testLog(t), Settings: map[string]string{"num.partitions": "3"}})
	if Missing(err) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Stop(context.Background()) })
	addr := k.Addrs()[0]
	createTopic(t, addr, "orders")
	producer := client(t, addr)
	write := func(values ...string) {
		t.Helper()
		for _, v := range values {
			if err := producer.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: []byte(v)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(numbers(5)...)
	if _, err := StartApacheKafka(t.Context(), dir, ApacheKafkaConfig{}); !errors.Is(err, ErrInUse) {
		t.Errorf("a second start says %v, want %v", err, ErrInUse)
	}
	if err := k.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := k.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(numbers(8)[5:]...) // the same client, to the same address
	if diff := cmp.Diff(numbers(8), readAll(t, addr, "orders")); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{
		"add.partitions.to.txn.retry.backoff.ms": "1", "num.partitions": "3", "group.initial.rebalance.delay.ms": "0",
	} {
		if got := brokerSetting(t, addr, name); got != want {
			t.Errorf("broker says %s = %q, want %q", name, got, want)
		}
	}
	if err := k.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	again, err := StartApacheKafka(t.Context(), dir, ApacheKafkaConfig{Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = again.Stop(context.Background()) })
	if got := again.Addrs()[0]; got != addr {
		t.Errorf("address is %s, was %s", got, addr)
	}
}

func brokerSetting(t *testing.T, addr, name string) string {
	t.Helper()
	configs, err := kadm.NewClient(client(t, addr)).DescribeBrokerConfigs(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range configs[0].Configs {
		if c.Key == name {
			return c.MaybeValue()
		}
	}
	return ""
}

func TestApicurioAnswers(t *testing.T) {
	for _, version := range []string{apicurioNew, apicurioOld} {
		t.Run(version, func(t *testing.T) {
			a, err := StartApicurio(t.Context(), t.TempDir(), ApicurioConfig{Version: version, Log: testLog(t)})
			if Missing(err) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = a.Stop(context.Background()) })
			setLevel(t, a.URL(), "orders", "FULL_TRANSITIVE")
			if status, _ := register(t, a.URL(), "orders", order(fieldID)); status != http.StatusOK {
				t.Errorf("registration says %d", status)
			}
			if status, _ := register(t, a.URL(), "orders", order(fieldNumberID)); status != http.StatusConflict {
				t.Errorf("incompatible registration says %d, want 409", status)
			}
		})
	}
}

// TestWhatIsMissingIsNamed runs where neither Java nor Maven is to be found. It changes the environment, so it runs
// alone.
func TestWhatIsMissingIsNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("JAVA_HOME", "")
	t.Setenv("ORDERFLOW_CACHE", filepath.Join(t.TempDir(), "cache"))
	if _, err := findJava(t.Context(), 9999); !Missing(err) || !strings.Contains(err.Error(), "Java 9999") {
		t.Errorf("got %v, want a missing Java 9999", err)
	}
	_, err := fetchKafka(t.Context(), ApacheKafkaConfig{Version: KafkaVersion, Log: testLog(t)})
	if !Missing(err) || !strings.Contains(err.Error(), "Apache Kafka "+KafkaVersion) || !strings.Contains(err.Error(), "Maven") {
		t.Errorf("got %v, want a missing Apache Kafka and a word on Maven", err)
	}
	if Missing(errors.New("connection refused")) {
		t.Error("another error passes for a missing part")
	}
}

func TestJavaVersionIsReadFromEitherForm(t *testing.T) {
	t.Parallel()
	for out, want := range map[string]int{
		`openjdk version "17.0.15" 2025-04-15`: 17,
		`openjdk version "25" 2025-09-16 LTS`:  25,
		`java version "1.8.0_442"`:             8,
		`openjdk version "26-ea" 2026-03-17`:   26,
		`command not found`:                    0,
	} {
		if got := readJavaVersion(out); got != want {
			t.Errorf("%s: got %d, want %d", out, got, want)
		}
	}
}
