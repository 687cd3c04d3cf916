package embedded

import (
	"fmt"
	"path/filepath"
)

// What a stop leaves of transactions is settled here, before the broker loads its log, since the broker itself treats
// them in ways that lose or repeat records: it writes no abort marker, so readers drop the producer's next
// transactions with the open one; it can answer a commit of what it dropped by a success; it can leave a commit done
// in some partitions only; it lets a producer use the epoch of an ended transaction for the next; and after a clean
// stop it counts an open transaction as committed.
//
// Settled means as in Kafka: every open transaction gets its marker in each of its partitions. The marker is a commit
// where any partition has the commit of the same transaction, else an abort. A transaction is known by its producer
// and epoch, which changes with each (KIP-890). A producer that keeps its epoch, as old clients do, is told from that
// by the broker's own note that a transaction of the epoch ended before.

// transaction identifies one transaction.
type transaction struct {
	producer int64
	epoch    int16
}

// recoverLog makes the log in dir fit to be loaded, and returns how many transactions it had to abort. All its steps
// can be done again: killed on the way, the next start finds what is left to do.
func recoverLog(dir string) (aborted int, err error) {
	producers, err := readProducerLog(filepath.Join(dir, "pids.log"))
	if err != nil {
		return 0, err
	}
	if _, err := readFrames(filepath.Join(dir, "groups.log")); err != nil {
		return 0, err
	}
	logs, err := scanPartitions(dir)
	if err != nil {
		return 0, err
	}
	// The producers come last: a second run finds the markers and no open transaction, and still the old epochs.
	ends := settle(logs, producers)
	for _, l := range logs {
		if err := l.repair(); err != nil {
			return 0, fmt.Errorf("settle transactions of %s: %w", l.base, err)
		}
	}
	if err := writeSequences(dir, logs); err != nil {
		return 0, err
	}
	if err := producers.advance(ends); err != nil {
		return 0, fmt.Errorf("settle producers: %w", err)
	}
	for _, committed := range ends {
		if !committed {
			aborted++
		}
	}
	return aborted, nil
}

func scanPartitions(dir string) ([]*partitionLog, error) {
	folders, err := filepath.Glob(filepath.Join(dir, "partitions", "*"))
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	var logs []*partitionLog
	for _, folder := range folders {
		l, err := scanPartition(folder)
		if err != nil {
			return nil, fmt.Errorf("scan %s: %w", folder, err)
		}
		logs = append(logs, l)
	}
	return logs, nil
}

// settle ends the open transactions. It returns these, and the newest others whose end the broker did not note, and
// whether they are committed.
func settle(logs []*partitionLog, producers *producerLog) map[transaction]bool {
	ends := map[transaction]bool{}
	for _, l := range logs {
		for producer, last := range l.ended {
			if t := (transaction{producer, last.epoch}); !producers.knows(t) {
				ends[t] = ends[t] || last.commit
			}
		}
	}
	for _, l := range logs {
		for t := range l.open {
			commit := ends[t]
			l.endTransaction(t, commit)
			ends[t] = commit // an entry also for an abort
		}
	}
	return ends
}
