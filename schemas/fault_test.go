package schemas_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"orderflow/internal/testenv"
	"orderflow/schemas"
)

// line is a transport that can be cut, and counts what went through it.
type line struct {
	cut   atomic.Bool
	calls atomic.Int64
}

func (l *line) RoundTrip(req *http.Request) (*http.Response, error) {
	l.calls.Add(1)
	if l.cut.Load() {
		return nil, errors.New("the line is cut")
	}
	return http.DefaultTransport.RoundTrip(req)
}

// answering serves each request from answers, which maps "METHOD /path" to a
// status, a space, and a body; what it does not know is 404 with code 40401.
func answering(t *testing.T, answers map[string]string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		answer, ok := answers[req.Method+" "+req.URL.Path]
		if !ok {
			answer = `404 {"error_code":40401,"message":"none"}`
		}
		var status int
		if err := json.Unmarshal([]byte(answer[:3]), &status); err != nil {
			t.Error(err)
		}
		w.WriteHeader(status)
		io.WriteString(w, answer[4:])
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestARegistryThatGivesNoVerdictIsUnavailable(t *testing.T) {
	t.Parallel()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	urls := map[string]string{"nobody listens": closed.URL}
	for name, answer := range map[string]string{
		"overloaded":             `503 <html>busy</html>`,
		"broken store":           `500 {"error_code":50001,"message":"store"}`,
		"too many requests":      `429 {"error_code":429,"message":"slow down"}`,
		"not let in":             `401 {"error_code":401,"message":"who are you"}`,
		"forbidden":              `403 {"error_code":40301,"message":"no"}`,
		"another server's 404":   `404 <html>not here</html>`,
		"another path":           `404 {"error_code":404,"message":"HTTP 404 Not Found"}`,
		"another server's 200":   `200 <html>welcome</html>`,
		"another server's error": `409 nonsense`,
	} {
		urls[name] = answering(t, map[string]string{
			"GET /schemas/ids/7": answer, "POST /subjects/s": answer, "GET /subjects/s/versions": answer,
		})
	}
	for name, url := range urls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry(t, url)
			_, textErr := r.Text(t.Context(), 7)
			_, idErr := r.ID(t.Context(), "s", `"string"`)
			_, versionsErr := r.Versions(t.Context(), "s")
			for call, err := range map[string]error{"Text": textErr, "ID": idErr, "Versions": versionsErr} {
				if !schemas.Unavailable(err) || schemas.Refused(err) || errors.Is(err, schemas.ErrUnknownSchemaID) {
					t.Errorf("%s: got error %v, want Unavailable alone", call, err)
				}
			}
		})
	}
}

func TestAnAddressMayEndInASlash(t *testing.T) {
	t.Parallel()
	url := answering(t, map[string]string{"GET /subjects": `200 []`})
	if err := newRegistry(t, url+"/").Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestALostRaceIsNoRefusal(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case strings.HasPrefix(req.URL.Path, "/config/"):
			io.WriteString(w, `{"compatibilityLevel":"FULL_TRANSITIVE"}`)
		case req.URL.Path == "/subjects/s/versions":
			w.WriteHeader(http.StatusConflict)
			io.WriteString(w, `{"error_code":409,"message":"exists"}`)
		case asked.Add(1) == 1: // the first look-up is before the registration
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"error_code":40403,"message":"none"}`)
		default:
			io.WriteString(w, `{"subject":"s","version":1,"id":12,"schema":"\"string\""}`)
		}
	}))
	t.Cleanup(server.Close)
	if id, err := newRegistry(t, server.URL).ID(t.Context(), "s", `"string"`); err != nil || id != 12 {
		t.Errorf("got id %d, %v, want 12", id, err)
	}
}

func TestAConflictIsNoVerdictWhileTheRegistryCannotBeAskedAgain(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case strings.HasPrefix(req.URL.Path, "/config/"):
			io.WriteString(w, `{"compatibilityLevel":"FULL_TRANSITIVE"}`)
		case req.URL.Path == "/subjects/s/versions":
			w.WriteHeader(http.StatusConflict)
			io.WriteString(w, `{"error_code":409,"message":"exists"}`)
		case asked.Add(1) == 1:
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"error_code":40403,"message":"none"}`)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	if _, err := newRegistry(t, server.URL).ID(t.Context(), "s", `"string"`); !schemas.Unavailable(err) || schemas.Refused(err) {
		t.Errorf("got error %v, want Unavailable alone", err)
	}
}

