package orders

import (
	"errors"
	"net/http"

	"github.com/go-json-experiment/json"
)

// code names a kind of problem. It is stable: clients branch on it, metrics
// count it, and /problems/CODE describes it.
type code string

const (
	codeMalformedJSON    code = "malformed_json"
	codeInvalidOrder     code = "invalid_order"
	codeInvalidParameter code = "invalid_parameter"
	codeKeyMissing       code = "idempotency_key_missing"
	codeKeyInvalid       code = "idempotency_key_invalid"
	codeKeyReused        code = "idempotency_key_reused"
	codeInProgress       code = "request_in_progress"
	codeBodyTooLarge     code = "body_too_large"
	codeOrderTooLarge    code = "order_too_large"
	codeUnsupportedMedia code = "unsupported_media_type"
	codeNotFound         code = "not_found"
	codeOrderNotFound    code = "order_not_found"
	codeMethodNotAllowed code = "method_not_allowed"
	codeVersionMismatch  code = "version_mismatch"
	codeNotCancellable   code = "order_not_cancellable"
	codeNotStorable      code = "not_storable"
	codeQueueFull        code = "queue_full"
	codeTooManyStreams   code = "too_many_streams"
	codeUnavailable      code = "database_unavailable"
	codeStopping         code = "shutting_down"
	codeBodyUnreadable   code = "body_unreadable"
	codeResultsUnread    code = "results_not_read"
	codeInternal         code = "internal_error"
)

const defaultRetryAfterSecs = "1"

// kind is what is the same for every occurrence of a problem.
type kind struct {
	status int
	title  string
	// meaning tells a client what to do; it is shown on the problem's page.
	meaning string
	// retryAfter is the Retry-After header, "" for none.
	retryAfter string
}

// catalogue holds every problem that this service answers with.
var catalogue = map[code]kind{
	codeMalformedJSON: {
		http.StatusBadRequest, "Malformed JSON",
		"The body is not one valid JSON value: broken syntax, a member named twice, text that is not UTF-8, or something after the value.", "",
	},
	codeInvalidOrder: {
		http.StatusUnprocessableEntity, "Invalid request body",
		"The body is JSON but not a valid request. errors lists up to 20 places and what is wrong there. Repeating it unchanged cannot succeed.", "",
	},
	codeInvalidParameter: {
		http.StatusBadRequest, "Invalid parameter",
		"A header or a query parameter has a value that is not allowed.", "",
	},
	codeKeyMissing: {
		http.StatusBadRequest, "Idempotency-Key missing",
		"The request must carry an Idempotency-Key header, so that it can be repeated without a second order.", "",
	},
	codeKeyInvalid: {
		http.StatusBadRequest, "Idempotency-Key invalid",
		"The key must be 16 to 128 printable ASCII characters, quoted or bare, given once.", "",
	},
	codeKeyReused: {
		http.StatusUnprocessableEntity, "Idempotency key reused",
		"This client used the key before for another request. Nothing was done. A new request needs a new key.", "",
	},
	codeInProgress: {
		http.StatusConflict, "Request in progress",
		"Another request holds the same key or the same order and has not finished. Repeat this one after Retry-After seconds.", defaultRetryAfterSecs,
	},
	codeBodyTooLarge: {
		http.StatusRequestEntityTooLarge, "Body too large",
		"A single order may be up to 1 MiB of JSON, a line of a bulk ingest up to 256 KiB.", "",
	},
	codeOrderTooLarge: {
		http.StatusUnprocessableEntity, "Order too large",
		"The order's event would be too large to publish. Split the order.", "",
	},
	codeUnsupportedMedia: {
		http.StatusUnsupportedMediaType, "Unsupported media type",
		"Single requests take application/json; a bulk ingest takes application/x-ndjson or application/jsonl, plain or with Content-Encoding: gzip.", "",
	},
	codeNotFound: {
		http.StatusNotFound, "Not found",
		"There is nothing at this path. /openapi.json lists what there is.", "",
	},
	codeOrderNotFound: {
		http.StatusNotFound, "Order not found",
		"No order has this id.", "",
	},
	codeMethodNotAllowed: {
		http.StatusMethodNotAllowed, "Method not allowed",
		"The path exists, but not with this method. The Allow header lists those that do.", "",
	},
	codeVersionMismatch: {
		http.StatusPreconditionFailed, "Version mismatch",
		"The order's version is not the one that If-Match names. Read the order again and decide anew.", "",
	},
	codeNotCancellable: {
		http.StatusConflict, "Order cannot be cancelled",
		"The order's status does not allow a cancellation.", "",
	},
	codeNotStorable: {
		http.StatusUnprocessableEntity, "Order cannot be stored",
		"The database refused this order's data although it passed every check. Repeating it unchanged cannot succeed; please report it.", "",
	},
	codeQueueFull: {
		http.StatusServiceUnavailable, "Too many requests waiting",
		"More orders wait to be written than the service lets wait. Nothing was done. Repeat after Retry-After seconds, with the same key.", defaultRetryAfterSecs,
	},
	codeTooManyStreams: {
		http.StatusServiceUnavailable, "Too many ingest streams",
		"As many bulk ingests as the service allows are running. Repeat after Retry-After seconds.", "5",
	},
	codeUnavailable: {
		http.StatusServiceUnavailable, "Database unavailable",
		"The database did not answer in time. If the request was to change something, whether it did is unknown: repeat it with the same key to find out, without risk of a second order.", "5",
	},
	codeStopping: {
		http.StatusServiceUnavailable, "Shutting down",
		"The service is stopping. Repeat the request, with the same key, against another instance or in a moment.", "5",
	},
	codeBodyUnreadable: {
		http.StatusBadRequest, "Body unreadable",
		"The body broke off or is not what its Content-Encoding says. Lines that came through whole were handled; send all again to learn the results.", "",
	},
	codeResultsUnread: {
		http.StatusUnprocessableEntity, "Results not read",
		"The client sent more lines than the service can keep results for while none are read. Read results while sending, or send less in one stream.", "",
	},
	codeInternal: {
		http.StatusInternalServerError, "Internal error",
		"Something is wrong with the service. The log has the details under the trace id.", "",
	},
}

