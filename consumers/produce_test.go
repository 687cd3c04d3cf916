package consumers

import (
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/internal/kafka"
	"orderflow/schemas"
)

// placed, cancelled and confirmed make events of an order. The ledger has no
// handler for the last.
func placed(order string) schemas.Event {
	return &schemas.OrderPlaced{
		Meta: schemas.EventMeta{OrderID: order}, CustomerID: "c", Channel: "test",
		Lines: []schemas.OrderLine{{
			LineNo: 1, SKU: "A", Quantity: 1, UnitPrice: gbp(100), Freight: gbp(0), SellerID: "s",
		}},
		Totals:  schemas.Totals{Items: gbp(100), Freight: gbp(0), Discount: gbp(0), Tax: gbp(0), Grand: gbp(100)},
		ShipTo:  schemas.Address{Country: "GB"},
		Payment: schemas.Payment{Method: schemas.PaymentMethodCard, Installments: 1},
	}
}

func gbp(minor int64) schemas.Money { return schemas.Money{Minor: minor, Currency: "GBP", Scale: 2} }

func cancelled(order string) schemas.Event {
	return &schemas.OrderCancelled{Meta: schemas.EventMeta{OrderID: order}, By: schemas.CancelledByCustomer, Reason: "changed my mind"}
}

func confirmed(order string) schemas.Event {
	return &schemas.OrderConfirmed{Meta: schemas.EventMeta{OrderID: order}}
}

// order names the i-th order.
func order(i int) string { return fmt.Sprintf("order-%04d", i) }

// placedOrders are n events of n orders.
func placedOrders(from, n int) []schemas.Event {
	events := make([]schemas.Event, n)
	for i := range events {
		events[i] = placed(order(from + i))
	}
	return events
}

// forge is a change to a record before it is written.
type forge func(*kgo.Record)

// encode makes the record of an event as the relay does.
func (b *bed) encode(e schemas.Event) *kgo.Record {
	b.t.Helper()
	s, m := e.EventSchema(), e.Envelope()
	now := time.Now().UTC().Truncate(time.Microsecond)
	b.version[m.OrderID]++
	*m = schemas.EventMeta{
		EventID: uuid.Must(uuid.NewV7()).String(), EventType: s.FullName, OrderID: m.OrderID, OrderVersion: b.version[m.OrderID],
		OccurredAt: now, RecordedAt: now, CorrelationID: m.OrderID, Producer: "test", Flow: schemas.FlowChoreography,
	}
	value := must(s.AppendFramed(nil, e))(b.t)
	schemas.PutSchemaID(value, must(b.registry.ID(b.ctx, s.Subject, s.Text))(b.t))
	part := kafka.Partition([]byte(m.OrderID), b.parts)
	b.n[part]++
	position := kafka.Position{Incarnation: 1, N: b.n[part], Source: testSource}
	return &kgo.Record{
		Topic: ordersTopic, Partition: part, Key: []byte(m.OrderID), Value: value, Timestamp: now,
		Headers: []kgo.RecordHeader{
			{Key: kafka.HeaderID, Value: []byte(m.EventID)},
			{Key: kafka.HeaderType, Value: []byte(s.FullName)},
			{Key: kafka.HeaderPosition, Value: position.Append(nil)},
		},
	}
}

// write publishes events in one transaction, each changed by forge first.
func (b *bed) write(events []schemas.Event, forges ...forge) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	records := make([]*kgo.Record, len(events))
	for i, e := range events {
		records[i] = b.encode(e)
		for _, f := range forges {
			f(records[i])
		}
	}
	b.publish(records, kgo.TryCommit)
	for i, r := range records {
		m := events[i].Envelope()
		b.written = append(b.written, written{r.Partition, r.Offset, m.OrderID, m.EventType, uuid.MustParse(m.EventID)})
	}
}

func (b *bed) publish(records []*kgo.Record, end kgo.TransactionEndTry) {
	b.t.Helper()
	check(b.t, b.producer.BeginTransaction())
	check(b.t, b.producer.ProduceSync(b.ctx, records...).FirstErr())
	check(b.t, b.producer.EndTransaction(b.ctx, end))
}

// writeAborted leaves records in the log that no reader may see.
func (b *bed) writeAborted(events []schemas.Event) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	records := make([]*kgo.Record, len(events))
	for i, e := range events {
		records[i] = b.encode(e)
		b.n[records[i].Partition]--
		b.version[e.Envelope().OrderID]--
	}
	b.publish(records, kgo.TryAbort)
}

// renumber writes another number into the position header.
func renumber(change func(*kafka.Position)) forge {
	return func(r *kgo.Record) {
		for i, h := range r.Headers {
			if h.Key == kafka.HeaderPosition {
				p, err := kafka.ParsePosition(h.Value)
				if err != nil {
					panic(err)
				}
				change(&p)
				r.Headers[i].Value = p.Append(nil)
			}
		}
	}
}
