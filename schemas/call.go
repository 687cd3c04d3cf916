package schemas

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/riferrei/srclient"
)

// ErrUnknownSchemaID says that the registry answered, and has no schema with
// that id.
var ErrUnknownSchemaID = errors.New("unknown schema id")

// The registry's error codes that mean something here.
const (
	codeSubjectUnknown = 40401
	codeVersionUnknown = 40402
	codeSchemaUnknown  = 40403
	codeLevelUnset     = 40408
)

// Unavailable reports whether err means that the registry gave no verdict: it
// is away, too slow, or does not let us in. Waiting may help.
func Unavailable(err error) bool {
	var u *unavailableError
	return errors.As(err, &u)
}

// Refused reports whether err means that the registry looked at a schema and
// will not have it: it is invalid or incompatible. Waiting does not help.
func Refused(err error) bool {
	var r *refusedError
	return errors.As(err, &r)
}

type unavailableError struct{ err error }

func (e *unavailableError) Error() string { return "registry unavailable: " + e.err.Error() }
func (e *unavailableError) Unwrap() error { return e.err }

type refusedError struct{ err error }

func (e *refusedError) Error() string { return "registry refused the schema: " + e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// answerError is an error that the registry itself gave.
type answerError struct {
	status int // of HTTP
	code   int // of the registry
	err    error
}

func (e *answerError) Error() string { return e.err.Error() }
func (e *answerError) Unwrap() error { return e.err }

// call runs one call of srclient under ctx and the timeout. srclient knows no
// context, and its caches never learn of a new version, so each call gets a
// client of its own: a few small maps around a transport that carries ctx.
// Connections are shared.
//
// The error is the caller's own when ctx ended. Every other is Unavailable
// until somebody who knows the question finds an answer in it.
func (r *Registry) call(ctx context.Context, do func(*srclient.SchemaRegistryClient) error) error {
	bounded, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	x := &exchange{ctx: bounded, next: r.transport}
	c := srclient.NewSchemaRegistryClient(r.url, srclient.WithClient(&http.Client{Transport: x, Timeout: r.timeout}))
	c.CachingEnabled(false)
	c.CodecCreationEnabled(false)
	c.SetCredentials(r.user, r.password)

	err := do(c)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("call registry: %w", context.Cause(ctx))
	}
	var answer srclient.Error
	if errors.As(err, &answer) {
		err = &answerError{status: x.status, code: answer.Code, err: err}
	}
	return &unavailableError{err}
}

// asVerdict makes a refusal of the answer to a look-up or a registration when
// it is about the schema.
func asVerdict(err error) error {
	var answer *answerError
	if errors.As(err, &answer) && (answer.status == http.StatusConflict || answer.status == http.StatusUnprocessableEntity) {
		return &refusedError{answer}
	}
	return err
}

// codeOf returns the registry's error code, or 0.
func codeOf(err error) int {
	var answer *answerError
	if errors.As(err, &answer) {
		return answer.code
	}
	return 0
}

// notFound reports whether the registry says that there is nothing yet; it
// has a code for each thing, and registries do not agree on which to use.
func notFound(err error) bool {
	switch codeOf(err) {
	case codeSubjectUnknown, codeVersionUnknown, codeSchemaUnknown, codeLevelUnset:
		return true
	}
	return false
}

// exchange is a transport for one call: it carries the call's context, which
// srclient cannot, and notes the status, which srclient's errors leave out.
type exchange struct {
	ctx    context.Context
	next   http.RoundTripper
	status int // of the last answer; 0 when there was none
}

func (x *exchange) RoundTrip(req *http.Request) (*http.Response, error) {
	x.status = 0
	resp, err := x.next.RoundTrip(req.WithContext(x.ctx))
	if err == nil {
		x.status = resp.StatusCode
	}
	return resp, err
}

func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}
