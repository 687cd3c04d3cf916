package schemas

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/riferrei/srclient"
)

// Level is the compatibility every subject is held to: each version reads
// every other, older or newer.
const Level = "FULL_TRANSITIVE"

const (
	defaultRegistryTimeout = 5 * time.Second
	// maxCached bounds each cache: several times the ids a program meets, and
	// a stop to those a broken producer makes up.
	maxCached = 4096
)

// Registry talks to a schema registry with Confluent's interface. Every call
// ends at its context's deadline, and after the registry's timeout at the
// latest. It is safe for concurrent use.
//
// The registries differ; what is written here holds for all of them: the
// level is set for each subject before its first version and read back, a
// conflict at registration is a verdict only when the schema is not there
// afterwards, versions come from a lookup, nothing is ever deleted, and an id
// is a many-to-one answer (a text that differs in documentation alone may get
// the id of its older twin).
type Registry struct {
	url            string
	user, password string
	transport      http.RoundTripper
	timeout        time.Duration

	mu    sync.Mutex // protects ids and texts
	ids   map[subjectText]int
	texts map[int]string
}

type subjectText struct{ subject, text string }

// RegistryOption sets up a Registry.
type RegistryOption func(*Registry)

// WithTimeout bounds every call; the default is 5 s.
func WithTimeout(d time.Duration) RegistryOption {
	return func(r *Registry) { r.timeout = d }
}

// WithBasicAuth sends user and password with every request.
func WithBasicAuth(user, password string) RegistryOption {
	return func(r *Registry) { r.user, r.password = user, password }
}

// WithTransport sends the requests through rt, which holds certificates or
// counts; the default is http.DefaultTransport.
func WithTransport(rt http.RoundTripper) RegistryOption {
	return func(r *Registry) { r.transport = rt }
}

// NewRegistry returns a client for the registry at rawURL, an http or https
// address that may carry user and password. It does not connect.
func NewRegistry(rawURL string, opts ...RegistryOption) (*Registry, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		// The parser's error repeats the address, and with it a password.
		return nil, errors.New("parse registry address: not a URL")
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("parse registry address: %s is no http or https address", u.Redacted())
	}
	r := &Registry{
		timeout: defaultRegistryTimeout,
		ids:     map[subjectText]int{},
		texts:   map[int]string{},
	}
	if u.User != nil {
		r.user = u.User.Username()
		r.password, _ = u.User.Password()
		u.User = nil
	}
	// A slash at the end would make //subjects, which some answer with 404.
	r.url = strings.TrimRight(u.String(), "/")
	for _, opt := range opts {
		opt(r)
	}
	if r.transport == nil {
		r.transport = http.DefaultTransport
	}
	return r, nil
}

// Ping asks the registry for the one answer that all of them give cheaply.
func (r *Registry) Ping(ctx context.Context) error {
	err := r.call(ctx, func(c *srclient.SchemaRegistryClient) error {
		_, err := c.GetSubjects()
		return err
	})
	return wrap(err, "reach the registry")
}

// ID returns the id of text under subject, registering it when it is not
// there yet. Refused tells a verdict about the schema from a registry that is
// merely Unavailable. Ids are cached.
func (r *Registry) ID(ctx context.Context, subject, text string) (int, error) {
	key := subjectText{subject, text}
	if id, ok := cached(r, r.ids, key); ok {
		return id, nil
	}
	found, err := r.find(ctx, subject, text)
	if err == nil && found.ID == 0 {
		found, err = r.register(ctx, subject, text)
	}
	if err != nil {
		return 0, err
	}
	remember(r, r.ids, key, found.ID)
	return found.ID, nil
}

// Text returns the schema with that id. The error is ErrUnknownSchemaID when
// the registry does not have it, and Unavailable when it does not say. Texts
// are cached, since an id never changes its meaning.
func (r *Registry) Text(ctx context.Context, id int) (string, error) {
	if text, ok := cached(r, r.texts, id); ok {
		return text, nil
	}
	var text string
	err := r.call(ctx, func(c *srclient.SchemaRegistryClient) error {
		schema, err := c.GetSchema(id)
		if err == nil {
			text = schema.Schema()
		}
		return err
	})
	if codeOf(err) == codeSchemaUnknown {
		err = ErrUnknownSchemaID
	}
	if err != nil {
		return "", fmt.Errorf("read schema %d: %w", id, err)
	}
	remember(r, r.texts, id, text)
	return text, nil
}

