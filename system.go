package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// system holds the parts of a running pipeline, in the order in which they
// were started, and stops them in the reverse order. The first part that fails
// ends the whole.
type system struct {
	ctx context.Context // what parts run under, without the caller's cancel
	log *slog.Logger

	mu     sync.Mutex // protects parts
	parts  []*part
	failed chan error // holds the first failure
}

// part is something that runs until it is stopped.
type part struct {
	name string
	stop func() error // returns when the part has ended
}

func newSystem(ctx context.Context, log *slog.Logger) *system {
	return &system{ctx: context.WithoutCancel(ctx), log: log, failed: make(chan error, 1)}
}

// started remembers how to stop something that runs by itself.
func (s *system) started(name string, stop func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts = append(s.parts, &part{name: name, stop: stop})
}

// startedBelow does the same for what everything else stands on.
func (s *system) startedBelow(name string, stop func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts = slices.Insert(s.parts, 0, &part{name: name, stop: stop})
}

// start runs a stage in a goroutine that stop waits for.
func (s *system) start(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan struct{}) // closed when the stage has ended
	var err error               // read after done
	go func() {
		defer close(done)
		if err = run(ctx); err != nil && ctx.Err() == nil {
			s.fail(fmt.Errorf("%s: %w", name, err))
		}
	}()
	s.started(name, func() error {
		cancel()
		select {
		case <-done:
			return ignoreCancel(ctx, err)
		case <-time.After(stopTimeout):
			return fmt.Errorf("still running after %s", stopTimeout)
		}
	})
}

func (s *system) fail(err error) {
	select {
	case s.failed <- err:
	default: // an earlier failure is the cause
	}
}

// failure returns the first failure, if there is one.
func (s *system) failure() error {
	select {
	case err := <-s.failed:
		s.failed <- err
		return err
	default:
		return nil
	}
}

// wait returns when ctx ends, which is no error, or when a part fails.
func (s *system) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	}
}

// whileHealthy gives a context that also ends when a part fails.
func (s *system) whileHealthy(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		if err := s.wait(ctx); err != nil {
			s.fail(err)
			cancel()
		}
	}()
	return ctx, cancel
}

// stopNamed stops one part before the others.
func (s *system) stopNamed(name string) {
	s.mu.Lock()
	i := slices.IndexFunc(s.parts, func(p *part) bool { return p.name == name })
	if i < 0 {
		s.mu.Unlock()
		return
	}
	p := s.parts[i]
	s.parts = slices.Delete(s.parts, i, i+1)
	s.mu.Unlock()
	s.end(p)
}

// stop ends every part, the last started first.
func (s *system) stop() {
	for {
		s.mu.Lock()
		n := len(s.parts)
		if n == 0 {
			s.mu.Unlock()
			return
		}
		p := s.parts[n-1]
		s.parts = s.parts[:n-1]
		s.mu.Unlock()
		s.end(p)
	}
}

func (s *system) end(p *part) {
	began := time.Now()
	if err := p.stop(); err != nil && !errors.Is(err, context.Canceled) {
		s.log.Warn("stop", "part", p.name, "err", err)
		return
	}
	s.log.Debug("stopped", "part", p.name, "seconds", time.Since(began).Seconds())
}
