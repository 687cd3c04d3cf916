package orders

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
)

const (
	// streamWriters overlap: one backend fills one core, and the other core
	// must not stand idle while it runs.
	streamWriters = 2
	// streamLockWait is how long a bulk batch waits for a key that another
	// transaction holds; usually the other writer of the same stream.
	streamLockWait = 2 * time.Second

	bulkOrders = 1000
	bulkBytes  = 2 << 20
	// bulksInFlight bounds the batches between parser and results.
	bulksInFlight = 4
)

// ingest answers POST /v1/orders:ingest: orders come in as NDJSON, one a line,
// and a result for each goes out in the same order while more come in.
//
// One goroutine reads lines, one makes them into batches, two write batches,
// one puts the results of each batch aside in the order of the lines, and this
// one sends them. Each stops when the one before it does, and reading stops by
// itself when the writers are busy, so TCP slows the client down.
func (s *Service) ingest(w http.ResponseWriter, r *http.Request) error {
	client, err := clientOf(r)
	if err != nil {
		return err
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		return problemOf(codeTooManyStreams, "")
	}
	st := &stream{
		service: s, client: client, rc: http.NewResponseController(w),
		// Orders that came through whole are written even if the client goes.
		ctx:    context.WithoutCancel(traced(r)),
		blocks: make(chan *block, 1), free: make(chan *block, 3),
		work: make(chan *bulk), order: make(chan *bulk, bulksInFlight),
		done: make(chan struct{}), spool: newSpool(s.cfg.SpoolDir),
	}
	defer st.close()
	if err := st.openBody(r); err != nil {
		return err
	}
	if err := st.openWriters(); err != nil {
		return err
	}
	// HTTP/1 stops reading the body at the first write of the answer unless
	// told that the two overlap. A refusal above wants it to.
	if err := st.rc.EnableFullDuplex(); err != nil {
		return fmt.Errorf("overlap request and answer: %w", err)
	}
	s.metrics.streams.Inc()
	defer s.metrics.streams.Dec()
	st.run(w, r)
	return nil
}

// stream is one bulk ingest while it runs.
type stream struct {
	service *Service
	client  string
	ctx     context.Context
	rc      *http.ResponseController
	body    io.Reader
	writers [streamWriters]committer

	blocks chan *block   // reader -> parser; closed by the reader
	free   chan *block   // parser -> reader; closed by nobody
	work   chan *bulk    // parser -> writers; closed by the parser
	order  chan *bulk    // parser -> results; closed by the parser
	done   chan struct{} // closed by run
	spool  *spool        // results -> run

	scratch scratch // of the parser

	mu    sync.Mutex
	fatal *problem // protected by mu; why no more lines are read
}

// openBody checks what the body is said to be.
func (st *stream) openBody(r *http.Request) error {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/x-ndjson" && media != "application/jsonl" {
		return problemOf(codeUnsupportedMedia, "Content-Type must be application/x-ndjson or application/jsonl.")
	}
	switch r.Header.Get("Content-Encoding") {
	case "", "identity":
		st.body = r.Body
	case "gzip":
		if st.body, err = gzip.NewReader(r.Body); err != nil {
			return problemOf(codeBodyUnreadable, "The body is not gzip.").because(err)
		}
	default:
		return problemOf(codeUnsupportedMedia, "Content-Encoding must be gzip or none.")
	}
	return nil
}

// openWriters takes the stream's connections, so that a database that is away
// is an ordinary 503.
func (st *stream) openWriters() error {
	ctx, cancel := context.WithTimeout(st.ctx, st.service.cfg.Patience)
	defer cancel()
	for i := range st.writers {
		st.writers[i] = st.service.committer(doorBulk, streamLockWait)
		if err := st.writers[i].session.open(ctx); err != nil {
			return problemOf(codeUnavailable, "").because(err)
		}
	}
	return nil
}

// close gives back what the stream took.
func (st *stream) close() {
	for i := range st.writers {
		if s := st.writers[i].session; s != nil {
			s.close()
		}
	}
	st.spool.close()
}

// run moves the stream through and returns when every goroutine of it has.
func (st *stream) run(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	_ = st.rc.SetWriteDeadline(time.Time{}) // see read
	if r.Header.Get("Expect") == "" {
		// A client may wait for the head of the answer before it sends. One
		// that expects 100 Continue gets that from the first read instead.
		w.WriteHeader(http.StatusOK)
		_ = st.rc.Flush()
	}
	for range cap(st.free) {
		st.free <- newBlock()
	}
	var all sync.WaitGroup
	all.Go(st.watch)
	all.Go(st.read)
	all.Go(st.parse)
	for i := range st.writers {
		all.Go(func() { st.write(&st.writers[i]) })
	}
	all.Go(st.results)
	st.send(w)
	close(st.done)
	all.Wait()
}

