package importer

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// maxAnswer bounds one line of the API's answer, or one error document.
const maxAnswer = 1 << 20

// client speaks to the Orders API, with endless courtesy up to a deadline: what
// is unavailable is tried again, what is refused is not.
type client struct {
	http     *http.Client
	base     string
	scope    string
	patience time.Duration
	log      *slog.Logger
}

func newClient(cfg Config, deps Deps) *client {
	return &client{
		http: deps.HTTP, base: strings.TrimSuffix(cfg.API, "/"), scope: cfg.ClientID,
		patience: cfg.Patience, log: deps.Log,
	}
}

// answer is one line of the answer to an ingest.
type answer struct {
	Line     int             `json:"line"`
	Status   int             `json:"status"`
	OrderID  string          `json:"order_id"`
	Version  int64           `json:"version"`
	Replayed bool            `json:"replayed"`
	Problem  problem         `json:"problem"`
	Summary  json.RawMessage `json:"summary"`
}

func (a answer) refused() bool { return a.Status >= 300 }

// problem is what the importer reads of an RFC 9457 document.
type problem struct {
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
	Errors []struct {
		Code    string `json:"code"`
		Pointer string `json:"pointer"`
		Detail  string `json:"detail"`
	} `json:"errors"`
}

// name is the code of the first thing that is wrong, else the problem's own, else
// the status.
func (p problem) name(status int) string {
	if len(p.Errors) > 0 && p.Errors[0].Code != "" {
		return p.Errors[0].Code
	}
	if p.Code != "" {
		return p.Code
	}
	return strconv.Itoa(status)
}

// what says it for a person, with the first place it points at.
func (p problem) what() string {
	if len(p.Errors) > 0 {
		return p.Errors[0].Pointer + " " + p.Errors[0].Detail
	}
	return cmp.Or(p.Detail, p.Title)
}

// unavailable is an error that may pass.
type unavailable struct {
	err   error
	after time.Duration // the API's own Retry-After
}

func (u *unavailable) Error() string { return u.err.Error() }
func (u *unavailable) Unwrap() error { return u.err }

// hello makes sure that the Orders API is there before anything is read.
func (c *client) hello(ctx context.Context) error {
	return c.persist(ctx, min(firstContact, c.patience), func() (bool, error) {
		res, done, err := c.do(ctx, http.MethodGet, "/v1/orders?limit=1", nil, nil)
		if err != nil {
			return false, err
		}
		defer done()
		if res.StatusCode != http.StatusOK {
			return false, fmt.Errorf("ask for orders: %s answers %s: is this the Orders API?", c.base, res.Status)
		}
		return true, nil
	})
}

// place offers the orders in one request after another until each has its
// answer. An order whose answer was lost is sent again, which makes no second.
func (c *client) place(ctx context.Context, orders []pending, answered func(pending, answer)) error {
	return c.persist(ctx, c.patience, func() (bool, error) {
		before := len(orders)
		rest, err := c.ingest(ctx, orders, answered)
		orders = rest
		return len(rest) < before, err
	})
}

// ingest is one request; it returns the orders that have no answer yet, and an
// error exactly if there are any.
func (c *client) ingest(ctx context.Context, orders []pending, answered func(pending, answer)) ([]pending, error) {
	if len(orders) == 0 {
		return nil, nil
	}
	var body bytes.Buffer
	for _, p := range orders {
		body.Write(p.body)
	}
	header := http.Header{"Content-Type": {"application/x-ndjson"}, "X-Client-Id": {c.scope}}
	res, done, err := c.do(ctx, http.MethodPost, "/v1/orders:ingest", body.Bytes(), header)
	if err != nil {
		return orders, err
	}
	defer done()
	if res.StatusCode != http.StatusOK {
		return orders, fmt.Errorf("ingest: %s", refusal(res))
	}
	have, err := c.answers(res.Body, orders, answered)
	var rest []pending
	for i, p := range orders {
		if !have[i] {
			rest = append(rest, p)
		}
	}
	switch {
	case len(rest) == 0:
		return nil, nil
	case err != nil:
		return rest, err
	default:
		return rest, &unavailable{err: errors.New("ingest: some orders were not answered for good")}
	}
}

