package embedded

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
)

// RegistryConfig says where the registry keeps what it was told.
type RegistryConfig struct {
	DataDir string // empty = in memory
	Port    int    // 0 = a free one, remembered in DataDir
	Log     *slog.Logger
}

// Registry is a schema registry inside this process that speaks Confluent's REST protocol for Avro. It is as strict as
// a real one: invalid Avro is refused with 422, a schema that its subject's level forbids with 409, and compatibility
// questions get true answers. What it acknowledged it still knows after kill -9, with the same ids.
type Registry struct {
	log     *slog.Logger
	fake    *srfake.Registry
	server  *http.Server
	url     string
	claim   *claim // nil when in memory
	served  chan struct{}
	writing sync.Mutex // orders writes, so that the journal has them in the order they took effect
	journal *journal
}

// biggestRequest bounds what a client can make the registry hold.
const biggestRequest = 1 << 20

// StartRegistry starts the registry on what its directory holds. A directory that another live process uses is refused
// with ErrInUse.
func StartRegistry(ctx context.Context, c RegistryConfig) (*Registry, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	r := &Registry{log: c.Log, fake: srfake.NewRegistry(), journal: &journal{}, served: make(chan struct{})}
	if c.DataDir != "" {
		held, err := claimDirectory(c.DataDir)
		if err != nil {
			return nil, fmt.Errorf("start registry: %w", err)
		}
		r.claim = held
		r.journal.path = filepath.Join(c.DataDir, "registry.json")
	}
	if err := r.start(ctx, c); err != nil {
		return nil, errors.Join(fmt.Errorf("start registry in %q: %w", c.DataDir, err), r.claim.release())
	}
	return r, nil
}

func (r *Registry) start(ctx context.Context, c RegistryConfig) error {
	if err := r.journal.replay(ctx, r.fake.Handler()); err != nil {
		return err
	}
	port := c.Port
	if c.DataDir != "" {
		var err error
		if port, err = rememberedPort(filepath.Join(c.DataDir, "port"), c.Port); err != nil {
			return err
		}
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	r.url = "http://" + listener.Addr().String()
	r.server = &http.Server{Handler: r.Handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second}
	go func() {
		defer close(r.served)
		if err := r.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			r.log.Error("serving the registry ended", "error", err)
		}
	}()
	r.log.Info("started registry", "url", r.url, "data_dir", c.DataDir)
	return nil
}

// URL is the registry's base address, without a slash at its end.
func (r *Registry) URL() string { return r.url }

// Close stops the registry and lets go of its directory.
func (r *Registry) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := r.server.Shutdown(ctx); err != nil {
		r.server.Close() // a client that holds its request open does not hold us
	}
	<-r.served
	return r.claim.release()
}

// Handler serves the protocol. Its reads are those of the fake registry inside, its writes are checked and journaled.
func (r *Registry) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { answer{http.StatusOK, []byte("{}\n")}.send(w) })
	mux.HandleFunc("GET /schemas/types", func(w http.ResponseWriter, _ *http.Request) {
		answer{http.StatusOK, []byte(`["AVRO"]` + "\n")}.send(w)
	})
	mux.HandleFunc("GET /subjects", r.listSubjects)
	mux.HandleFunc("GET /subjects/{subject}/versions", r.listVersions)
	mux.HandleFunc("POST /subjects/{subject}/versions", r.write(r.checkRegistration))
	mux.HandleFunc("POST /compatibility/subjects/{subject}/versions", r.answerCompatibility)
	mux.HandleFunc("POST /compatibility/subjects/{subject}/versions/{version}", r.answerCompatibility)
	for _, pattern := range []string{
		"PUT /config", "PUT /config/{subject}", "DELETE /config/{subject}",
		"PUT /mode", "PUT /mode/{subject}", "DELETE /mode", "DELETE /mode/{subject}",
		"DELETE /subjects/{subject}", "DELETE /subjects/{subject}/versions/{version}",
	} {
		mux.HandleFunc(pattern, r.write(nil))
	}
	mux.HandleFunc("/contexts/", http.NotFound) // would pass by the checks
	mux.Handle("/", r.fake.Handler())
	return mux
}

// write lets one request change the registry: check may refuse it, and it is answered only when it is on disk.
func (r *Registry) write(check func(*http.Request, []byte) *refusal) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, biggestRequest))
		if err != nil {
			(&refusal{http.StatusUnprocessableEntity, codeInvalidSchema, "read request: " + err.Error()}).send(w)
			return
		}
		r.writing.Lock()
		defer r.writing.Unlock()
		if check != nil {
			if no := check(req, body); no != nil {
				no.send(w)
				return
			}
		}
		got := r.ask(req.Context(), req.Method, req.URL.RequestURI(), body)
		if got.status == http.StatusOK {
			if err := r.journal.add(write{Method: req.Method, Path: req.URL.RequestURI(), Body: body, Answer: got.body}); err != nil {
				r.log.Error("keeping a registry write on disk did not work", "error", err)
				(&refusal{http.StatusInternalServerError, codeStore, "keep the write on disk: " + err.Error()}).send(w)
				return
			}
		}
		got.strict().send(w)
	}
}

// ask sends a request to the fake registry inside.
func (r *Registry) ask(ctx context.Context, method, uri string, body []byte) answer {
	return roundTrip(ctx, r.fake.Handler(), method, uri, body)
}

// roundTrip runs one request through a handler, without a network.
func roundTrip(ctx context.Context, h http.Handler, method, uri string, body []byte) answer {
	req, err := http.NewRequestWithContext(ctx, method, uri, bytes.NewReader(body))
	if err != nil {
		return (&refusal{http.StatusBadRequest, codeStore, err.Error()}).answer()
	}
	rec := &recorder{header: make(http.Header), status: http.StatusOK}
	h.ServeHTTP(rec, req)
	return answer{rec.status, rec.body.Bytes()}
}

// recorder is a ResponseWriter that keeps the answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

type answer struct {
	status int
	body   []byte
}

func (a answer) send(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
	w.WriteHeader(a.status)
	w.Write(a.body) // a client that went away is no concern of the registry
}

// strict corrects the answers of the fake that no real registry gives.
func (a answer) strict() answer {
	var body struct {
		Code int `json:"error_code"`
	}
	if a.status == http.StatusBadRequest && json.Unmarshal(a.body, &body) == nil && body.Code == sr.ErrInvalidCompatibilityLevel.Code {
		a.status = http.StatusUnprocessableEntity
	}
	return a
}
