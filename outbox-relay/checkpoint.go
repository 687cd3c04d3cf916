package relay

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"orderflow/outbox-relay/source"
)

// Checkpoint is where a source stands in Kafka. It is a record of the same
// Kafka transaction as the events before it, so it is never ahead of them or
// behind.
type Checkpoint struct {
	// Version is the version of this form, 1.
	Version int `json:"version"`
	// Source is the outbox's name.
	Source string `json:"source"`
	// Number counts the source's transactions from 1.
	Number int64 `json:"number"`
	// Term is the lease under which it was written.
	Term int64 `json:"term"`
	// System identifies the database: system identifier / database oid.
	System string `json:"system"`
	// Incarnation counts the database's lives.
	Incarnation uint32 `json:"incarnation"`
	// Kind is the kind of source that wrote Point.
	Kind string `json:"kind"`
	// Point is where reading goes on.
	Point source.Point `json:"point"`
	// Horizon is a transaction id of the database, at or beyond every one that
	// Point speaks of: a database that has not reached it is not the one that
	// Point comes from.
	Horizon uint64 `json:"horizon"`
	// Published holds n of the last event, by topic and partition.
	Published map[string][]uint64 `json:"published"`
}

const checkpointVersion = 1

// KindPoll is the Kind of the poll source.
const KindPoll = "poll"

func (c *Checkpoint) encode() ([]byte, error) { return json.Marshal(c) }

func decodeCheckpoint(b []byte) (*Checkpoint, error) {
	var c Checkpoint
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("decode checkpoint: %w", err)
	}
	if c.Version != checkpointVersion {
		return nil, fmt.Errorf("decode checkpoint: version %d, this relay reads %d: use the newer relay", c.Version, checkpointVersion)
	}
	return &c, nil
}

// database is what the relay knows of the database it leads for.
type database struct {
	system      string
	incarnation uint32
	nextXID     uint64 // the xmax of a current snapshot
	term        int64
	ours        bool        // whether we hold the lease
	copy        *Checkpoint // the copy in the lease's row, nil before the first
}

// Question says that going on would be a guess: the log and the database do
// not belong together, or not any more. A person has to decide.
type Question struct {
	Source string
	Found  string
	Ways   []string
}

func (q *Question) Error() string {
	return fmt.Sprintf("source %s: %s; to go on: %s", q.Source, q.Found, strings.Join(q.Ways, "; or "))
}

// IsQuestion reports whether err asks a person to decide.
func IsQuestion(err error) bool {
	var q *Question
	return errors.As(err, &q)
}

// check compares the log's checkpoint (nil if it has none) with the database
// and answers with the checkpoint to go on from, or with a Question.
func check(sourceName, kind string, log *Checkpoint, db database) (*Checkpoint, error) {
	ask := func(found string, ways ...string) (*Checkpoint, error) {
		return nil, &Question{Source: sourceName, Found: found, Ways: ways}
	}
	const (
		otherBroker = "point the relay at the Kafka cluster that holds this database's events"
		otherName   = "give this outbox a source name of its own (--source-name)"
		restart     = "to give up this database's history, begin anew with `orderflow reset --database`"
	)
	switch {
	case log == nil && db.copy != nil:
		return ask(fmt.Sprintf("this database has published %d transactions, but Kafka has no checkpoint of it: "+
			"Kafka was replaced, or lost its data", db.copy.Number), otherBroker, restart)
	case log == nil:
		return &Checkpoint{
			Version: checkpointVersion, Source: sourceName, System: db.system, Incarnation: db.incarnation,
			Kind: kind, Published: map[string][]uint64{},
		}, nil
	case log.System != db.system:
		return ask(fmt.Sprintf("Kafka's checkpoint was written for database %s, this is %s: "+
			"another outbox has this name, or this database was cloned or restored elsewhere", log.System, db.system), otherName, otherBroker, restart)
	case log.Incarnation != db.incarnation:
		return ask(fmt.Sprintf("Kafka's checkpoint is of incarnation %d, this database is in incarnation %d", log.Incarnation, db.incarnation), otherBroker, restart)
	case log.Horizon > db.nextXID || log.Term > db.term:
		return ask("Kafka's checkpoint is ahead of this database: it was restored to an earlier state", restart)
	case db.copy != nil && db.copy.Number > log.Number:
		return ask(fmt.Sprintf("Kafka's checkpoint is number %d, this database has seen number %d committed: Kafka lost data",
			log.Number, db.copy.Number), otherBroker, restart)
	case log.Kind != kind:
		return ask(fmt.Sprintf("the checkpoint was written by the %s source, this relay is set to %s", log.Kind, kind),
			"keep the source that this outbox was started with")
	}
	return log, nil
}
