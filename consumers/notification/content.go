package notification

import (
	"fmt"
	"strconv"
	"strings"

	"orderflow/schemas"
)

const (
	maxLines  = 20  // of an order, in its mail
	maxLength = 200 // characters of any text that somebody else wrote
)

// content is what a template may use, as it is kept with the mail.
type content struct {
	Reference  string        `json:"reference,omitempty"` // where an imported order came from
	Lines      []contentLine `json:"lines,omitempty"`
	More       int           `json:"more,omitempty"` // lines that are left out
	Total      string        `json:"total,omitempty"`
	PromisedBy string        `json:"promised_by,omitempty"`
	Reason     string        `json:"reason,omitempty"` // of a cancellation
}

type contentLine struct {
	Quantity int    `json:"quantity"`
	Title    string `json:"title"`
}

func aboutOrder(o *schemas.OrderPlaced) content {
	c := content{Total: amount(o.Totals.Grand)}
	if o.Source != nil {
		c.Reference = plain(o.Source.System + " " + o.Source.Ref)
	}
	if o.PromisedBy != nil {
		c.PromisedBy = o.PromisedBy.UTC().Format("2 January 2006")
	}
	shown := o.Lines[:min(len(o.Lines), maxLines)]
	c.More = len(o.Lines) - len(shown)
	for _, l := range shown {
		title := l.SKU
		if l.Title != nil {
			title = *l.Title
		}
		c.Lines = append(c.Lines, contentLine{l.Quantity, plain(title)})
	}
	return c
}

func aboutCancellation(e *schemas.OrderCancelled) content { return content{Reason: plain(e.Reason)} }

// plain makes one line of text that somebody else wrote: no control
// characters, no more than 200 characters.
func plain(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 }), " ")
	for i := range s {
		if i > maxLength {
			return s[:i] + "..."
		}
	}
	return s
}

// amount writes money the way people do: 139.12 GBP.
func amount(m schemas.Money) string {
	digits := strconv.FormatUint(magnitude(m.Minor), 10)
	if short := m.Scale + 1 - len(digits); short > 0 {
		digits = strings.Repeat("0", short) + digits
	}
	whole, fraction := digits[:len(digits)-m.Scale], digits[len(digits)-m.Scale:]
	if fraction != "" {
		whole += "." + fraction
	}
	if m.Minor < 0 {
		whole = "-" + whole
	}
	return fmt.Sprintf("%s %s", whole, m.Currency)
}

func magnitude(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}
