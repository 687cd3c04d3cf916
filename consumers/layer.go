package consumers

import "slices"

// call is one call of a handler: events of one type, in their order.
type call struct {
	handler *Handler
	batch   []*item
}

// layers orders the calls of a batch. Handlers take many events of one type
// at once, yet a key's events must be applied in their order across types. So
// each event gets a layer, how often its key changed its type so far, and the
// calls go layer by layer: within a layer a key has one type only.
func layers(items []*item) []call {
	if len(items) == 0 {
		return nil
	}
	if oneType(items) {
		return []call{{items[0].handler, items}}
	}
	type last struct {
		eventType string
		layer     int
	}
	type slot struct {
		layer     int
		eventType string
	}
	keys := make(map[string]last, len(items))
	var order []slot // by first appearance
	slots := map[slot][]*item{}
	for _, i := range items {
		l, seen := keys[string(i.record.Key)]
		if seen && l.eventType != i.eventType {
			l.layer++
		}
		if !seen || l.eventType != i.eventType {
			l.eventType = i.eventType
			keys[string(i.record.Key)] = l
		}
		s := slot{l.layer, i.eventType}
		if _, ok := slots[s]; !ok {
			order = append(order, s)
		}
		slots[s] = append(slots[s], i)
	}
	slices.SortStableFunc(order, func(a, b slot) int { return a.layer - b.layer })
	calls := make([]call, len(order))
	for n, s := range order {
		calls[n] = call{slots[s][0].handler, slots[s]}
	}
	return calls
}

func oneType(items []*item) bool {
	for _, i := range items[1:] {
		if i.handler != items[0].handler {
			return false
		}
	}
	return true
}
