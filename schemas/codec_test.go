package schemas

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/avro"
	"pgregory.net/rapid"
)

func TestEveryEventSurvivesTheWire(t *testing.T) {
	t.Parallel()
	for _, s := range All() {
		t.Run(s.FullName, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				want := randomEvent(t, s)
				framed, err := s.AppendFramed([]byte("before"), want)
				if err != nil {
					t.Fatal(err)
				}
				body, ok := bytes.CutPrefix(framed, []byte("before\x00\x00\x00\x00\x00"))
				if !ok {
					t.Fatalf("got %q, want the buffer and an open frame in front", framed)
				}
				got, err := s.DecodeBody(body)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
					t.Fatalf("came back different (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestGoTypesMatchTheContractFieldByField(t *testing.T) {
	t.Parallel()
	for _, s := range All() {
		text, err := os.ReadFile("avro/" + s.FullName[strings.LastIndexByte(s.FullName, '.')+1:] + ".avsc")
		if err != nil {
			t.Fatal(err)
		}
		file, err := avro.Parse(string(text))
		if err != nil {
			t.Fatalf("%s: %v", s.FullName, err)
		}
		compareType(t, s.FullName, file.Root().ExpandReferences(), reflect.TypeOf(s.New()).Elem())
	}
}

func compareType(t *testing.T, path string, n *avro.SchemaNode, goType reflect.Type) {
	t.Helper()
	if n.Type == "record" {
		if got, want := goType.NumField(), len(n.Fields); got != want {
			t.Fatalf("%s: %s has %d fields, want %d", path, goType, got, want)
		}
		for i, f := range n.Fields {
			if got := goType.Field(i).Tag.Get("avro"); got != f.Name {
				t.Errorf("%s: field %d is %q, want %q", path, i, got, f.Name)
			}
			compareType(t, path+"."+f.Name, &n.Fields[i].Type, goType.Field(i).Type)
		}
		return
	}
	want := map[string]reflect.Kind{
		"string": reflect.String, "enum": reflect.String, "int": reflect.Int, "long": reflect.Int64,
		"boolean": reflect.Bool, "array": reflect.Slice, "union": reflect.Pointer,
	}[n.Type]
	if n.LogicalType == "timestamp-micros" {
		want = reflect.TypeFor[time.Time]().Kind()
	}
	if goType.Kind() != want {
		t.Errorf("%s: Go has %s for Avro's %s", path, goType, n.Type)
		return
	}
	switch n.Type {
	case "array":
		compareType(t, path+"[]", n.Items, goType.Elem())
	case "union":
		compareType(t, path, &n.Branches[1], goType.Elem())
	case "enum":
		compareSymbols(t, path, n, goType)
	}
}

func compareSymbols(t *testing.T, path string, n *avro.SchemaNode, goType reflect.Type) {
	t.Helper()
	valid := func(symbol string) bool {
		v := reflect.New(goType).Elem()
		v.SetString(symbol)
		return v.Interface().(interface{ Valid() bool }).Valid()
	}
	for _, symbol := range n.Symbols {
		if !valid(symbol) {
			t.Errorf("%s: Go does not know the symbol %s", path, symbol)
		}
	}
	if valid("") || valid("NO_SUCH_SYMBOL") {
		t.Errorf("%s: Go takes what is no symbol", path)
	}
}

func TestTheCatalogueIsWhatItSays(t *testing.T) {
	t.Parallel()
	files, err := os.ReadDir("avro")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(All()), len(files); got != want {
		t.Errorf("%d schemas for %d files", got, want)
	}
	topics := map[string]bool{}
	for _, topic := range Topics() {
		topics[topic.Name] = true
	}
	for _, s := range All() {
		if got, ok := ByFullName(s.FullName); !ok || got != s {
			t.Errorf("%s is not found by its name", s.FullName)
		}
		if !topics[s.Topic] {
			t.Errorf("%s is published to %s, which is no topic", s.FullName, s.Topic)
		}
		if want := s.Topic + "-" + s.FullName; s.Subject != want {
			t.Errorf("subject %s, want %s", s.Subject, want)
		}
		sum := sha256.Sum256([]byte(s.Subject + "\n" + s.Text))
		if want := int64(binary.BigEndian.Uint64(sum[:8])); s.Fingerprint != want {
			t.Errorf("%s has fingerprint %d, want %d", s.FullName, s.Fingerprint, want)
		}
		if got := s.New().EventSchema(); got != s {
			t.Errorf("New of %s makes a %s", s.FullName, got.FullName)
		}
	}
	if _, ok := ByFullName("orderflow.orders.NoSuchEvent"); ok {
		t.Error("found an event that does not exist")
	}
}

func TestKeyIsTheOrderUnlessTheTypeNamesAnother(t *testing.T) {
	t.Parallel()
	meta := EventMeta{OrderID: "order-1"}
	if got := Key(&SellerAccepted{Meta: meta, SellerID: "s"}); got != "order-1" {
		t.Errorf("got key %q, want the order", got)
	}
	if got := Key(&StockLevel{Meta: meta, SKU: "85123A"}); got != "85123A" {
		t.Errorf("got key %q, want the sku", got)
	}
}

func TestWhatCannotBeEncodedNamesTheField(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		breakIt func(*OrderPlaced)
		want    string
	}{
		"empty enum":      {func(e *OrderPlaced) { e.Meta.Flow = "" }, "meta.flow"},
		"unknown symbol":  {func(e *OrderPlaced) { e.Payment.Method = "BARTER" }, "payment.method"},
		"int overflow":    {func(e *OrderPlaced) { e.Lines[1].Quantity = math.MaxInt32 + 1 }, "lines.quantity"},
		"time before all": {func(e *OrderPlaced) { e.Meta.OccurredAt = time.Date(-400000, 1, 1, 0, 0, 0, 0, time.UTC) }, "meta.occurred_at"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := sampleOrder()
			c.breakIt(e)
			got, err := e.EventSchema().AppendFramed([]byte("kept"), e)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one that names %s", err, c.want)
			}
			if string(got) != "kept" {
				t.Errorf("the buffer became %q", got)
			}
		})
	}
}