// watch ends the stream when the service stops.
func (st *stream) watch() {
	select {
	case <-st.service.stopping:
		st.stop(problemOf(codeStopping, ""))
	case <-st.done:
	}
}

// stop makes the reader end the stream for a reason. What was read already is
// still handled.
func (st *stream) stop(p *problem) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.fatal == nil {
		st.fatal = p
		_ = st.rc.SetReadDeadline(time.Unix(1, 0)) // wakes a read
	}
}

func (st *stream) stopped() *problem {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.fatal
}

// read passes on the lines as they come until the body ends.
//
// Only reading has a deadline while it goes on: a client may send everything
// before it reads a result. From the end of the body on it must read.
func (st *stream) read() {
	defer close(st.blocks)
	defer func() { _ = st.rc.SetWriteDeadline(time.Now().Add(st.service.cfg.StreamIdle)) }()
	lines := lineReader{src: st.body}
	for b := range st.free {
		_ = st.rc.SetReadDeadline(time.Now().Add(st.service.cfg.StreamIdle))
		if st.stopped() != nil { // after the deadline: stop sets it too
			return
		}
		err := lines.fill(b)
		if len(b.lines) > 0 {
			st.blocks <- b
		}
		switch {
		case errors.Is(err, io.EOF):
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			st.stop(problemOf(codeBodyUnreadable, "Nothing came for "+st.service.cfg.StreamIdle.String()+"."))
			return
		case err != nil:
			st.stop(problemOf(codeBodyUnreadable, "").because(err))
			return
		}
	}
}

// write writes batches until there are no more. Once the database is lost the
// stream comes to its end, and what was read meanwhile is refused unwritten.
func (st *stream) write(c *committer) {
	for b := range st.work {
		if p := st.stopped(); p != nil && p.Code == codeUnavailable {
			for _, e := range b.entries {
				e.problem = problemOf(codeUnavailable, "")
			}
		} else if len(b.entries) > 0 {
			if !c.commit(st.ctx, b.entries) {
				st.stop(problemOf(codeUnavailable, ""))
			}
			ctx, cancel := context.WithTimeout(st.ctx, c.patience)
			resolve(ctx, st.service.db, b.entries)
			cancel()
		}
		close(b.done)
	}
}

// send writes the results to the client, and flushes whenever there are no
// more at hand. When the client is gone it goes on taking, so that nobody
// waits.
func (st *stream) send(w http.ResponseWriter) {
	buf := make([]byte, 32<<10)
	gone := false
	for {
		n, more, err := st.spool.take(buf)
		if err != nil {
			return
		}
		if gone {
			continue
		}
		_, err = w.Write(buf[:n])
		if err == nil && !more {
			err = st.rc.Flush()
		}
		gone = err != nil
	}
}

// tally counts what became of a stream's lines.
type tally struct{ accepted, replayed, rejected int }

// results puts the results of each batch aside in the order of the lines.
func (st *stream) results() {
	defer st.spool.end()
	var sum tally
	var out []byte
	for b := range st.order {
		<-b.done
		out = out[:0]
		for i := range b.slots {
			out = st.appendResult(out, &b.slots[i], &sum)
		}
		if err := st.spool.put(out); err != nil {
			st.stop(problemOf(codeResultsUnread, "").because(err))
		}
	}
	out = out[:0]
	if p := st.stopped(); p != nil {
		out = append(out, `{"problem":`...)
		out = append(append(out, p.marshal()...), "}\n"...)
	} else {
		out = append(out, `{"summary":{"accepted":`...)
		out = strconv.AppendInt(out, int64(sum.accepted), 10)
		out = append(out, `,"replayed":`...)
		out = strconv.AppendInt(out, int64(sum.replayed), 10)
		out = append(out, `,"rejected":`...)
		out = strconv.AppendInt(out, int64(sum.rejected), 10)
		out = append(out, "}}\n"...)
	}
	_ = st.spool.put(out) // if it does not fit, the missing last line says so
}

func (st *stream) appendResult(out []byte, s *slot, sum *tally) []byte {
	a, p := s.outcome()
	st.service.metrics.settled(doorBulk, a, p)
	out = append(out, `{"line":`...)
	out = strconv.AppendInt(out, int64(s.line), 10)
	out = append(out, `,"status":`...)
	switch {
	case p != nil:
		sum.rejected++
		out = strconv.AppendInt(out, int64(p.Status), 10)
		out = append(out, `,"problem":`...)
		return append(append(out, p.marshal()...), "}\n"...)
	case a.replayed:
		sum.replayed++
		out = append(out, `200,"replayed":true`...)
	default:
		sum.accepted++
		out = append(out, `201`...)
	}
	out = append(out, `,"order_id":"`...)
	out = appendID(out, a.orderID)
	out = append(out, `","version":`...)
	out = strconv.AppendInt(out, a.version, 10)
	return append(out, "}\n"...)
}
