package consumers

import "github.com/twmb/franz-go/pkg/kgo"

// faults are the crash points that this package's tests reach. Nil, the
// only value outside those tests, does nothing.
type faults struct {
	// fence replaces the statement that moves the position, with the same
	// parameters: the control that shows what the fence is good for.
	fence string
	// begin runs just before each transaction.
	begin func(p *partition)
	// commit runs just before each COMMIT.
	commit func(p *partition)
	// committed runs after each COMMIT, before Kafka hears of it.
	committed func(p *partition)
	// kafka is appended to the client's options.
	kafka []kgo.Opt
}

func (f *faults) fenceSQL() string {
	if f == nil || f.fence == "" {
		return fenceSQL
	}
	return f.fence
}

func (f *faults) kafkaOptions() []kgo.Opt {
	if f == nil {
		return nil
	}
	return f.kafka
}

func (f *faults) beforeBegin(p *partition) {
	if f != nil && f.begin != nil {
		f.begin(p)
	}
}

func (f *faults) beforeCommit(p *partition) {
	if f != nil && f.commit != nil {
		f.commit(p)
	}
}

func (f *faults) afterCommit(p *partition) {
	if f != nil && f.committed != nil {
		f.committed(p)
	}
}