func TestAnEventIsEncodedByItsOwnSchemaOnly(t *testing.T) {
	t.Parallel()
	meta := EventMeta{Flow: FlowChoreography}
	shipped := (*OrderShipped)(nil).EventSchema()
	if _, err := shipped.AppendFramed(nil, &OrderShipped{Meta: meta}); err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]Event{
		"a type of the same shape": &OrderPartlyShipped{Meta: meta},
		"nil event":                nil,
		"nil pointer":              (*OrderShipped)(nil),
	} {
		if got, err := shipped.AppendFramed([]byte("kept"), e); err == nil || string(got) != "kept" {
			t.Errorf("%s: got %q, %v, want an error and the buffer as it was", name, got, err)
		}
	}
}

func TestFrameHoldsTheSchemaID(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := int(rapid.Int32Range(1, math.MaxInt32).Draw(t, "id"))
		body := rapid.SliceOf(rapid.Byte()).Draw(t, "body")
		framed := append(make([]byte, FrameSize), body...)
		PutSchemaID(framed, want)
		got, rest, err := SchemaID(framed)
		if err != nil || got != want || !bytes.Equal(rest, body) {
			t.Fatalf("got id %d, body %x, %v; want %d, %x", got, rest, err, want, body)
		}
	})
	// The layout is the registry's, not ours to change.
	framed := make([]byte, FrameSize)
	PutSchemaID(framed, 0x01020304)
	if want := []byte{0, 1, 2, 3, 4}; !bytes.Equal(framed, want) {
		t.Errorf("got frame %x, want %x", framed, want)
	}
}

