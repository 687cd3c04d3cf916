package schemas

// partitions is the number of partitions of every topic that carries events.
// It is equal everywhere, so one order has one partition number in every
// topic, and it never changes: a topic that must grow becomes a new version.
const partitions = 12

// Topic is a Kafka topic as it has to be created.
type Topic struct {
	Name       string
	Partitions int32
	// Config holds the topic's settings by Kafka's names; what is absent is
	// the broker's default.
	Config map[string]string
}

// RelaysTopic holds the relays' checkpoints, one key per source.
const RelaysTopic = "orderflow.relays"

// StockTopic holds the latest stock of every article, keyed by sku.
const StockTopic = "inventory.stock.v1"

// Topics returns every topic of the platform, dead letters aside.
//
// The orders are kept for ever, since a service that joins later replays them
// from here. The other services' facts are kept for 30 days: they follow from
// the orders, and a service that needs older ones reads the archive.
func Topics() []Topic {
	const forever, month = "-1", "2592000000"
	return []Topic{
		events("inventory.events.v1", month),
		compacted(StockTopic, partitions),
		events("logistics.events.v1", month),
		events("notifications.events.v1", month),
		compacted(RelaysTopic, 1),
		events("orders.events.v1", forever),
		events("payments.events.v1", month),
		events("sellers.events.v1", month),
	}
}

func events(name, retentionMs string) Topic {
	return Topic{Name: name, Partitions: partitions, Config: map[string]string{
		"cleanup.policy": "delete",
		"retention.ms":   retentionMs,
		// Kafka also deletes by size unless told otherwise by the broker.
		"retention.bytes": "-1",
	}}
}

func compacted(name string, n int32) Topic {
	return Topic{Name: name, Partitions: n, Config: map[string]string{
		"cleanup.policy": "compact",
		// The segment being written is never compacted, and a reader starts
		// by reading it whole: with Kafka's 1 GiB that takes long.
		"segment.bytes": "16777216",
	}}
}