// answers reads the stream of answers and says which orders have a final one.
func (c *client) answers(r io.Reader, orders []pending, answered func(pending, answer)) ([]bool, error) {
	have := make([]bool, len(orders))
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxAnswer)
	for lines.Scan() {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var a answer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			return have, &unavailable{err: fmt.Errorf("ingest: read answer: %w", err)} // a line cut short
		}
		switch {
		case len(a.Summary) > 0:
			return have, nil
		case a.Line == 0: // the API ended the stream early: it stops, or lost its database
			return have, &unavailable{err: fmt.Errorf("ingest: %s: %s", a.Problem.name(0), a.Problem.what())}
		}
		if a.Line < 1 || a.Line > len(orders) || have[a.Line-1] {
			return have, fmt.Errorf("ingest: answer for line %d, of %d lines sent", a.Line, len(orders))
		}
		if passing(a.Status) {
			continue
		}
		if !a.refused() && a.OrderID == "" {
			return have, fmt.Errorf("ingest: answer for line %d without an order id", a.Line)
		}
		have[a.Line-1] = true
		answered(orders[a.Line-1], a)
	}
	if err := lines.Err(); err != nil {
		return have, &unavailable{err: fmt.Errorf("ingest: read answers: %w", err)}
	}
	return have, &unavailable{err: errors.New("ingest: read answers: cut off before the summary")}
}

// passing tells the statuses that may be different next time: overload, an order
// of the same id still under way, a server on its way up or down.
func passing(status int) bool {
	switch status {
	case http.StatusConflict, http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// do sends one request. Whoever gets a response calls done when finished with
// it. A status that passes is an *unavailable error; a 409 passes if it says when
// to come again.
func (c *client) do(ctx context.Context, method, path string, body []byte, header http.Header) (*http.Response, func(), error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		cancel()
		return nil, nil, fmt.Errorf("make request: %w", err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	res, err := c.http.Do(req)
	if err != nil {
		cancel()
		return nil, nil, &unavailable{err: err} // names method and URL
	}
	done := func() {
		_, _ = io.CopyN(io.Discard, res.Body, maxAnswer) // so that the connection can be used again
		_ = res.Body.Close()
		cancel()
	}
	if passing(res.StatusCode) && (res.StatusCode != http.StatusConflict || res.Header.Get("Retry-After") != "") {
		err := &unavailable{err: fmt.Errorf("%s %s: %s", method, path, refusal(res)), after: retryAfter(res)}
		done()
		return nil, nil, err
	}
	return res, done, nil
}

// refusal says what an error response says.
func refusal(res *http.Response) string {
	var p problem
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil || json.Unmarshal(text, &p) != nil || p.what() == "" {
		return res.Status
	}
	return res.Status + ": " + p.what()
}

func retryAfter(res *http.Response) time.Duration {
	seconds, err := strconv.Atoi(res.Header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(min(seconds, 60)) * time.Second
}

// persist calls attempt until it succeeds or fails for good, waiting longer and
// longer in between. It gives up when attempt made no progress for so long.
func (c *client) persist(ctx context.Context, patience time.Duration, attempt func() (progress bool, err error)) error {
	pause := &backoff.ExponentialBackOff{
		InitialInterval: 100 * time.Millisecond, RandomizationFactor: 0.3, Multiplier: 2, MaxInterval: 5 * time.Second,
	}
	pause.Reset()
	since := time.Now()
	for {
		progress, err := attempt()
		var u *unavailable
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.As(err, &u):
			return err
		}
		if progress {
			pause.Reset()
			since = time.Now()
		}
		waited := time.Since(since)
		wait := min(max(pause.NextBackOff(), u.after), patience-waited)
		if wait <= 0 { // the last attempt came when patience ended
			return fmt.Errorf("reach the Orders API at %s: no success for %s: %w (start it, or point --api at it, and import again: nothing is placed twice)",
				c.base, waited.Round(time.Millisecond), err)
		}
		c.log.Warn("wait for the orders api", "api", c.base, "wait", wait, "err", err)
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}
