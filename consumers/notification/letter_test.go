package notification

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	st "orderflow/consumers/internal/servicetest"
	"orderflow/schemas"
)

// read composes a mail of the content and returns its text without the frame
// of MIME.
func read(t *testing.T, template string, c content) string {
	t.Helper()
	p, err := newPress(Config{From: "Shop <orders@example.com>"}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	kept, err := json.Marshal(c) // as the database keeps it
	if err != nil {
		t.Fatal(err)
	}
	l := &letter{
		mailJob: mailJob{Order: "0192f7c0-1111-7222-8333-444455556666", Number: 1}, template: template,
		key: effectKey(&schemas.EventMeta{EventID: "e1"}, template), written: st.PlacedAt(), customer: "17850",
	}
	if err := json.Unmarshal(kept, &l.content); err != nil {
		t.Fatal(err)
	}
	m, err := p.compose(l)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if _, err := m.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(text.String(), "\r\n", "\n")
}

func TestMailAboutAnOrderReadsWell(t *testing.T) {
	t.Parallel()
	o := twoLines("536365")
	o.Lines[0].Title = nil
	promised := time.Date(2026, 3, 12, 0, 0, 0, 0, time.UTC)
	o.PromisedBy = &promised
	want := `Date: Wed, 04 Mar 2026 09:30:00 +0000
MIME-Version: 1.0
Message-ID: <notification.e1.order-received@example.com>
Subject: Your order web 536365
Auto-Submitted: auto-generated
From: "Shop" <orders@example.com>
To: <8072f6579de32612@customers.invalid>
Content-Type: text/plain; charset=UTF-8
Content-Transfer-Encoding: quoted-printable

Thank you for your order.

Order  0192f7c0-1111-7222-8333-444455556666
From   web 536365

    2 x mug
   13 x title of lamp

Total  38.25 GBP

It should be with you by 12 March 2026.

You need not do anything now.
`
	if diff := cmp.Diff(sortHeader(want), sortHeader(read(t, orderReceived, aboutOrder(o)))); diff != "" {
		t.Errorf("mail (-want +got):\n%s", diff)
	}
}

func TestMailAboutACancellationReadsWell(t *testing.T) {
	t.Parallel()
	text := read(t, orderCancelled, aboutCancellation(st.Cancelled("o1")))
	want := `Your order is cancelled.

Order   0192f7c0-1111-7222-8333-444455556666
Reason  ordered by mistake

Nothing will be sent. You need not do anything.
`
	_, body, _ := strings.Cut(text, "\n\n")
	if diff := cmp.Diff(want, body); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	if !strings.Contains(text, "Subject: Your order 55556666 is cancelled\n") {
		t.Errorf("the mail reads\n%s", text)
	}
}

func TestForeignTextCannotAddHeadersOrFloodAMail(t *testing.T) {
	t.Parallel()
	o := twoLines("x\r\nBcc: all@example.com\r\n\r\nhello")
	long := strings.Repeat("ä", 5000)
	for range 200 {
		o.Lines = append(o.Lines, schemas.OrderLine{SKU: long, Quantity: 1, Title: &long})
	}
	text := read(t, orderReceived, aboutOrder(o))
	header, _, _ := strings.Cut(text, "\n\n")
	if strings.Contains(header, "\nBcc") {
		t.Errorf("the header reads\n%s", header)
	}
	if len(text) > 40_000 || !strings.Contains(text, "and 182 more") {
		t.Errorf("the mail has %d bytes", len(text))
	}
}

func TestAmountsReadLikeMoney(t *testing.T) {
	t.Parallel()
	for want, m := range map[string]schemas.Money{
		"139.12 GBP":                {Minor: 13912, Currency: "GBP", Scale: 2},
		"0.05 GBP":                  {Minor: 5, Currency: "GBP", Scale: 2},
		"0.000 BHD":                 {Minor: 0, Currency: "BHD", Scale: 3},
		"-0.05 GBP":                 {Minor: -5, Currency: "GBP", Scale: 2},
		"-12.3400 EUR":              {Minor: -123400, Currency: "EUR", Scale: 4},
		"1200 JPY":                  {Minor: 1200, Currency: "JPY"},
		"-92233720368547758.08 GBP": {Minor: math.MinInt64, Currency: "GBP", Scale: 2},
	} {
		if got := amount(m); got != want {
			t.Errorf("%+v reads %q, want %q", m, got, want)
		}
	}
}

// sortHeader puts the header's lines in order: the library writes them in any.
func sortHeader(text string) []string {
	header, body, _ := strings.Cut(text, "\n\n")
	return append(sorted(strings.Split(header, "\n")), body)
}
