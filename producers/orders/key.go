package orders

import (
	"net/http"
	"strings"
)

// Bounds of an Idempotency-Key: short ones collide, and the database keeps
// them all.
const (
	minKey = 16
	maxKey = 128
	// maxClientOrderID bounds a bulk line's own id. It is the client's order
	// number and may be short.
	maxClientOrderID = 128
)

// keyHeader reads a request's key. present is false if there is no header,
// which only some requests may go without.
//
// The header is a structured-field String, hence quoted
// (draft-ietf-httpapi-idempotency-key-header-07, RFC 8941 section 3.3.3). Many
// clients send it bare, so that is taken for the same key.
func keyHeader(r *http.Request) (k keyOf, present bool, err error) {
	client, err := clientOf(r)
	if err != nil {
		return keyOf{}, false, err
	}
	values := r.Header["Idempotency-Key"]
	if len(values) == 0 {
		return keyOf{client: client}, false, nil
	}
	key, ok := unquote(strings.Trim(values[0], " \t"))
	if !ok || len(values) > 1 || len(key) < minKey || len(key) > maxKey {
		return keyOf{}, true, problemOf(codeKeyInvalid, "")
	}
	return keyOf{client, key}, true, nil
}

// unquote returns the key that a header value stands for.
func unquote(v string) (string, bool) {
	if !strings.HasPrefix(v, `"`) {
		return v, printableASCII(v) && !strings.ContainsAny(v, `",;`)
	}
	var key strings.Builder
	for i := 1; i < len(v); i++ {
		c := v[i]
		switch {
		case c == '"':
			return key.String(), i == len(v)-1
		case c == '\\':
			if i++; i == len(v) || v[i] != '"' && v[i] != '\\' {
				return "", false
			}
			c = v[i]
		case c < 0x20 || c > 0x7e:
			return "", false
		}
		key.WriteByte(c)
	}
	return "", false
}
