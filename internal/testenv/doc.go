// Package testenv gives tests the real thing to run against: a Postgres database of their own, a Kafka broker, a
// schema registry, and the program itself as a process that can be killed.
//
// By default everything is embedded and starts by itself. The environment points the same tests at other parts:
//
//	TEST_DATABASE_URL        a Postgres server, by a URL whose user may create databases
//	ORDERFLOW_TEST_KAFKA     "apache" starts one real Apache Kafka per test process; a list of brokers uses those
//	ORDERFLOW_TEST_REGISTRY  "apicurio" starts one real Apicurio per test process; a URL uses that registry
//
// Embedded brokers and registries are a test's own, so tests run in parallel. A real broker is shared, while tests
// use the product's topic names: a test that asks for it waits until no other test of its process holds it, and finds
// it without topics and groups. Across packages that takes `go test -p 1`, and nobody else may use the broker.
package testenv
