package notification

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"orderflow/consumers"
)

const (
	// fetchCooldown bounds how often jobs are fetched while there are many.
	fetchCooldown = 5 * time.Millisecond
	// fetchPoll finds jobs whose notification was lost or saved.
	fetchPoll = time.Second
	// rescueMargin is how long after its timeout a job that is still marked
	// as running is taken from its worker, which must be dead.
	rescueMargin = time.Second
	// finishedFor is how long finished jobs can be looked at.
	finishedFor = time.Hour
	softStop    = 5 * time.Second
	startRetry  = 5 * time.Second
)

// work sends mails until ctx ends.
func (s *service) work(ctx context.Context, w consumers.WorkerDeps) error {
	if err := s.cfg.Validate(); err != nil {
		return err
	}
	press, err := newPress(s.cfg)
	if err != nil {
		return err
	}
	m := newMetrics(w.Metrics)
	post := newPost(s.cfg)
	defer post.close()
	settler := &settler{db: w.DB, log: w.Log, metrics: m, jobs: s.insertJobs, in: make(chan *settlement)}

	// The settler outlives the jobs; both end before the connections close.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { settler.run(inner) })
	running.Go(func() { m.watch(inner, w.DB, w.Log) })

	workers := river.NewWorkers()
	err = river.AddWorkerSafely(workers, &courier{
		db: w.DB, log: w.Log, press: press, post: post, settler: settler, metrics: m,
		timeout: s.cfg.SendTimeout, faults: s.faults,
	})
	if err != nil {
		return fmt.Errorf("add worker: %w", err)
	}
	return s.runJobs(ctx, w, workers)
}

// runJobs returns when ctx has ended and the jobs with it. It waits for a
// database that is away.
func (s *service) runJobs(ctx context.Context, w consumers.WorkerDeps, workers *river.Workers) error {
	for {
		client, err := river.NewClient(riverpgxv5.New(w.DB), s.queueConfig(w.Log, workers))
		if err != nil {
			return fmt.Errorf("make job client: %w", err)
		}
		err = client.Start(ctx)
		if err == nil {
			<-client.Stopped() // once ctx has ended
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
		w.Log.WarnContext(ctx, "retry starting the job queue", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(startRetry):
		}
	}
}

func (s *service) queueConfig(log *slog.Logger, workers *river.Workers) *river.Config {
	timeout := s.cfg.SendTimeout + settleTimeout
	return &river.Config{
		Workers:                     workers,
		Queues:                      map[string]river.QueueConfig{queue: {MaxWorkers: s.cfg.Connections}},
		Logger:                      slog.New(troubleOnly{log.Handler()}),
		FetchCooldown:               fetchCooldown,
		FetchPollInterval:           fetchPoll,
		JobTimeout:                  timeout,
		RescueStuckJobsAfter:        timeout + rescueMargin,
		SoftStopTimeout:             softStop,
		CompletedJobRetentionPeriod: finishedFor,
	}
}

// troubleOnly leaves out what River says while all is well: counts of jobs
// every five seconds, for one.
type troubleOnly struct{ slog.Handler }

func (h troubleOnly) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && h.Handler.Enabled(ctx, l)
}

func (h troubleOnly) WithAttrs(attrs []slog.Attr) slog.Handler {
	return troubleOnly{h.Handler.WithAttrs(attrs)}
}

func (h troubleOnly) WithGroup(name string) slog.Handler {
	return troubleOnly{h.Handler.WithGroup(name)}
}
