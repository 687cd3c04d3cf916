package schemas

import (
	"math"
	"reflect"
	"time"

	"github.com/twmb/avro"
	"pgregory.net/rapid"
)

// randomEvent draws an event of type s, following the schema rather than the
// Go type: a field that one has and the other lacks panics here.
func randomEvent(t *rapid.T, s *Schema) Event {
	codec, err := s.avro()
	if err != nil {
		t.Fatal(err)
	}
	e := s.New()
	fillRandom(t, codec.Root().ExpandReferences(), reflect.ValueOf(e).Elem())
	return e
}

func fillRandom(t *rapid.T, n *avro.SchemaNode, v reflect.Value) {
	switch n.Type {
	case "record":
		for i := range n.Fields {
			fillRandom(t, &n.Fields[i].Type, v.Field(i))
		}
	case "array":
		v.Set(reflect.MakeSlice(v.Type(), rapid.IntRange(0, 4).Draw(t, "items"), 4))
		for i := range v.Len() {
			fillRandom(t, n.Items, v.Index(i))
		}
	case "union":
		if rapid.Bool().Draw(t, "set") {
			v.Set(reflect.New(v.Type().Elem()))
			fillRandom(t, &n.Branches[1], v.Elem())
		}
	case "enum":
		v.SetString(rapid.SampledFrom(n.Symbols).Draw(t, "symbol"))
	case "string":
		v.SetString(rapid.String().Draw(t, "string"))
	case "boolean":
		v.SetBool(rapid.Bool().Draw(t, "boolean"))
	case "int":
		v.SetInt(int64(rapid.Int32().Draw(t, "int")))
	case "long":
		if n.LogicalType == "" {
			v.SetInt(rapid.Int64().Draw(t, "long"))
			return
		}
		// The years 0 to 9999, in the unit that the wire keeps.
		micros := rapid.Int64Range(-62167219200e6, 253402300800e6-1).Draw(t, "micros")
		v.Set(reflect.ValueOf(time.UnixMicro(micros).UTC()))
	default:
		t.Fatalf("the contract has no %s", n.Type)
	}
}

// sampleOrder is an order as they come: three lines, one of them measured.
func sampleOrder() *OrderPlaced {
	pence := func(minor int64) Money { return Money{Minor: minor, Currency: "GBP", Scale: 2} }
	line := func(no int, sku string, quantity int, price int64) OrderLine {
		title := "WHITE HANGING HEART T-LIGHT HOLDER"
		return OrderLine{
			LineNo: no, SKU: sku, Title: &title, Quantity: quantity,
			UnitPrice: pence(price), Freight: pence(0), SellerID: "uci",
		}
	}
	at := time.Date(2010, 12, 1, 8, 26, 0, 0, time.UTC)
	weight := 300
	e := &OrderPlaced{
		Meta: EventMeta{
			EventID: "01938f2b-6f1e-7c3a-9d52-0a1b2c3d4e5f", EventType: "orderflow.orders.OrderPlaced",
			OrderID: "01938f2b-6f1e-7b11-8a52-5f4e3d2c1b0a", OrderVersion: 1,
			OccurredAt: at, RecordedAt: at.Add(137 * time.Millisecond),
			CorrelationID: "01938f2b-6f1e-7b11-8a52-5f4e3d2c1b0a",
			Producer:      "orders", Flow: FlowChoreography,
		},
		CustomerID: "17850", Channel: "uci",
		Lines:   []OrderLine{line(1, "85123A", 6, 255), line(2, "71053", 6, 339), line(3, "84406B", 8, 275)},
		Totals:  Totals{Items: pence(5764), Freight: pence(0), Discount: pence(0), Tax: pence(0), Grand: pence(5764)},
		ShipTo:  Address{Country: "GB"},
		Payment: Payment{Method: PaymentMethodCard, Installments: 1},
		Source:  &OrderSource{System: "uci", Ref: "536365"},
	}
	e.Lines[0].WeightG, e.Lines[0].Size = &weight, &Size{LengthCM: 20, WidthCM: 15, HeightCM: 10}
	return e
}

// extremes are the numbers at the ends of the wire's types.
var extremes = []int64{math.MinInt64, math.MinInt32, -1, 0, 1, math.MaxInt32, math.MaxInt64}
