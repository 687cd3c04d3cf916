package orders

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"time"
	"unicode/utf8"

	"orderflow/schemas"
)

const sample = `{"customer_id":"17850","channel":"uci","lines":[
{"sku":"85123A","title":"WHITE HANGING HEART T-LIGHT HOLDER","quantity":6,"unit_price":{"amount":"2.55","currency":"GBP"},"seller_id":"uci"},
{"sku":"71053","title":"WHITE METAL LANTERN","quantity":6,"unit_price":{"amount":"3.39","currency":"GBP"},"seller_id":"uci"},
{"sku":"84406B","title":"CREAM CUPID HEARTS COAT HANGER","quantity":8,"unit_price":{"amount":"2.75","currency":"GBP"},"seller_id":"uci"},
{"sku":"84029G","title":"KNITTED UNION FLAG HOT WATER BOTTLE","quantity":6,"unit_price":{"amount":"3.39","currency":"GBP"},"seller_id":"uci"},
{"sku":"84029E","title":"RED WOOLLY HOTTIE WHITE HEART.","quantity":6,"unit_price":{"amount":"3.39","currency":"GBP"},"seller_id":"uci"}],
"ship_to":{"country":"GB"},"payment":{"method":"CARD","installments":1},"source":{"system":"uci","ref":"536365"}}`

// FuzzDecodeOrder asserts what every body must keep: a refusal names itself,
// and what is accepted can be stored, published and read back.
func FuzzDecodeOrder(f *testing.F) {
	f.Add([]byte(sample))
	for _, tc := range badInputs(f) {
		if tc.name != "too many lines" {
			f.Add([]byte(tc.body))
		}
	}
	f.Add([]byte(`{"customer_id":"é\"\\\/\u2028","channel":"x","lines":[{"sku":"s","quantity":1,"unit_price":{"amount":"0.001","currency":"BHD"},"seller_id":"s","size_cm":{"length":1,"width":1,"height":1},"weight_g":1}],"ship_to":{"country":"BH"},"payment":{"method":"UNKNOWN"},"placed_at":"2010-12-01T08:26:00.123456789+03:00"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		var o Order
		err := decode(body, &o)
		var p *prepared
		if err == nil {
			p, err = new(scratch).prepare(context.Background(), keyOf{"default", "key"}, &o, now)
		}
		if err != nil {
			var wrong *problem
			if !errors.As(err, &wrong) || wrong.Status < 400 || wrong.Status > 499 {
				t.Fatalf("refused with %v", err)
			}
			if !json.Valid(wrong.marshal()) || bytes.Contains(wrong.marshal(), []byte(codeInternal)) {
				t.Fatalf("the refusal cannot be told: %s", wrong.marshal())
			}
			return
		}
		if !json.Valid(p.doc) || !utf8.Valid(p.doc) || bytes.Contains(p.doc, []byte(`\u0000`)) {
			t.Fatalf("the document cannot be stored: %q", p.doc)
		}
		s, _ := schemas.ByFullName(p.event.EventType)
		e, err := s.DecodeBody(p.event.Payload[schemas.FrameSize:])
		if err != nil {
			t.Fatal(err)
		}
		placed := e.(*schemas.OrderPlaced)
		if len(placed.Lines) != len(o.Lines) || placed.Totals.Grand.Minor != o.totals.grand || o.totals.grand < 0 {
			t.Fatalf("the event tells of another order: %+v", placed)
		}
		again, err := new(scratch).prepare(context.Background(), keyOf{"default", "key"}, &o, now)
		if err != nil || again.fingerprint != p.fingerprint {
			t.Fatalf("the same order has another fingerprint: %v", err)
		}
	})
}

// FuzzLines asserts that lines do not depend on how a stream is cut into reads.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nbb\n\nccc"), 1)
	f.Add([]byte("\n\n"), 2)
	f.Add(bytes.Repeat([]byte("x"), maxLine+2), 1000)
	f.Fuzz(func(t *testing.T, stream []byte, step int) {
		if step < 1 || len(stream)/step > 10_000 {
			return
		}
		var want [][]byte
		for _, l := range bytes.SplitAfter(stream, []byte("\n")) {
			if len(l) > 0 {
				want = append(want, bytes.TrimSuffix(l, []byte("\n")))
			}
		}
		r := lineReader{src: &steps{stream, step}}
		b := newBlock()
		n := 0
		for err := error(nil); err == nil; {
			err = r.fill(b)
			for _, l := range b.lines {
				if n == len(want) || l.no != n+1 {
					t.Fatalf("line %d of %d is called %d", n+1, len(want), l.no)
				}
				if tooLong := len(want[n]) > maxLine; l.tooLong != tooLong || !tooLong && !bytes.Equal(l.text, want[n]) {
					t.Fatalf("line %d: got %d bytes, %v; want %d", n+1, len(l.text), l.tooLong, len(want[n]))
				}
				n++
			}
		}
		if n != len(want) {
			t.Fatalf("got %d lines, want %d", n, len(want))
		}
	})
}

// FuzzKey asserts that no header value is taken for a key that the database
// could refuse.
func FuzzKey(f *testing.F) {
	for _, s := range []string{`"a\"b"`, `abc`, `"`, `"\`, "\"\x00\"", `"é"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		k, ok := unquote(value)
		if !ok {
			return
		}
		for i := range len(k) {
			if k[i] < 0x20 || k[i] > 0x7e {
				t.Fatalf("%q became %q", value, k)
			}
		}
	})
}

func BenchmarkDecodeValidatePrepare(b *testing.B) {
	ctx := context.Background()
	now := time.Now()
	body := []byte(sample)
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	var tmp scratch
	for b.Loop() {
		o := Order{Lines: room(body)}
		if err := decode(body, &o); err != nil {
			b.Fatal(err)
		}
		if _, err := tmp.prepare(ctx, keyOf{"default", "k"}, &o, now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRows(b *testing.B) {
	var o Order
	if err := decode([]byte(sample), &o); err != nil {
		b.Fatal(err)
	}
	p, err := new(scratch).prepare(context.Background(), keyOf{"default", "k"}, &o, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	rows := copyRows(placedTables[1].columns)
	b.ReportAllocs()
	for b.Loop() {
		rows.reset()
		for range 100 {
			addLines(rows, p)
		}
	}
}

// steps is a stream that gives at most step bytes a read.
type steps struct {
	left []byte
	step int
}

func (s *steps) Read(p []byte) (int, error) {
	if len(s.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.left[:min(s.step, len(s.left))])
	s.left = s.left[n:]
	return n, nil
}