// problem is the body of every answer that is not a success: RFC 9457 with a
// stable code and the places that are wrong.
type problem struct {
	Type    string `json:"type"`
	Title   string `json:"title"`
	Status  int    `json:"status"`
	Code    code   `json:"code"`
	Detail  string `json:"detail,omitempty"`
	TraceID string `json:"trace_id,omitempty"`
	Errors  faults `json:"errors,omitempty"`

	cause error // what is logged; never shown
}

// problemOf makes an occurrence of a problem.
func problemOf(c code, detail string) *problem {
	k := catalogue[c]
	return &problem{Type: "/problems/" + string(c), Title: k.title, Status: k.status, Code: c, Detail: detail}
}

// invalidOrder makes a problem of faults.
func invalidOrder(f faults) *problem {
	p := problemOf(codeInvalidOrder, f[0].Pointer+" "+f[0].Detail)
	p.Errors = f
	return p
}

// asProblem is the problem that err is, or else an internal error.
func asProblem(err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	return problemOf(codeInternal, "").because(err)
}

// because keeps the error that led to the problem for the log.
func (p *problem) because(err error) *problem {
	p.cause = err
	return p
}

func (p *problem) Error() string {
	if p.cause != nil {
		return string(p.Code) + ": " + p.cause.Error()
	}
	return string(p.Code)
}

func (p *problem) Unwrap() error { return p.cause }

// reason is the label under which a rejected order is counted: the first thing
// that is wrong with it, or the problem itself.
func (p *problem) reason() string {
	if p.Code == codeInvalidOrder && len(p.Errors) > 0 {
		return string(p.Errors[0].Code)
	}
	return string(p.Code)
}

func (p *problem) marshal() []byte {
	b, err := json.Marshal(p)
	if err != nil {
		// The texts in a problem come from us or were checked as UTF-8.
		return []byte(`{"status":500,"code":"internal_error"}`)
	}
	return b
}
