package orders

import (
	"strconv"
	"unicode/utf8"
)

// reason is a stable code for one thing wrong with an order. Clients may
// branch on it and a metric counts it, so the list only grows.
type reason string

const (
	reasonUnknownField    reason = "unknown_field"
	reasonWrongType       reason = "wrong_type"
	reasonMissing         reason = "missing"
	reasonTooLong         reason = "too_long"
	reasonInvalidText     reason = "invalid_text"
	reasonOutOfRange      reason = "out_of_range"
	reasonUnknownValue    reason = "unknown_value"
	reasonUnknownCurrency reason = "unknown_currency"
	reasonMixedCurrencies reason = "mixed_currencies"
	reasonInvalidAmount   reason = "invalid_amount"
	reasonTotalOverflow   reason = "total_overflow"
	reasonNegativeTotal   reason = "negative_total"
	reasonEmptyOrder      reason = "empty_order"
	reasonTooManyLines    reason = "too_many_lines"
)

// fault is one thing wrong with a request and where it is, as an RFC 6901
// pointer into the JSON that was sent.
type fault struct {
	Pointer string `json:"pointer"`
	Code    reason `json:"code"`
	Detail  string `json:"detail"`
}

// maxFaults bounds how many faults one answer lists: an order has up to 2,000
// lines and each may be wrong in many ways.
const maxFaults = 20

// faults collects what is wrong with one order.
type faults []fault

func (f *faults) add(where place, code reason, detail string) {
	if len(*f) < maxFaults {
		*f = append(*f, fault{where.String(), code, detail})
	}
}

// place is a pointer that is only spelled out when something is wrong there.
type place struct {
	line  int // index into /lines, -1 for a place outside of them
	field string
}

func at(field string) place { return place{-1, field} }

func (p place) String() string {
	if p.line < 0 {
		return p.field
	}
	return "/lines/" + strconv.Itoa(p.line) + p.field
}

func (p place) in(field string) place { return place{p.line, p.field + field} }

// required checks a text that must be there.
func (f *faults) required(s string, limit int, where place) {
	if s == "" {
		f.add(where, reasonMissing, "is required")
		return
	}
	f.optional(s, limit, where)
}

// optional checks a text that may be left out. Control characters are refused
// everywhere: Postgres cannot store NUL, and a line break in a title would
// reach the header of a mail.
func (f *faults) optional(s string, limit int, where place) {
	if len(s) > limit && utf8.RuneCountInString(s) > limit {
		f.add(where, reasonTooLong, "must be at most "+strconv.Itoa(limit)+" characters")
	}
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			f.add(where, reasonInvalidText, "must not contain control characters")
			return
		}
	}
}

// within checks a whole number.
func (f *faults) within(n, low, high int, where place) {
	if n < low || n > high {
		f.add(where, reasonOutOfRange,
			"must be a whole number from "+strconv.Itoa(low)+" to "+strconv.Itoa(high))
	}
}
