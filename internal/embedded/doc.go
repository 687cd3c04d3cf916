// Package embedded runs the parts that the pipeline leans on when nobody gave it real ones: a Postgres cluster from
// binaries found on this machine (or fetched by its package managers), a development Kafka broker and a strict,
// persistent schema registry in this process. It also starts a real Apache Kafka and a real Apicurio registry for the
// test suites and the benchmarks.
//
// Everything it starts listens on 127.0.0.1 only, keeps its port across restarts in its own data directory, survives
// kill -9 of this process with its data, and refuses a second user of the same directory with [ErrInUse].
package embedded