func TestALevelThatSomebodyElseJustSetIsFine(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case req.Method == http.MethodPut:
			w.WriteHeader(http.StatusConflict)
			io.WriteString(w, `{"error_code":0,"message":"a rule exists"}`)
		case req.URL.Path == "/config/s" && asked.Add(1) > 1:
			io.WriteString(w, `{"compatibilityLevel":"FULL_TRANSITIVE"}`)
		case req.URL.Path == "/subjects/s" && asked.Load() > 1:
			io.WriteString(w, `{"subject":"s","version":1,"id":12,"schema":"\"string\""}`)
		case req.URL.Path == "/subjects/s/versions" || req.URL.Path == "/schemas/ids/12":
			io.WriteString(w, `{"id":12,"schema":"\"string\""}`)
		default:
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"error_code":40401,"message":"none"}`)
		}
	}))
	t.Cleanup(server.Close)
	if id, err := newRegistry(t, server.URL).ID(t.Context(), "s", `"string"`); err != nil || id != 12 {
		t.Errorf("got id %d, %v, want 12", id, err)
	}
}

func TestNothingIsRegisteredUnderALevelThatDoesNotStick(t *testing.T) {
	t.Parallel()
	url := answering(t, map[string]string{
		"GET /config/s":             `200 {"compatibilityLevel":"NONE"}`,
		"PUT /config/s":             `200 {"compatibility":"FULL_TRANSITIVE"}`,
		"POST /subjects/s/versions": `200 {"id":3}`,
		"GET /schemas/ids/3":        `200 {"schema":"\"string\""}`,
	})
	_, err := newRegistry(t, url).ID(t.Context(), "s", `"string"`)
	if err == nil || !strings.Contains(err.Error(), `reads back "NONE"`) || schemas.Refused(err) {
		t.Errorf("got error %v, want one about the level", err)
	}
}

func TestACallEndsWithItsContextOrItsTimeout(t *testing.T) {
	t.Parallel()
	reached := make(chan struct{}, 2)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		reached <- struct{}{}
		<-req.Context().Done()
	}))
	t.Cleanup(server.Close)

	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-reached
		cancel()
	}()
	_, err := newRegistry(t, server.URL, schemas.WithTimeout(time.Hour)).Text(ctx, 7)
	if !errors.Is(err, context.Canceled) || schemas.Unavailable(err) {
		t.Errorf("got error %v, want the caller's own", err)
	}

	_, err = newRegistry(t, server.URL, schemas.WithTimeout(20*time.Millisecond)).Text(t.Context(), 7)
	if !schemas.Unavailable(err) {
		t.Errorf("got error %v, want Unavailable", err)
	}
}

func TestIDsAndTextsAreAskedForOnce(t *testing.T) {
	t.Parallel()
	l := &line{}
	r := newRegistry(t, testenv.Registry(t), schemas.WithTransport(l))
	subject, text := newSubject(), thing("cached")
	id := mustID(t, r, subject, text)
	if _, err := r.Text(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	l.cut.Store(true)
	if again := mustID(t, r, subject, text); again != id {
		t.Errorf("got id %d, want %d", again, id)
	}
	if _, err := r.Text(t.Context(), id); err != nil {
		t.Errorf("the text was not kept: %v", err)
	}
}

func TestCredentialsAreSentAndNeverShown(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if user, password, _ := req.BasicAuth(); user != "ann" || password != "s3cret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		io.WriteString(w, `[]`)
	}))
	withUser := strings.Replace(server.URL, "http://", "http://ann:s3cret@", 1)
	inURL := newRegistry(t, withUser)
	inOption := newRegistry(t, server.URL, schemas.WithBasicAuth("ann", "s3cret"))
	for name, r := range map[string]*schemas.Registry{"in the address": inURL, "as an option": inOption} {
		if err := r.Ping(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	server.Close()
	if err := inURL.Ping(t.Context()); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got error %v, want one without the password", err)
	}
	for _, bad := range []string{"ftp://ann:s3cret@host", "http://ann:s3cret@", "http://ann:s3cret@host:port", "", "localhost:8081"} {
		if _, err := schemas.NewRegistry(bad); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: got error %v, want one without the password", bad, err)
		}
	}
}
