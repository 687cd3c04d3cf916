// Package servicetest is what the tests of the services share: orders to place
// and cancel, a database as a service finds it, a look into the outbox, and a
// group that really runs, between a broker, a registry and Postgres.
package servicetest
