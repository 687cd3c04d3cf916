package orders

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"orderflow/outbox-relay/outbox"
)

// place answers POST /v1/orders: the order is durable, with its event, before
// the answer is 201.
func (s *Service) place(w http.ResponseWriter, r *http.Request) error {
	a, err := s.placeOrder(w, r)
	if err != nil {
		p := asProblem(err)
		s.metrics.settled(doorSingle, answer{}, p)
		return p
	}
	s.metrics.settled(doorSingle, a, nil)
	writeAnswer(w, a)
	return nil
}

func (s *Service) placeOrder(w http.ResponseWriter, r *http.Request) (answer, error) {
	if err := acceptJSON(r); err != nil {
		return answer{}, err
	}
	k, present, err := keyHeader(r)
	if err != nil {
		return answer{}, err
	}
	if !present {
		return answer{}, problemOf(codeKeyMissing, "")
	}
	p, err := s.accept(w, r, k)
	if err != nil {
		return answer{}, err
	}
	return s.write(r.Context(), p)
}

// accept reads the request's order and makes it ready to be written.
func (s *Service) accept(w http.ResponseWriter, r *http.Request, k keyOf) (*prepared, error) {
	tmp := s.scratch.Get().(*scratch)
	defer s.scratch.Put(tmp)
	body, err := readBody(w, r, tmp.body)
	if err != nil {
		return nil, err
	}
	if cap(body) <= maxScratch {
		tmp.body = body
	}
	// Decoding copies every text, so nothing of the order is in the buffer.
	o := &Order{Lines: room(body)}
	if err := decode(body, o); err != nil {
		return nil, err
	}
	return tmp.prepare(traced(r), k, o, time.Now())
}

// write hands an order to the writer and waits for what becomes of it. A full
// queue is answered at once: an order that waits long for its turn helps
// nobody, and the client knows better when to try again.
func (s *Service) write(ctx context.Context, p *prepared) (answer, error) {
	o := &waiting{entry: entry{prepared: p}, done: make(chan struct{}, 1)}
	select {
	case s.queue <- o:
	default:
		return answer{}, problemOf(codeQueueFull, "")
	}
	select {
	case <-o.done:
	case <-s.stopped:
		return answer{}, problemOf(codeStopping, "")
	}
	if o.taken {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Patience)
		defer cancel()
		resolve(ctx, s.db, []*entry{&o.entry})
	}
	if o.problem != nil {
		return answer{}, o.problem
	}
	return o.answer, nil
}

// traced carries the request's W3C trace context into its events.
func traced(r *http.Request) context.Context {
	if tp := r.Header.Get("Traceparent"); tp != "" {
		return outbox.WithTraceparent(r.Context(), tp)
	}
	return r.Context()
}

// writeAnswer sends the answer to a request that changed an order, the first
// time or again.
func writeAnswer(w http.ResponseWriter, a answer) {
	h := w.Header()
	h.Set("Location", string(appendID([]byte("/v1/orders/"), a.orderID)))
	h.Set("ETag", etag(a.version))
	if a.replayed {
		h.Set("Idempotency-Replayed", "true")
	}
	writeBody(w, a.status, contentJSON, a.body)
}

func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }
