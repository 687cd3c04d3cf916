package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// KafkaVersion is the Apache Kafka that is started when no other is asked for.
const KafkaVersion = "4.4.0"

// ApacheKafkaConfig says which Apache Kafka to run and how.
type ApacheKafkaConfig struct {
	Version  string            // default KafkaVersion; 4.x
	HeapMiB  int               // default 256
	Port     int               // 0 = a free one, remembered in the directory
	Settings map[string]string // server properties over the ones of this package
	Out      io.Writer         // the command that fetches is printed here before it runs; nil = the log only
	Log      *slog.Logger
}

// ApacheKafka is a real one-node Apache Kafka (KRaft), for tests and benchmarks. It ends with this process.
type ApacheKafka struct {
	config     ApacheKafkaConfig
	dir        string
	java       string
	libs       string
	port       int
	controller int
	claim      *claim
	child      *child
}

// StartApacheKafka starts Apache Kafka on a directory, new or used before, and returns when it answers. The program
// itself comes from the cache folder, or by Maven. An error for which Missing holds says what this machine lacks.
func StartApacheKafka(ctx context.Context, dir string, c ApacheKafkaConfig) (*ApacheKafka, error) {
	if c.Version == "" {
		c.Version = KafkaVersion
	}
	if c.HeapMiB == 0 {
		c.HeapMiB = 256
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("resolve directory: %w", err)
	}
	k := &ApacheKafka{config: c, dir: dir}
	if k.java, err = findJava(ctx, 17); err != nil {
		return nil, fmt.Errorf("start apache kafka: %w", err)
	}
	if k.libs, err = fetchKafka(ctx, c); err != nil {
		return nil, fmt.Errorf("start apache kafka: %w", err)
	}
	if k.claim, err = claimDirectory(dir); err != nil {
		return nil, fmt.Errorf("start apache kafka: %w", err)
	}
	if err = errors.Join(k.choosePorts(), k.format(ctx)); err == nil {
		err = k.launch(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start apache kafka in %s: %w", dir, err), k.claim.release())
	}
	return k, nil
}

// Addrs are the broker's addresses, for clients.
func (k *ApacheKafka) Addrs() []string { return []string{address(k.port)} }

// Pid is the process id of the server.
func (k *ApacheKafka) Pid() int { return k.child.pid() }

// Stop ends the server cleanly and lets go of its directory.
func (k *ApacheKafka) Stop(ctx context.Context) error {
	if err := errors.Join(k.child.stop(ctx, 30*time.Second, syscall.SIGTERM), k.claim.release()); err != nil {
		return fmt.Errorf("stop apache kafka: %w", err)
	}
	return nil
}

// Kill is kill -9. The directory stays ours, for Restart.
func (k *ApacheKafka) Kill() error { return k.child.kill() }

// Restart starts the server again, after Kill or while it runs, on the same directory and ports.
func (k *ApacheKafka) Restart(ctx context.Context) error {
	if !k.child.ended() {
		if err := k.child.stop(ctx, 30*time.Second, syscall.SIGTERM); err != nil {
			return fmt.Errorf("restart apache kafka: %w", err)
		}
	}
	if err := k.launch(ctx); err != nil {
		return fmt.Errorf("restart apache kafka: %w", err)
	}
	return nil
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// kafkaPom lists what the server needs. The server's artifact has no log binding of its own, and would run mute.
const kafkaPom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>orderflow</groupId><artifactId>kafka</artifactId><version>1</version>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>%s</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>2.25.4</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.4</version></dependency>
</dependencies></project>
`

func fetchKafka(ctx context.Context, c ApacheKafkaConfig) (libs string, err error) {
	what := "Apache Kafka " + c.Version
	ready := func(dir string) error {
		_, err := os.Stat(filepath.Join(dir, "libs", "kafka_2.13-"+c.Version+".jar"))
		return err
	}
	dir, err := fetchOnce(ctx, "apache-kafka-"+c.Version, ready, func(ctx context.Context, dir string) error {
		if err := findMaven(what); err != nil {
			return err
		}
		pom := filepath.Join(dir, "pom.xml")
		if err := os.WriteFile(pom, fmt.Appendf(nil, kafkaPom, c.Version), 0o644); err != nil {
			return err
		}
		err := commands{out: c.Out, log: c.Log}.run(ctx, dir, "mvn", "-q", "-B", "-ntp", "-f", pom,
			"org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies",
			"-DincludeScope=runtime", "-DoutputDirectory="+filepath.Join(dir, "libs"))
		if err != nil {
			return &MissingError{What: what, Hint: "Maven could not fetch it", Err: err}
		}
		return nil
	})
	return filepath.Join(dir, "libs"), err
}

func (k *ApacheKafka) choosePorts() (err error) {
	if k.port, err = rememberedPort(filepath.Join(k.dir, "port"), k.config.Port); err != nil {
		return err
	}
	k.controller, err = rememberedPort(filepath.Join(k.dir, "controller.port"), 0)
	return err
}

func (k *ApacheKafka) propertiesPath() string { return filepath.Join(k.dir, "server.properties") }

// properties are those of a node that is alone, prompt and small.
func (k *ApacheKafka) properties() map[string]string {
	broker, controller := "BROKER://"+address(k.port), "CONTROLLER://"+address(k.controller)
	settings := map[string]string{
		"process.roles":                  "broker,controller",
		"node.id":                        "1",
		"controller.quorum.voters":       "1@" + address(k.controller),
		"controller.listener.names":      "CONTROLLER",
		"listeners":                      broker + "," + controller,
		"advertised.listeners":           broker,
		"listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"inter.broker.listener.name":     "BROKER",
		"log.dirs":                       filepath.Join(k.dir, "log"),
		"auto.create.topics.enable":      "false",

		"offsets.topic.replication.factor":                 "1",
		"offsets.topic.num.partitions":                     "8",
		"transaction.state.log.replication.factor":         "1",
		"transaction.state.log.min.isr":                    "1",
		"transaction.state.log.num.partitions":             "8",
		"share.coordinator.state.topic.replication.factor": "1",
		"share.coordinator.state.topic.min.isr":            "1",
		"share.coordinator.state.topic.num.partitions":     "2",

		"group.initial.rebalance.delay.ms":         "0",
		"group.min.session.timeout.ms":             "100",
		"group.consumer.heartbeat.interval.ms":     "1000",
		"group.consumer.min.heartbeat.interval.ms": "500",
		"group.consumer.session.timeout.ms":        "6000",
		"group.consumer.min.session.timeout.ms":    "5000",
		"broker.session.timeout.ms":                "3000",
		"broker.heartbeat.interval.ms":             "500",
		"log.cleaner.dedupe.buffer.size":           "16777216",
		"log.segment.delete.delay.ms":              "1000", // tests delete many topics
		// A producer that begins a transaction while the markers of its last one are being written is asked to come
		// again, and this is how long the broker lets it wait.
		"add.partitions.to.txn.retry.backoff.ms": "1",
	}
	for name, value := range k.config.Settings {
		settings[name] = value
	}
	return settings
}

const kafkaLogging = `rootLogger.level=WARN
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %c %m%n
`

// format writes the configuration and makes the log directory a Kafka one, once.
func (k *ApacheKafka) format(ctx context.Context) error {
	var text strings.Builder
	properties := k.properties()
	for _, name := range sortedKeys(properties) {
		fmt.Fprintf(&text, "%s=%s\n", name, properties[name])
	}
	if err := os.WriteFile(k.propertiesPath(), []byte(text.String()), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(k.dir, "log4j2.properties"), []byte(kafkaLogging), 0o644); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(k.dir, "log", "meta.properties")); err == nil {
		return nil
	}
	out, err := account{}.command(ctx, k.java, k.arguments(64, "kafka.tools.StorageTool", "format",
		"--ignore-formatted", "-t", newClusterID(), "-c", k.propertiesPath())...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("format log directory: %w: %s", err, out[max(0, len(out)-1000):])
	}
	return nil
}

func (k *ApacheKafka) arguments(heapMiB int, mainClass string, args ...string) []string {
	return append([]string{
		fmt.Sprintf("-Xms%dm", heapMiB), fmt.Sprintf("-Xmx%dm", heapMiB), "-XX:+UseG1GC", "-XX:MaxDirectMemorySize=256m",
		"-Dlog4j2.configurationFile=" + filepath.Join(k.dir, "log4j2.properties"),
		"-cp", filepath.Join(k.libs, "*"), mainClass,
	}, args...)
}

// launch starts the server and waits for its answer: its port opens earlier than that.
func (k *ApacheKafka) launch(ctx context.Context) error {
	began := time.Now()
	logPath := filepath.Join(k.dir, "kafka.log")
	var err error
	k.child, err = startChild(childConfig{
		Path:        k.java,
		Args:        k.arguments(k.config.HeapMiB, "kafka.Kafka", k.propertiesPath()),
		Env:         smallEnvironment(),
		Log:         logPath,
		DeathSignal: syscall.SIGKILL, // a clean stop takes longer than a next start should wait
	})
	if err != nil {
		return err
	}
	err = awaitChild(ctx, k.child, func(ctx context.Context) error {
		cl, err := kgo.NewClient(kgo.SeedBrokers(k.Addrs()...), kgo.DisableClientMetrics(), kgo.RequestRetries(0))
		if err != nil {
			return err
		}
		defer cl.Close()
		return cl.Ping(ctx)
	})
	if err != nil {
		return errors.Join(err, k.child.kill())
	}
	k.config.Log.Info("started apache kafka", "version", k.config.Version, "addr", address(k.port), "pid", k.Pid(),
		"took", time.Since(began).Round(time.Millisecond))
	return nil
}
