package orders

import (
	"bytes"
	"errors"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// room makes a slice for as many lines as the body seems to have. It is a
// guess that saves growing the slice line by line, no more.
func room(body []byte) []Line {
	return make([]Line, 0, min(bytes.Count(body, []byte(`"sku"`)), maxLines))
}

// ingestLine is one line of a bulk ingest: an order and the client's own id of
// it, which is its idempotency key.
type ingestLine struct {
	ClientOrderID string `json:"client_order_id"`
	Order
}

// cancellation is the body of a cancel request.
type cancellation struct {
	By     string `json:"by"`
	Reason string `json:"reason"`
}

// decode reads one JSON value into v, strictly: an unknown member, a member
// named twice, text that is not UTF-8 and anything after the value are
// refused. The last three could otherwise mean one thing here and another
// thing to the next reader. The error is a *problem.
func decode(data []byte, v any) error {
	err := json.Unmarshal(data, v, json.RejectUnknownMembers(true))
	if err == nil {
		return nil
	}
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		return invalidOrder(faults{semanticFault(semantic)})
	}
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		return malformed(syntactic)
	}
	return problemOf(codeMalformedJSON, "The body is not one whole JSON value.")
}

func malformed(e *jsontext.SyntacticError) *problem {
	what := "not valid JSON"
	if errors.Is(e, jsontext.ErrDuplicateName) {
		what = "a member that is named twice"
	}
	p := problemOf(codeMalformedJSON, "Byte "+strconv.FormatInt(e.ByteOffset, 10)+" of the body: "+what+".")
	p.Errors = faults{{printable(e.JSONPointer), reasonWrongType, what}}
	return p
}

func semanticFault(e *json.SemanticError) fault {
	where := printable(e.JSONPointer)
	if errors.Is(e, json.ErrUnknownName) {
		return fault{where, reasonUnknownField, "is not a field of this request"}
	}
	if errors.Is(e, strconv.ErrRange) {
		return fault{where, reasonOutOfRange, "is too large a number"}
	}
	return fault{where, reasonWrongType, "must be " + wanted(e.GoType)}
}

// printable makes a pointer fit for an answer: the names in it are the
// client's, of any length and perhaps not UTF-8.
func printable(p jsontext.Pointer) string {
	const limit = 200
	s := string(p)
	if len(s) > limit {
		s = s[:limit]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func wanted(t reflect.Type) string {
	if t == nil {
		return "of another type"
	}
	if t == reflect.TypeFor[time.Time]() {
		return "a time as in RFC 3339, such as 2026-01-31T12:00:00Z"
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Int:
		return "a whole number"
	case reflect.Slice:
		return "an array"
	default:
		return "an object"
	}
}
