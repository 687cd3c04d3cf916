package consumers

import (
	"errors"
	"fmt"
)

// Reasons for which a partition stops until a person has looked. They are
// label values.
const (
	stopTopicRecreated = "topic_recreated"
	stopBelowLogStart  = "below_log_start"
	stopAboveLogEnd    = "above_log_end"
	stopTruncated      = "truncated"
	stopSequenceGap    = "sequence_gap"
	stopSequenceRepeat = "sequence_repeat"
	stopIncarnation    = "older_incarnation"
	stopForeign        = "foreign_record"
	stopAtLeastOnce    = "at_least_once"
	stopFetch          = "fetch_error"
)

var stopReasons = []string{
	stopTopicRecreated, stopBelowLogStart, stopAboveLogEnd, stopTruncated, stopSequenceGap,
	stopSequenceRepeat, stopIncarnation, stopForeign, stopAtLeastOnce, stopFetch,
}

// stopError says why one partition must not go on. Going on would lose events,
// repeat effects or mix two logs, so the partition waits for a person, and
// only it.
type stopError struct {
	reason string
	source string // of the self-check, where it found the reason
	err    error
}

func (e *stopError) Error() string { return e.err.Error() }
func (e *stopError) Unwrap() error { return e.err }

func stopf(reason, format string, args ...any) *stopError {
	return &stopError{reason: reason, err: fmt.Errorf(format, args...)}
}

// errStopping ends a partition's worker: the partition went to another member,
// or the process ends.
var errStopping = errors.New("partition given up")

// fencedError says that a newer owner holds the partition, or that somebody
// moved its position.
type fencedError struct{ err error }

func (e *fencedError) Error() string { return e.err.Error() }
func (e *fencedError) Unwrap() error { return e.err }
