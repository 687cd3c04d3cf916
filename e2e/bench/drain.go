package bench

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// drained is one run of the relay over a backlog.
type drained struct {
	perSecond    float64 // from the begin of its leadership to the last commit
	perCPUSecond float64
	peakMiB      float64
}

const (
	drainPoll  = 20 * time.Millisecond
	drainLimit = 10 * time.Minute
)

// drain runs the relay as a process of its own, under a source name that
// begins at the outbox's beginning, until it published every event.
func (l *lab) drain(ctx context.Context, o RelayOptions, events int, name string) (drained, error) {
	ctx, cancel := context.WithTimeout(ctx, drainLimit)
	defer cancel()
	addr, err := freeAddr()
	if err != nil {
		return drained{}, err
	}
	cmd := exec.CommandContext(ctx, o.Program, "--log-level=warn", "relay", "--source-name=bench-"+name, "--metrics-addr="+addr)
	cmd.Env = append(os.Environ(), "DATABASE_URL="+l.url, "KAFKA_BROKERS="+strings.Join(l.brokers, ","), "SCHEMA_REGISTRY_URL="+l.registry.URL())
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 30 * time.Second
	if err := cmd.Start(); err != nil {
		return drained{}, fmt.Errorf("start relay: %w", err)
	}
	took, err := awaitDrained(ctx, addr, events)
	if signalErr := cmd.Process.Signal(syscall.SIGINT); err == nil {
		err = signalErr
	}
	if waitErr := cmd.Wait(); err == nil {
		err = waitErr
	}
	if err != nil {
		return drained{}, fmt.Errorf("drain %d events: %w", events, err)
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return drained{}, fmt.Errorf("drain %d events: no resource usage on this system", events)
	}
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return drained{
		perSecond:    float64(events) / took.Seconds(),
		perCPUSecond: float64(events) / cpu.Seconds(),
		peakMiB:      peakMiB(usage),
	}, nil
}

// awaitDrained returns the time from the first sight of a leader to that of
// the last event.
func awaitDrained(ctx context.Context, addr string, events int) (time.Duration, error) {
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	var led time.Time
	for {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-tick.C:
		}
		m, err := scrape(ctx, addr, "orderflow_relay_leader{", "orderflow_relay_events_published_total{")
		if err != nil {
			continue // not up yet; the context bounds it
		}
		if led.IsZero() && m[0] == 1 {
			led = time.Now()
		}
		if int(m[1]) >= events {
			return time.Since(led), nil
		}
	}
}

// scrape reads the values of the first series with each prefix.
func scrape(ctx context.Context, addr string, prefixes ...string) ([]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	values := make([]float64, len(prefixes))
	for s := bufio.NewScanner(res.Body); s.Scan(); {
		for i, p := range prefixes {
			if strings.HasPrefix(s.Text(), p) {
				values[i], err = strconv.ParseFloat(s.Text()[strings.LastIndexByte(s.Text(), ' ')+1:], 64)
				if err != nil {
					return nil, fmt.Errorf("read metric: %w", err)
				}
			}
		}
	}
	return values, nil
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}
