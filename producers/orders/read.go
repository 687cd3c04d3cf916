package orders

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const (
	defaultPage = 50
	maxPage     = 200
	readTimeout = 10 * time.Second
)

// get answers GET /v1/orders/{id}.
func (s *Service) get(w http.ResponseWriter, r *http.Request) error {
	id, err := orderID(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	h, doc, err := s.read(ctx, id)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", etag(h.version))
	w.Header().Set("Cache-Control", "no-cache")
	if names(r.Header.Values("If-None-Match"), etag(h.version), true) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	writeBody(w, http.StatusOK, contentJSON, appendRepresentation(make([]byte, 0, 256+len(doc)), &h, doc))
	return nil
}

// orderID reads the id in the path. Only the one usual spelling is an id.
func orderID(r *http.Request) (uuid.UUID, error) {
	text := r.PathValue("id")
	id, err := uuid.Parse(text)
	if err != nil || id.String() != text {
		return uuid.UUID{}, problemOf(codeOrderNotFound, "")
	}
	return id, nil
}

func (s *Service) read(ctx context.Context, id uuid.UUID) (head, []byte, error) {
	h := head{id: id}
	var doc []byte
	err := s.db.QueryRow(ctx, `
		SELECT version, status, placed_at, changed_at, coalesce(cancelled_by, ''), coalesce(cancel_reason, ''), doc
		FROM orders.orders WHERE order_id = $1`, id).
		Scan(&h.version, &h.status, &h.placedAt, &h.changedAt, &h.cancelledBy, &h.cancelReason, &doc)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return head{}, nil, problemOf(codeOrderNotFound, "")
	case err != nil:
		return head{}, nil, problemOf(codeUnavailable, "").because(fmt.Errorf("read order %s: %w", id, err))
	}
	return h, doc, nil
}

// names reports whether a list of entity tags, as in If-Match, holds tag. weak
// says whether W/ may be ignored (RFC 9110 section 8.8.3.2).
func names(list []string, tag string, weak bool) bool {
	for _, value := range list {
		for _, t := range strings.Split(value, ",") {
			t = strings.Trim(t, " \t")
			if weak {
				t = strings.TrimPrefix(t, "W/")
			}
			if t == tag || t == "*" {
				return true
			}
		}
	}
	return false
}

// list answers GET /v1/orders: the newest accepted orders first, a page at a
// time. An order id begins with the time of its acceptance, so the primary key
// is the order of the list and pages stay true while new orders arrive.
func (s *Service) list(w http.ResponseWriter, r *http.Request) error {
	limit, before, err := page(r.URL.Query())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	rows, err := s.db.Query(ctx, `
		SELECT order_id, version, status, placed_at, changed_at, coalesce(cancelled_by, ''), coalesce(cancel_reason, ''),
		       customer_id, channel, line_count, grand_minor, currency, scale
		FROM orders.orders WHERE order_id < $1 ORDER BY order_id DESC LIMIT $2`, before, limit+1)
	if err != nil {
		return problemOf(codeUnavailable, "").because(fmt.Errorf("list orders: %w", err))
	}
	defer rows.Close()
	body := []byte(`{"items":[`)
	var last uuid.UUID
	count, more := 0, false
	for rows.Next() {
		if more = count == limit; more {
			break
		}
		if count > 0 {
			body = append(body, ',')
		}
		if body, last, err = appendSummary(body, rows); err != nil {
			return fmt.Errorf("list orders: %w", err)
		}
		count++
	}
	if rows.Close(); rows.Err() != nil {
		return problemOf(codeUnavailable, "").because(fmt.Errorf("list orders: %w", rows.Err()))
	}
	body = append(body, ']')
	if more {
		next := cursorAfter(last)
		w.Header().Set("Link", fmt.Sprintf(`</v1/orders?limit=%d&cursor=%s>; rel="next"`, limit, next))
		body = append(body, `,"next_cursor":"`+next+`"`...)
	} else {
		body = append(body, `,"next_cursor":null`...)
	}
	writeBody(w, http.StatusOK, contentJSON, append(body, '}'))
	return nil
}

// appendSummary writes what the list shows of an order.
func appendSummary(b []byte, row pgx.Rows) ([]byte, uuid.UUID, error) {
	var h head
	var o Order
	var lines int
	var grand int64
	err := row.Scan(&h.id, &h.version, &h.status, &h.placedAt, &h.changedAt, &h.cancelledBy, &h.cancelReason,
		&o.CustomerID, &o.Channel, &lines, &grand, &o.currency, &o.scale)
	if err != nil {
		return b, uuid.UUID{}, err
	}
	b = appendHead(b, &h)
	b = append(b, `,"customer_id":`...)
	b = appendText(b, o.CustomerID)
	b = append(b, `,"channel":`...)
	b = appendText(b, o.Channel)
	b = append(b, `,"line_count":`...)
	b = strconv.AppendInt(b, int64(lines), 10)
	b = append(b, `,"grand_total":`...)
	b = appendMoney(b, grand, &o)
	return append(b, '}'), h.id, nil
}

// page reads the parameters of a list.
func page(q url.Values) (limit int, before uuid.UUID, err error) {
	limit, before = defaultPage, uuid.Max
	if text := q.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxPage {
			return 0, uuid.UUID{}, problemOf(codeInvalidParameter, fmt.Sprintf("limit must be from 1 to %d.", maxPage))
		}
	}
	if text := q.Get("cursor"); text != "" {
		if before, err = parseCursor(text); err != nil {
			return 0, uuid.UUID{}, err
		}
	}
	return limit, before, nil
}

// A cursor is opaque to clients: a version and the id of the page's last order.
const cursorVersion = 1

func cursorAfter(id uuid.UUID) string {
	return base64.RawURLEncoding.EncodeToString(append([]byte{cursorVersion}, id[:]...))
}

func parseCursor(text string) (uuid.UUID, error) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(raw) != 1+len(uuid.UUID{}) || raw[0] != cursorVersion {
		return uuid.UUID{}, problemOf(codeInvalidParameter, "cursor must be a next_cursor of an earlier page.")
	}
	return uuid.UUID(raw[1:]), nil
}
