// Package schemas is the contract between the services: the Avro schemas of
// every event, their Go types, the encoding they travel in, the topics they
// travel through, and the registry that keeps the schemas for everybody else.
//
// The files in avro/ are the contract; events.gen.go follows from them.
package schemas

//go:generate go run ./gen -dir avro -out events.gen.go

import "slices"

// Event is a fact one service tells the others. Pointers to the generated
// structs implement it.
type Event interface {
	// Envelope returns the event's own envelope, to read or to fill.
	Envelope() *EventMeta
	// EventSchema returns the schema of the event's type; it works on nil.
	EventSchema() *Schema
}

// Key returns what e is keyed by in its topic: its order, unless the type
// names another field.
func Key(e Event) string {
	if k, ok := e.(interface{ EventKey() string }); ok {
		return k.EventKey()
	}
	return e.Envelope().OrderID
}

// All returns the schema of every event type, in the order of the full names.
func All() []*Schema { return slices.Clone(catalogue[:]) }

// ByFullName returns the schema of the event type with that Avro full name,
// the value of the ce_type header.
func ByFullName(name string) (*Schema, bool) {
	i, ok := slices.BinarySearchFunc(catalogue[:], name, compareFullName)
	if !ok {
		return nil, false
	}
	return catalogue[i], true
}
