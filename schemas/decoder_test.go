package schemas_test

import (
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/avro"

	"orderflow/internal/testenv"
	"orderflow/schemas"
)

func placedOrder() *schemas.OrderPlaced {
	gbp := func(minor int64) schemas.Money { return schemas.Money{Minor: minor, Currency: "GBP", Scale: 2} }
	at := time.Date(2010, 12, 1, 8, 26, 0, 0, time.UTC)
	return &schemas.OrderPlaced{
		Meta: schemas.EventMeta{
			EventID: "e-1", EventType: "orderflow.orders.OrderPlaced", OrderID: "o-1", OrderVersion: 1,
			OccurredAt: at, RecordedAt: at, CorrelationID: "o-1", Producer: "orders", Flow: schemas.FlowChoreography,
		},
		CustomerID: "17850", Channel: "uci",
		Lines: []schemas.OrderLine{{
			LineNo: 1, SKU: "85123A", Quantity: 6, UnitPrice: gbp(255), Freight: gbp(0), SellerID: "uci",
		}},
		Totals:  schemas.Totals{Items: gbp(1530), Freight: gbp(0), Discount: gbp(0), Tax: gbp(0), Grand: gbp(1530)},
		ShipTo:  schemas.Address{Country: "GB"},
		Payment: schemas.Payment{Method: schemas.PaymentMethodCard, Installments: 1},
		Source:  &schemas.OrderSource{System: "uci", Ref: "536365"},
	}
}

