package consumers

import (
	"testing"

	"orderflow/internal/testenv"
	"orderflow/schemas"
)

func TestEachEventIsAppliedOnceInTheOrderOfItsKey(t *testing.T) {
	t.Parallel()
	b := newBed(t, 3)
	var events []schemas.Event
	for i := range 500 {
		events = append(events, placed(order(i)))
		if i%2 == 0 {
			events = append(events, cancelled(order(i)))
		}
		if i%6 == 0 { // once more, so that a key changes its type twice
			events = append(events, confirmed(order(i)), placed(order(i)))
		}
	}
	b.write(events)
	b.run()
	b.waitApplied(len(events))
	b.checkOnceInOrder(func(w written) bool { return w.Type != "orderflow.orders.OrderConfirmed" })
	testenv.Wait(t, waitLong, "kafka to show no lag", func() bool { return b.kafkaLag() == 0 })
}
