package notification

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"text/template"
	"time"

	"github.com/wneessen/go-mail"

	"orderflow/internal/pg"
	"orderflow/schemas"
)

// States of a mail.
const (
	stateQueued     = "queued"
	stateSent       = "sent"
	stateFailed     = "failed"
	stateSuppressed = "suppressed"
)

// letter is a mail as it was written down, with all that sending it takes.
type letter struct {
	mailJob
	state    string
	template string
	key      string
	cause    schemas.EventMeta
	content  content
	written  time.Time
	customer string
	address  *string // nil when the customer has no contact
}

const letterSQL = `
SELECT m.state, m.template, m.idem_key, m.cause_id, m.correlation_id, m.flow, m.synthetic,
       coalesce(m.content, '{}'), m.created_at, coalesce(o.customer_id, ''), c.address
FROM mails AS m
JOIN orders AS o USING (order_id)
LEFT JOIN contacts AS c USING (customer_id)
WHERE m.order_id = $1 AND m.number = $2`

// readLetter looks the address up at the last moment, so that a change of it
// and the wish to be forgotten count at once. The error is pgx.ErrNoRows when
// there is no such mail.
func readLetter(ctx context.Context, db pg.DB, j mailJob) (letter, error) {
	l := letter{mailJob: j, cause: schemas.EventMeta{OrderID: j.Order}}
	var text []byte
	err := db.QueryRow(ctx, letterSQL, j.Order, j.Number).Scan(&l.state, &l.template, &l.key,
		&l.cause.EventID, &l.cause.CorrelationID, &l.cause.Flow, &l.cause.Synthetic,
		&text, &l.written, &l.customer, &l.address)
	if err == nil {
		err = json.Unmarshal(text, &l.content)
	}
	if err != nil {
		return letter{}, fmt.Errorf("read mail %d of order %s: %w", j.Number, j.Order, err)
	}
	return l, nil
}

// to is the address the mail goes to. A customer without a contact has one
// that is derived from the pseudonymous id and that no mail can reach (RFC
// 2606 reserves .invalid), so that development needs no contacts.
func (l *letter) to() string {
	if l.address != nil {
		return *l.address
	}
	sum := sha256.Sum256([]byte(l.customer))
	return hex.EncodeToString(sum[:8]) + "@customers.invalid"
}

//go:embed templates/*.txt
var templateFiles embed.FS

// press turns letters into mails.
type press struct {
	from, domain string
	templates    map[string]*template.Template
}

func newPress(c Config) (*press, error) {
	p := &press{from: c.From, domain: c.domain(), templates: map[string]*template.Template{}}
	for _, name := range []string{orderReceived, orderCancelled} {
		t, err := template.ParseFS(templateFiles, "templates/"+name+".txt")
		if err != nil {
			return nil, fmt.Errorf("read template %s: %w", name, err)
		}
		p.templates[name] = t
	}
	return p, nil
}

// compose makes the mail. The same letter makes the same mail, byte for byte,
// so a mail that is sent again is the same one. An error is final.
func (p *press) compose(l *letter) (*mail.Msg, error) {
	t, ok := p.templates[l.template]
	if !ok {
		return nil, fmt.Errorf("compose mail: no template %q", l.template)
	}
	var subject, body strings.Builder
	data := page{Name: orderName(l), Order: l.Order, content: l.content}
	if err := t.ExecuteTemplate(&subject, "subject", data); err != nil {
		return nil, fmt.Errorf("compose %s: %w", l.template, err)
	}
	if err := t.Execute(&body, data); err != nil {
		return nil, fmt.Errorf("compose %s: %w", l.template, err)
	}
	m := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := m.From(p.from); err != nil {
		return nil, fmt.Errorf("compose %s: sender is no address", l.template)
	}
	if err := m.To(l.to()); err != nil {
		return nil, fmt.Errorf("compose %s: the contact is no address", l.template)
	}
	m.Subject(plain(subject.String()))
	m.SetMessageIDWithValue(strings.ReplaceAll(l.key, "/", ".") + "@" + p.domain)
	m.SetDateWithValue(l.written)
	m.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: asks for no automatic answer
	m.SetBodyString(mail.TypeTextPlain, body.String())
	return m, nil
}

// page is what a template sees.
type page struct {
	Name  string // of the order, for the subject
	Order string
	content
}

// orderName is the order's number where it came from, else the end of its id:
// the end, because ids that begin with a time begin alike.
func orderName(l *letter) string {
	if l.content.Reference != "" {
		return l.content.Reference
	}
	return l.Order[max(0, len(l.Order)-8):]
}