// writtenWith encodes e as a program would that was built with the schema text:
// the fields both know as they are, the others from extra.
func writtenWith(t *testing.T, r *schemas.Registry, e schemas.Event, text string, extra map[string]any) []byte {
	t.Helper()
	s := e.EventSchema()
	framed, err := s.AppendFramed(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	var generic map[string]any
	if _, err := avro.MustParse(s.Text).Decode(framed[schemas.FrameSize:], &generic); err != nil {
		t.Fatal(err)
	}
	for k, v := range extra {
		generic[k] = v
	}
	value, err := avro.MustParse(text).AppendEncode(make([]byte, schemas.FrameSize), generic)
	if err != nil {
		t.Fatal(err)
	}
	schemas.PutSchemaID(value, mustID(t, r, s.Subject, text))
	return value
}

// otherVersion returns the schema of e as edit makes it.
func otherVersion(t *testing.T, e schemas.Event, edit func(fields []any) []any) string {
	t.Helper()
	var schema map[string]any
	if err := json.Unmarshal([]byte(e.EventSchema().Text), &schema); err != nil {
		t.Fatal(err)
	}
	schema["fields"] = edit(schema["fields"].([]any))
	text, err := json.Marshal(schema)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func named(fields []any, name string) map[string]any {
	for _, f := range fields {
		if field := f.(map[string]any); field["name"] == name {
			return field
		}
	}
	return nil
}

func TestEventsOfEveryVersionAreReadAsTodays(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit  func(fields []any) []any
		extra map[string]any
		want  func(*schemas.OrderPlaced)
	}{
		"today's": {edit: func(fields []any) []any { return fields }},
		"an older one without the last field": {
			edit: func(fields []any) []any { return fields[:len(fields)-1] },
			want: func(e *schemas.OrderPlaced) { e.Source = nil },
		},
		"a newer one with another field": {
			edit: func(fields []any) []any {
				return append(fields, map[string]any{"name": "gift", "type": "string", "default": ""})
			},
			extra: map[string]any{"gift": "yes"},
		},
		"a newer one with another symbol": {
			edit: func(fields []any) []any {
				payment := named(fields, "payment")["type"].(map[string]any)
				method := named(payment["fields"].([]any), "method")["type"].(map[string]any)
				method["symbols"] = append(method["symbols"].([]any), "WALLET")
				return fields
			},
			extra: map[string]any{"payment": map[string]any{"method": "WALLET", "installments": 1, "token": nil}},
			want:  func(e *schemas.OrderPlaced) { e.Payment.Method = schemas.PaymentMethodUnknown },
		},
		"one with its fields in another order": {
			edit: func(fields []any) []any {
				fields[1], fields[2] = fields[2], fields[1]
				return fields
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry(t, testenv.Registry(t))
			e := placedOrder()
			value := writtenWith(t, r, e, otherVersion(t, e, c.edit), c.extra)
			got, err := schemas.NewDecoder(r).Decode(t.Context(), value, e.EventSchema())
			if err != nil {
				t.Fatal(err)
			}
			want := placedOrder()
			if c.want != nil {
				c.want(want)
			}
			if diff := cmp.Diff(schemas.Event(want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnEventOfAnotherTypeIsIncompatible(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, testenv.Registry(t))
	e := placedOrder()
	value := writtenWith(t, r, e, e.EventSchema().Text, nil)
	_, err := schemas.NewDecoder(r).Decode(t.Context(), value, (*schemas.OrderShipped)(nil).EventSchema())
	if !errors.Is(err, schemas.ErrIncompatible) || schemas.Unavailable(err) {
		t.Errorf("got error %v, want ErrIncompatible", err)
	}
}

func TestAnUnknownIDIsNoReasonToWait(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, testenv.Registry(t))
	s := (*schemas.OrderPlaced)(nil).EventSchema()
	_, err := schemas.NewDecoder(r).Decode(t.Context(), []byte{0, 0, 0, 0, 77, 1}, s)
	if !errors.Is(err, schemas.ErrUnknownSchemaID) || schemas.Unavailable(err) {
		t.Errorf("got error %v, want ErrUnknownSchemaID", err)
	}
	if _, err = schemas.NewDecoder(r).Decode(t.Context(), []byte("{}"), s); !errors.Is(err, schemas.ErrMalformed) {
		t.Errorf("got error %v, want ErrMalformed", err)
	}
}

func TestARegistryThatComesBackIsAskedAgainAndThenNoMore(t *testing.T) {
	t.Parallel()
	url := testenv.Registry(t)
	e := placedOrder()
	s := e.EventSchema()
	value := writtenWith(t, newRegistry(t, url), e, s.Text, nil)

	l := &line{}
	d := schemas.NewDecoder(newRegistry(t, url, schemas.WithTransport(l)))
	l.cut.Store(true)
	if _, err := d.Decode(t.Context(), value, s); !schemas.Unavailable(err) || errors.Is(err, schemas.ErrUnknownSchemaID) {
		t.Fatalf("got error %v, want Unavailable alone", err)
	}
	l.cut.Store(false)
	if _, err := d.Decode(t.Context(), value, s); err != nil {
		t.Fatal(err)
	}
	before := l.calls.Load()
	l.cut.Store(true)
	if _, err := d.Decode(t.Context(), value, s); err != nil || l.calls.Load() != before {
		t.Errorf("got %v after %d more calls, want an event without asking", err, l.calls.Load()-before)
	}
}

func TestAKnownIDIsNotResolvedAgain(t *testing.T) {
	r := newRegistry(t, testenv.Registry(t))
	e := placedOrder()
	value := writtenWith(t, r, e, e.EventSchema().Text, nil)
	d := schemas.NewDecoder(r)
	got := testing.AllocsPerRun(100, func() {
		if _, err := d.Decode(t.Context(), value, e.EventSchema()); err != nil {
			t.Error(err)
		}
	})
	// The event, its lines, its source, and its strings; resolving takes thousands.
	if got > 40 {
		t.Errorf("got %v allocations an event", got)
	}
}

func TestOneDecoderServesManyGoroutines(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, testenv.Registry(t))
	e := placedOrder()
	older := otherVersion(t, e, func(fields []any) []any { return fields[:len(fields)-1] })
	values := [][]byte{
		writtenWith(t, r, e, e.EventSchema().Text, nil),
		writtenWith(t, r, e, older, nil),
	}
	d := schemas.NewDecoder(r)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 200 {
				got, err := d.Decode(t.Context(), values[(worker+i)%2], e.EventSchema())
				if err != nil || got.(*schemas.OrderPlaced).CustomerID != e.CustomerID {
					t.Errorf("got %v, %v", got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func FuzzDecodeOlderVersion(f *testing.F) {
	e := placedOrder()
	s := e.EventSchema()
	framed, err := s.AppendFramed(nil, e)
	if err != nil {
		f.Fatal(err)
	}
	framed = framed[:len(framed)-len("\x02\x06uci\x0c536365")] // without its last field
	var schema map[string]any
	if err := json.Unmarshal([]byte(s.Text), &schema); err != nil {
		f.Fatal(err)
	}
	fields := schema["fields"].([]any)
	schema["fields"] = fields[:len(fields)-1]
	older, err := json.Marshal(schema)
	if err != nil {
		f.Fatal(err)
	}
	r, err := schemas.NewRegistry(testenv.Registry(f))
	if err != nil {
		f.Fatal(err)
	}
	id, err := r.ID(f.Context(), s.Subject, string(older))
	if err != nil {
		f.Fatal(err)
	}
	d := schemas.NewDecoder(r)
	f.Add(framed[schemas.FrameSize:])
	f.Fuzz(func(t *testing.T, body []byte) {
		value := append(make([]byte, schemas.FrameSize), body...)
		schemas.PutSchemaID(value, id)
		got, err := d.Decode(t.Context(), value, s)
		if err != nil && !errors.Is(err, schemas.ErrMalformed) {
			t.Errorf("got error %v, want ErrMalformed", err)
		}
		if err == nil && got.(*schemas.OrderPlaced).Source != nil {
			t.Errorf("got %v, want no source", got)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	url := testenv.Registry(b)
	r, err := schemas.NewRegistry(url)
	if err != nil {
		b.Fatal(err)
	}
	e := placedOrder()
	e.Lines = append(e.Lines, e.Lines[0], e.Lines[0])
	s := e.EventSchema()
	value, err := s.AppendFramed(nil, e)
	if err != nil {
		b.Fatal(err)
	}
	id, err := r.ID(b.Context(), s.Subject, s.Text)
	if err != nil {
		b.Fatal(err)
	}
	schemas.PutSchemaID(value, id)
	d := schemas.NewDecoder(r)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Decode(b.Context(), value, s); err != nil {
			b.Fatal(err)
		}
	}
}
