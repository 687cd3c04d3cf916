package consumers

import "github.com/twmb/franz-go/pkg/kgo"

// push hands fetched records to the partition's goroutine. It never waits: the
// group stops fetching for a partition that is full. Between a stop and its
// seek, records are dropped; the seek reads them again.
func (p *partition) push(records []*kgo.Record) {
	bytes := int64(0)
	for _, r := range records {
		bytes += sizeOf(r)
	}
	p.mu.Lock()
	if p.accepting {
		p.queue = append(p.queue, records)
		p.queued += len(records)
		p.bytes += bytes
	}
	p.mu.Unlock()
	p.signal()
}

func (p *partition) signal() {
	select {
	case p.wake <- struct{}{}:
	default: // a token is there already
	}
}

// take waits for records and returns as many as a batch may have. The error is
// errStopping when the partition is given up, or what fetching ran into.
func (p *partition) take() ([]*kgo.Record, error) {
	for !p.isStopping() {
		records, fault := p.pop(p.size)
		if len(records) > 0 {
			p.group.drained(p)
			return records, nil
		}
		if fault != nil {
			return nil, fault
		}
		select {
		case <-p.wake:
		case <-p.stopping:
		case <-p.ctx.Done():
		}
	}
	return nil, errStopping
}

// pop takes up to n records from the queue, without those that were applied
// before: after a seek the fetch may begin lower than asked.
func (p *partition) pop(n int) ([]*kgo.Record, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var taken []*kgo.Record
	for len(p.queue) > 0 && len(taken) < n {
		head := p.queue[0]
		k := min(len(head), n-len(taken))
		taken = appendFrom(taken, head[:k], p.next)
		p.queued -= k
		for _, r := range head[:k] {
			p.bytes -= sizeOf(r)
		}
		if k < len(head) {
			p.queue[0] = head[k:]
			break
		}
		p.queue[0] = nil
		p.queue = p.queue[1:]
	}
	if len(p.queue) == 0 {
		p.queue = nil // let an idle partition keep nothing
	}
	return taken, p.fault
}

func appendFrom(dst, records []*kgo.Record, next int64) []*kgo.Record {
	for len(records) > 0 && records[0].Offset < next {
		records = records[1:]
	}
	if dst == nil {
		return records[:len(records):len(records)]
	}
	return append(dst, records...)
}

// fail tells the partition's goroutine what fetching ran into. Records that
// came before are applied first.
func (p *partition) fail(fault error) {
	p.mu.Lock()
	if p.accepting {
		p.accepting, p.fault = false, fault
	}
	p.mu.Unlock()
	p.signal()
}

// discard empties the queue, and says whether new records are welcome.
func (p *partition) discard(accepting bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue, p.queued, p.bytes = nil, 0, 0
	p.accepting, p.fault = accepting, nil
}

// load returns what waits in the queue.
func (p *partition) load() (records int, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queued, p.bytes
}

func sizeOf(r *kgo.Record) int64 {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return int64(n)
}

func (p *partition) isAccepting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepting
}