func TestWhatIsNoFrameIsMalformed(t *testing.T) {
	t.Parallel()
	for name, value := range map[string][]byte{
		"nothing":       nil,
		"too short":     {0, 0, 0, 1},
		"another magic": {1, 0, 0, 0, 1, 2},
		"still open":    {0, 0, 0, 0, 0, 2},
		"negative id":   {0, 0xff, 0xff, 0xff, 0xff, 2},
	} {
		if _, _, err := SchemaID(value); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got error %v, want ErrMalformed", name, err)
		}
	}
	PutSchemaID([]byte{1, 2}, 7) // too short to hold a frame: nothing happens
}

func TestTruncatedAndOverlongBodiesAreMalformed(t *testing.T) {
	t.Parallel()
	e := sampleOrder()
	s := e.EventSchema()
	framed, err := s.AppendFramed(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	body := framed[FrameSize:]
	for n := range len(body) {
		if _, err := s.DecodeBody(body[:n]); !errors.Is(err, ErrMalformed) {
			t.Fatalf("first %d of %d bytes: got error %v, want ErrMalformed", n, len(body), err)
		}
	}
	if _, err := s.DecodeBody(append(slices.Clone(body), 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("a byte too many: got error %v, want ErrMalformed", err)
	}
}

func TestNumbersKeepTheirEnds(t *testing.T) {
	t.Parallel()
	for _, want := range extremes {
		e := &PaymentCaptured{Meta: EventMeta{Flow: FlowUnknown}, Amount: Money{Minor: want}}
		framed, err := e.EventSchema().AppendFramed(nil, e)
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.EventSchema().DecodeBody(framed[FrameSize:])
		if err != nil {
			t.Fatal(err)
		}
		if got := got.(*PaymentCaptured).Amount.Minor; got != want {
			t.Errorf("got %d, want %d", got, want)
		}
	}
}

func TestEncodingAllocatesNothingBeyondTheBuffer(t *testing.T) {
	e := sampleOrder()
	s := e.EventSchema()
	buf := make([]byte, 0, 4096)
	if got := testing.AllocsPerRun(100, func() { buf, _ = s.AppendFramed(buf[:0], e) }); got > 0 {
		t.Errorf("got %v allocations an event, want none", got)
	}
}

func FuzzSchemaID(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 2})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, value []byte) {
		id, body, err := SchemaID(value)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("got error %v, want ErrMalformed", err)
			}
			return
		}
		again := append(make([]byte, FrameSize), body...)
		PutSchemaID(again, id)
		if !bytes.Equal(again, value) {
			t.Errorf("got %x, want %x", again, value)
		}
	})
}

func FuzzDecodeBody(f *testing.F) {
	for i, s := range All() {
		e := rapid.Custom(func(t *rapid.T) Event { return randomEvent(t, s) }).Example(i)
		framed, err := s.AppendFramed(nil, e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), framed[FrameSize:])
	}
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		s := All()[int(which)%len(All())]
		want, err := s.DecodeBody(body)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("got error %v, want ErrMalformed", err)
			}
			return
		}
		framed, err := s.AppendFramed(nil, want)
		if err != nil {
			t.Fatalf("decoded, yet not encoded: %v", err)
		}
		got, err := s.DecodeBody(framed[FrameSize:])
		if err != nil || !cmp.Equal(want, got, cmpopts.EquateEmpty()) {
			t.Errorf("came back as %v, %v; want %v", got, err, want)
		}
	})
}

func BenchmarkAppendFramed(b *testing.B) {
	for _, lines := range []int{1, 3, 20} {
		b.Run(fmt.Sprintf("OrderPlaced/lines=%d", lines), func(b *testing.B) {
			e := sampleOrder()
			for len(e.Lines) < lines {
				e.Lines = append(e.Lines, e.Lines[1])
			}
			e.Lines = e.Lines[:lines]
			s := e.EventSchema()
			buf := make([]byte, 0, 16384)
			b.ReportAllocs()
			for b.Loop() {
				buf, _ = s.AppendFramed(buf[:0], e)
			}
			b.ReportMetric(float64(len(buf)), "bytes/event")
		})
	}
}
