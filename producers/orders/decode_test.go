package orders

import (
	"context"
	"testing"
	"time"
)

const sample = `{"customer_id":"17850","channel":"uci","lines":[
{"sku":"85123A","title":"WHITE HANGING HEART T-LIGHT HOLDER","quantity":6,"unit_price":{"amount":"2.55","currency":"GBP"},"seller_id":"uci"},
{"sku":"71053","title":"WHITE METAL LANTERN","quantity":6,"unit_price":{"amount":"3.39","currency":"GBP"},"seller_id":"uci"},
{"sku":"84406B","title":"CREAM CUPID HEARTS COAT HANGER","quantity":8,"unit_price":{"amount":"2.75","currency":"GBP"},"seller_id":"uci"},
{"sku":"84029G","title":"KNITTED UNION FLAG HOT WATER BOTTLE","quantity":6,"unit_price":{"amount":"3.39","currency":"GBP"},"seller_id":"uci"},
{"sku":"84029E","title":"RED WOOLLY HOTTIE WHITE HEART.","quantity":6,"unit_price":{"amount":"3.39","currency":"GBP"},"seller_id":"uci"}],
"ship_to":{"country":"GB"},"payment":{"method":"CARD","installments":1},"source":{"system":"uci","ref":"536365"}}`

func BenchmarkDecodeValidatePrepare(b *testing.B) {
	ctx := context.Background()
	now := time.Now()
	body := []byte(sample)
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		var o Order
		if err := decode(body, &o); err != nil {
			b.Fatal(err)
		}
		if _, err := prepare(ctx, keyOf{"default", "k"}, &o, now); err != nil {
			b.Fatal(err)
		}
	}
}
