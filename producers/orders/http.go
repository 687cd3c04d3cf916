package orders

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	maxBody     = 1 << 20
	maxClientID = 64

	contentJSON    = "application/json"
	contentProblem = "application/problem+json"
)

// handler answers one request. An error that is a *problem becomes that
// problem's answer, any other an internal error.
type handler func(w http.ResponseWriter, r *http.Request) error

// route is a path and what may be done there. Its name is a metric's label.
type route struct {
	name    string
	pattern string
	methods map[string]handler
}

func (s *Service) routes() []route {
	return []route{
		{"orders", "/v1/orders", map[string]handler{http.MethodPost: s.place, http.MethodGet: s.list}},
		{"ingest", "/v1/orders:ingest", map[string]handler{http.MethodPost: s.ingest}},
		{"order", "/v1/orders/{id}", map[string]handler{http.MethodGet: s.get}},
		{"cancel", "/v1/orders/{id}/cancel", map[string]handler{http.MethodPost: s.cancel}},
		{"openapi", "/openapi.json", map[string]handler{http.MethodGet: openAPI}},
		{"docs", "/docs", map[string]handler{http.MethodGet: docs}},
		{"problem", "/problems/{code}", map[string]handler{http.MethodGet: describeProblem}},
		{"none", "/", nil},
	}
}

// Handler is the whole HTTP API. Requests that write wait for the writer, so
// they are answered only while Run runs.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		mux.Handle(r.pattern, s.door(r))
	}
	return mux
}

func (s *Service) door(rt route) http.Handler {
	var allowed []string
	for method := range rt.methods {
		allowed = append(allowed, method)
		if method == http.MethodGet {
			allowed = append(allowed, http.MethodHead)
		}
	}
	slices.Sort(allowed)
	allow := strings.Join(allowed, ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		var err error
		if h := rt.methods[method]; h != nil {
			err = h(rec, r)
		} else if rt.methods == nil {
			err = problemOf(codeNotFound, "")
		} else {
			rec.Header().Set("Allow", allow)
			err = problemOf(codeMethodNotAllowed, "Allowed here: "+allow+".")
		}
		if err != nil {
			s.refuse(rec, r, err)
		}
		s.metrics.answered(rt.name, rec.status, time.Since(begun))
	})
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets an http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// refuse answers with the problem that err is.
func (s *Service) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := asProblem(err)
	if p.Status >= http.StatusInternalServerError && p.cause != nil && r.Context().Err() == nil {
		s.log.Error("answer with a server error", "method", r.Method, "path", r.URL.Path,
			"trace_id", traceID(r), "err", p.cause)
	}
	p.TraceID = traceID(r)
	if after := catalogue[p.Code].retryAfter; after != "" {
		w.Header().Set("Retry-After", after)
	}
	writeBody(w, p.Status, contentProblem, p.marshal())
}

func writeBody(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	w.WriteHeader(status)
	// A client that went away does not read the answer; there is nobody left
	// to tell.
	_, _ = w.Write(body)
}

// traceID is the middle of a W3C traceparent, "" without one.
func traceID(r *http.Request) string {
	parts := strings.Split(r.Header.Get("Traceparent"), "-")
	if len(parts) < 4 || len(parts[1]) != 32 {
		return ""
	}
	for _, c := range parts[1] {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return ""
		}
	}
	return parts[1]
}

// acceptJSON refuses a body that does not call itself JSON.
func acceptJSON(r *http.Request) error {
	given := r.Header.Get("Content-Type")
	if given != contentJSON {
		media, params, err := mime.ParseMediaType(given)
		charset, named := params["charset"]
		if err != nil || media != contentJSON || named && !strings.EqualFold(charset, "utf-8") {
			return problemOf(codeUnsupportedMedia, "Content-Type must be application/json.")
		}
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return problemOf(codeUnsupportedMedia, "Content-Encoding is not supported here.")
	}
	return nil
}

// readBody reads a whole body, into buf if its length is known and fits.
func readBody(w http.ResponseWriter, r *http.Request, buf []byte) ([]byte, error) {
	if r.ContentLength > maxBody {
		return nil, problemOf(codeBodyTooLarge, "")
	}
	if n := r.ContentLength; n >= 0 {
		body := slices.Grow(buf[:0], int(n))[:n]
		if _, err := io.ReadFull(r.Body, body); err != nil {
			return nil, problemOf(codeBodyUnreadable, "").because(err)
		}
		return body, nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, problemOf(codeBodyTooLarge, "")
	case err != nil:
		return nil, problemOf(codeBodyUnreadable, "").because(err)
	}
	return body, nil
}

// clientOf is whose keys a request uses.
func clientOf(r *http.Request) (string, error) {
	id := r.Header.Get("X-Client-Id")
	if id == "" {
		return "default", nil
	}
	if len(id) > maxClientID || !printableASCII(id) {
		return "", problemOf(codeInvalidParameter, "X-Client-Id must be 1 to 64 printable ASCII characters.")
	}
	return id, nil
}

func printableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