// Version is one version of a subject in the registry.
type Version struct {
	ID, Number int
	Text       string
}

// Versions returns every version of subject, oldest first; none is no error.
func (r *Registry) Versions(ctx context.Context, subject string) ([]Version, error) {
	var numbers []int
	err := r.call(ctx, func(c *srclient.SchemaRegistryClient) (err error) {
		numbers, err = c.GetSchemaVersions(subject)
		return err
	})
	if notFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list versions of %s: %w", subject, err)
	}
	versions := make([]Version, 0, len(numbers))
	for _, n := range numbers {
		v := Version{Number: n}
		err := r.call(ctx, func(c *srclient.SchemaRegistryClient) error {
			schema, err := c.GetSchemaByVersion(subject, n)
			if err == nil {
				v.ID, v.Text = schema.ID(), schema.Schema()
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read version %d of %s: %w", n, subject, err)
		}
		versions = append(versions, v)
	}
	return versions, nil
}

// find looks text up under subject; a zero Version means that it is not there.
func (r *Registry) find(ctx context.Context, subject, text string) (Version, error) {
	v := Version{Text: text}
	err := r.call(ctx, func(c *srclient.SchemaRegistryClient) error {
		schema, err := c.LookupSchema(subject, text, srclient.Avro)
		if err == nil {
			v.ID, v.Number = schema.ID(), schema.Version()
		}
		return err
	})
	if notFound(err) {
		return Version{}, nil
	}
	return v, wrap(asVerdict(err), "look up a schema of %s", subject)
}

// register makes text the newest version of subject.
func (r *Registry) register(ctx context.Context, subject, text string) (Version, error) {
	if err := r.requireLevel(ctx, subject); err != nil {
		return Version{}, err
	}
	err := r.call(ctx, func(c *srclient.SchemaRegistryClient) error {
		_, err := c.CreateSchema(subject, text, srclient.Avro)
		return err
	})
	refusal := asVerdict(err)
	if refusal != nil && !Refused(refusal) {
		return Version{}, fmt.Errorf("register a schema of %s: %w", subject, refusal)
	}
	// Look it up in both cases: a conflict may only mean that somebody else
	// was faster with the same schema, and the answer to a registration
	// carries no version.
	v, err := r.find(ctx, subject, text)
	switch {
	case err != nil:
		return Version{}, err
	case v.ID == 0 && refusal != nil:
		return Version{}, fmt.Errorf("register a schema of %s: %w", subject, refusal)
	case v.ID == 0:
		return Version{}, fmt.Errorf("register a schema of %s: %w", subject,
			&unavailableError{errors.New("accepted, yet not found afterwards")})
	}
	return v, nil
}

// requireLevel holds subject to Level and reads it back, because a registry's
// global level is not ours to rely on.
func (r *Registry) requireLevel(ctx context.Context, subject string) error {
	level, err := r.level(ctx, subject)
	if err != nil || level == Level {
		return err
	}
	setErr := r.call(ctx, func(c *srclient.SchemaRegistryClient) error {
		_, err := c.ChangeSubjectCompatibilityLevel(subject, Level)
		return err
	})
	// Read it back in both cases: an error may only mean that somebody else
	// was faster, and no answer says what the level is now.
	level, err = r.level(ctx, subject)
	switch {
	case level == Level:
		return nil
	case setErr != nil:
		return fmt.Errorf("set the compatibility level of %s: %w", subject, setErr)
	case err != nil:
		return err
	}
	return fmt.Errorf("set the compatibility level of %s: %w", subject,
		&unavailableError{fmt.Errorf("set to %s, reads back %q", Level, level)})
}

// level returns the level set for subject itself, or "" when none is.
func (r *Registry) level(ctx context.Context, subject string) (string, error) {
	var level string
	err := r.call(ctx, func(c *srclient.SchemaRegistryClient) error {
		l, err := c.GetCompatibilityLevel(subject, false)
		if err == nil && l != nil {
			level = l.String()
		}
		return err
	})
	if notFound(err) {
		return "", nil
	}
	return level, wrap(err, "read the compatibility level of %s", subject)
}

func cached[K comparable, V any](r *Registry, cache map[K]V, key K) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := cache[key]
	return v, ok
}

func remember[K comparable, V any](r *Registry, cache map[K]V, key K, v V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(cache) >= maxCached {
		clear(cache)
	}
	cache[key] = v
}
