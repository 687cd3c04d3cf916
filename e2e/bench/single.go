package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// preparedRequests is how many bodies each connection takes turns with; keys
// are new in every request.
const preparedRequests = 64

// sendSingle posts orders over keep-alive connections and returns orders a
// second. Requests are written and answers read by hand: a full HTTP client
// would take more of the two cores than the service that is measured.
func sendSingle(ctx context.Context, addr string, o IngestOptions, round int) (float64, error) {
	var taken atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, o.Connections)
	began := time.Now()
	until := began.Add(time.Duration(o.Seconds) * time.Second)
	for c := range o.Connections {
		wg.Go(func() {
			n, err := post(ctx, addr, until, fmt.Sprintf("single-%d-%d", round, c), uint64(c))
			taken.Add(n)
			errs[c] = err
		})
	}
	wg.Wait()
	return float64(taken.Load()) / time.Since(began).Seconds(), errors.Join(errs...)
}

// post sends orders one after the other on one connection.
func post(ctx context.Context, addr string, until time.Time, key string, seed uint64) (int64, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close() }()
	bodies := make([][]byte, preparedRequests)
	r := rand.New(rand.NewPCG(seed, 6))
	for i := range bodies {
		var b bytes.Buffer
		orderJSON(r, &b, "")
		bodies[i] = b.Bytes()
	}
	in := bufio.NewReader(conn)
	var request []byte
	var n int64
	for ; time.Now().Before(until) && ctx.Err() == nil; n++ {
		body := bodies[n%preparedRequests]
		request = fmt.Appendf(request[:0], "POST /v1/orders HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"+
			"Idempotency-Key: %s-%012d\r\nContent-Length: %d\r\n\r\n", key, n, len(body))
		request = append(request, body...)
		if _, err := conn.Write(request); err != nil {
			return n, fmt.Errorf("send order: %w", err)
		}
		if err := answer(in, http.StatusCreated); err != nil {
			return n, err
		}
	}
	return n, nil
}

// answer reads one HTTP/1.1 response with a Content-Length.
func answer(in *bufio.Reader, want int) error {
	status, err := in.ReadString('\n')
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	length := -1
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			break
		}
		if name, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(name, "Content-Length") {
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
		}
	}
	if length < 0 {
		return errors.New("read answer: no Content-Length")
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(in, body); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if !strings.Contains(status, " "+strconv.Itoa(want)+" ") {
		return fmt.Errorf("answer %s: %s", strings.TrimSpace(status), body)
	}
	return nil
}
