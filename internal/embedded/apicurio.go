package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// ApicurioConfig says how to run an Apicurio registry.
type ApicurioConfig struct {
	Version string    // default: 3.3.3 where there is Java 21 or later, else 2.6.13.Final
	Out     io.Writer // the command that fetches is printed here before it runs; nil = the log only
	Log     *slog.Logger
}

// Apicurio is a real schema registry that keeps everything in memory, for tests. It ends with this process.
type Apicurio struct {
	url   string
	claim *claim
	child *child
}

// The two lines of Apicurio: the newer needs the newer Java.
const (
	apicurioNew = "3.3.3"
	apicurioOld = "2.6.13.Final"
)

// StartApicurio starts an Apicurio registry with its scratch files in dir, and returns when it answers. The program
// itself comes from the cache folder, or by Maven. An error for which Missing holds says what this machine lacks.
func StartApicurio(ctx context.Context, dir string, c ApicurioConfig) (*Apicurio, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	java, err := apicurioJava(ctx, &c)
	if err != nil {
		return nil, fmt.Errorf("start apicurio: %w", err)
	}
	program, err := fetchApicurio(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("start apicurio: %w", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("start apicurio: %w", err)
	}
	a := &Apicurio{}
	if a.claim, err = claimDirectory(dir); err != nil {
		return nil, fmt.Errorf("start apicurio: %w", err)
	}
	if err := a.launch(ctx, dir, java, program, c); err != nil {
		return nil, errors.Join(fmt.Errorf("start apicurio in %s: %w", dir, err), a.claim.release())
	}
	return a, nil
}

// URL is the registry's base address in Confluent's protocol, without a slash at its end.
func (a *Apicurio) URL() string { return a.url }

// Stop ends the registry, and what it held is gone.
func (a *Apicurio) Stop(ctx context.Context) error {
	return errors.Join(a.child.stop(ctx, 10*time.Second, syscall.SIGTERM), a.claim.release())
}

// apicurioJava chooses Java, and the version that runs on it where none was asked for.
func apicurioJava(ctx context.Context, c *ApicurioConfig) (string, error) {
	if c.Version == apicurioOld {
		return findJava(ctx, 17)
	}
	java, err := findJava(ctx, 21)
	if err == nil || c.Version != "" {
		c.Version = cmp.Or(c.Version, apicurioNew)
		return java, err
	}
	c.Version = apicurioOld
	return findJava(ctx, 17)
}

// apicurioJar is the program inside the archive.
func apicurioJar(version string) string {
	if version == apicurioOld {
		return "apicurio-registry-app-" + version + "-runner.jar"
	}
	return "quarkus-run.jar"
}

func fetchApicurio(ctx context.Context, c ApicurioConfig) (jar string, err error) {
	what := "Apicurio registry " + c.Version
	ready := func(dir string) error {
		_, err := os.Stat(filepath.Join(dir, apicurioJar(c.Version)))
		return err
	}
	dir, err := fetchOnce(ctx, "apicurio-"+c.Version, ready, func(ctx context.Context, dir string) error {
		if err := findMaven(what); err != nil {
			return err
		}
		run := commands{out: c.Out, log: c.Log}.run
		err := run(ctx, dir, "mvn", "-q", "-B", "-ntp", "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy",
			"-Dartifact=io.apicurio:apicurio-registry-app:"+c.Version+":tar.gz:all", "-DoutputDirectory="+dir)
		if err != nil {
			return &MissingError{What: what, Hint: "Maven could not fetch it", Err: err}
		}
		archive := filepath.Join(dir, "apicurio-registry-app-"+c.Version+"-all.tar.gz")
		if err := run(ctx, dir, "tar", "xzf", archive, "-C", dir); err != nil {
			return err
		}
		return os.Remove(archive)
	})
	return filepath.Join(dir, apicurioJar(c.Version)), err
}

func (a *Apicurio) launch(ctx context.Context, dir, java, jar string, c ApicurioConfig) error {
	began := time.Now()
	port, err := rememberedPort(filepath.Join(dir, "port"), 0)
	if err != nil {
		return err
	}
	management, err := rememberedPort(filepath.Join(dir, "management.port"), 0)
	if err != nil {
		return err
	}
	a.url = "http://" + address(port) + "/apis/ccompat/v7"
	a.child, err = startChild(childConfig{
		Path: java,
		Args: []string{
			"-Xmx160m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
			"-Dquarkus.http.host=127.0.0.1", "-Dquarkus.http.port=" + strconv.Itoa(port),
			// It opens a second port on all addresses, and cannot be told not to.
			"-Dquarkus.management.host=127.0.0.1", "-Dquarkus.management.port=" + strconv.Itoa(management),
			"-jar", jar,
		},
		Env:         smallEnvironment(),
		Log:         filepath.Join(dir, "apicurio.log"),
		DeathSignal: syscall.SIGKILL,
	})
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: 2 * time.Second}
	defer client.CloseIdleConnections()
	err = awaitChild(ctx, a.child, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+"/subjects", http.NoBody)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("list subjects: %s", resp.Status)
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, a.child.kill())
	}
	c.Log.Info("started apicurio", "version", c.Version, "url", a.url, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// Pid is the process id of the server.
func (a *Apicurio) Pid() int { return a.child.pid() }
