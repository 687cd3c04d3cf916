package importer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// cancelOutcome says how a cancellation ended.
type cancelOutcome int

const (
	cancelDone cancelOutcome = iota
	cancelBefore
	cancelRefused
)

// cancel cancels an order at the version it has. When that is no longer the
// version known from the ingest, the order is looked at: cancelled already is
// well, another version is tried.
func (c *client) cancel(ctx context.Context, d due) (cancelOutcome, error) {
	etag := fmt.Sprintf("%q", fmt.Sprint(max(d.version, 1)))
	body, err := json.Marshal(map[string]string{"reason": d.item.why, "by": d.item.by})
	if err != nil {
		return 0, fmt.Errorf("encode cancellation %s: %w", d.item.ref, err)
	}
	var out cancelOutcome
	err = c.persist(ctx, c.patience, func() (bool, error) {
		for range 3 { // the order moved on between look and cancel: look again, but not for ever
			status, err := c.tryCancel(ctx, d.orderID, etag, body)
			if err != nil {
				return false, err
			}
			if status == http.StatusOK {
				out = cancelDone
				return true, nil
			}
			cancelled, now, err := c.look(ctx, d.orderID)
			switch {
			case err != nil:
				return false, err
			case cancelled:
				out = cancelBefore
				return true, nil
			case status == http.StatusConflict:
				out = cancelRefused
				return true, nil
			}
			etag = now
		}
		return false, &unavailable{err: errors.New("cancel: the order keeps changing")}
	})
	if err != nil {
		return 0, fmt.Errorf("cancel order %s: %w", d.orderID, err)
	}
	return out, nil
}

// tryCancel returns 200 (also for other kinds of success), 412 for another
// version, or 409 when the order's state forbids it.
func (c *client) tryCancel(ctx context.Context, orderID, etag string, body []byte) (int, error) {
	header := http.Header{"Content-Type": {"application/json"}, "If-Match": {etag}, "X-Client-Id": {c.scope}}
	res, done, err := c.do(ctx, http.MethodPost, "/v1/orders/"+url.PathEscape(orderID)+"/cancel", body, header)
	if err != nil {
		return 0, err
	}
	defer done()
	switch res.StatusCode {
	case http.StatusOK, http.StatusAccepted, http.StatusNoContent:
		return http.StatusOK, nil
	case http.StatusPreconditionFailed, http.StatusConflict:
		return res.StatusCode, nil
	}
	return 0, errors.New(refusal(res))
}

// look asks for the order's state and ETag.
func (c *client) look(ctx context.Context, orderID string) (cancelled bool, etag string, err error) {
	res, done, err := c.do(ctx, http.MethodGet, "/v1/orders/"+url.PathEscape(orderID), nil, nil)
	if err != nil {
		return false, "", err
	}
	defer done()
	if res.StatusCode != http.StatusOK {
		return false, "", fmt.Errorf("look: %s", refusal(res))
	}
	var o struct {
		Status string `json:"status"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 8<<20)).Decode(&o); err != nil {
		return false, "", &unavailable{err: fmt.Errorf("look: read answer: %w", err)}
	}
	return strings.EqualFold(o.Status, "CANCELLED"), res.Header.Get("ETag"), nil
}
