package consumers

import "time"

// Limits bound what a group takes at once and how long it waits. The zero
// value of every field means its default.
type Limits struct {
	// MinBatch and MaxBatch bound the events of one transaction. Between them
	// the size follows the time a batch takes. Defaults 50 and 1000.
	MinBatch, MaxBatch int
	// BatchTarget is the time a batch should take: faster ones grow, and those
	// that take four times as long shrink. Default 50 ms.
	BatchTarget time.Duration
	// BatchTimeout ends a transaction that takes too long, handlers included.
	// Default 30 s.
	BatchTimeout time.Duration
	// IdleInTransaction is how long a transaction may sit without a statement
	// before the server ends it, so that a frozen process cannot hold a
	// partition. Keep it below RebalanceTimeout. Default 10 s.
	IdleInTransaction time.Duration
	// LockTimeout bounds the wait for a row lock, in a claim and in a batch.
	// Default 5 s.
	LockTimeout time.Duration
	// BufferBytes bounds the keys, values and headers of a group that were
	// fetched and wait for their turn. Default 16 MiB.
	BufferBytes int64
	// FetchBytes bounds one answer of a broker. Default 4 MiB.
	FetchBytes int32
	// SessionTimeout is how long Kafka waits for a silent member before it
	// gives its partitions to others. Default 10 s.
	SessionTimeout time.Duration
	// RebalanceTimeout is how long a rebalance waits for a member that was
	// asked to join again. Members answer within RevokeWait and a moment, so
	// it is short: a dead one holds up the others no longer. Default 20 s.
	RebalanceTimeout time.Duration
	// RevokeWait is how long a rebalance waits for a batch in hand. Default 2 s.
	RevokeWait time.Duration
	// CommitInterval is the pace of the mirror in Kafka. Default 1 s.
	CommitInterval time.Duration
	// RetryMin and RetryMax bound the pause before a failed batch is tried
	// again; it doubles, with full jitter. Defaults 100 ms and 30 s.
	RetryMin, RetryMax time.Duration
	// ReclaimWait is the pause before a fenced owner claims again, long enough
	// to learn from Kafka that the partition is no longer its own. Default 4 s.
	ReclaimWait time.Duration
	// StopRetry is how often a stopped partition looks whether its cause was
	// removed, and says so again if not. Default 30 s.
	StopRetry time.Duration
	// CloseWait bounds the orderly end of Run. Default 15 s.
	CloseWait time.Duration
}

func (l Limits) withDefaults() Limits {
	setDefault(&l.MinBatch, 50)
	setDefault(&l.MaxBatch, 1000)
	setDefault(&l.BatchTarget, 50*time.Millisecond)
	setDefault(&l.BatchTimeout, 30*time.Second)
	setDefault(&l.IdleInTransaction, 10*time.Second)
	setDefault(&l.LockTimeout, 5*time.Second)
	setDefault(&l.BufferBytes, 16<<20)
	setDefault(&l.FetchBytes, 4<<20)
	setDefault(&l.SessionTimeout, 10*time.Second)
	setDefault(&l.RebalanceTimeout, 20*time.Second)
	setDefault(&l.RevokeWait, 2*time.Second)
	setDefault(&l.CommitInterval, time.Second)
	setDefault(&l.RetryMin, 100*time.Millisecond)
	setDefault(&l.RetryMax, 30*time.Second)
	setDefault(&l.ReclaimWait, 4*time.Second)
	setDefault(&l.StopRetry, 30*time.Second)
	setDefault(&l.CloseWait, 15*time.Second)
	l.MinBatch = min(l.MinBatch, l.MaxBatch)
	return l
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
