// Package lag tells how far every consumer group is behind, in records and in
// seconds. A background cycle reads the groups' commits, then the bounds of
// the logs, then the timestamp of the record each lagging group reads next;
// metrics and pages show the latest result and never wait for Kafka.
//
// What could not be read is unknown and shown as such, never as 0.
package lag
