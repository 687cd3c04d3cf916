package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"orderflow/schemas"
)

const (
	topicsTimeout = 30 * time.Second
	propagation   = 50 * time.Millisecond
)

// EnsureTopics creates the topics that are missing. It refuses a topic whose
// partition count differs from the wanted one: keys would move to other
// partitions and the order of their events would be lost, so growth is a new
// topic version instead. Replication -1 takes the broker's default.
func EnsureTopics(ctx context.Context, cl *kgo.Client, topics []schemas.Topic, replication int16) error {
	ctx, cancel := context.WithTimeout(ctx, topicsTimeout)
	defer cancel()
	adm := kadm.NewClient(cl)
	var errs []error
	for _, t := range topics {
		if err := createTopic(ctx, adm, t, replication); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// A topic that was made just now is not known to every broker yet.
	for {
		err := checkPartitions(ctx, adm, topics)
		if !errors.Is(err, kerr.UnknownTopicOrPartition) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(propagation):
		}
	}
}

func createTopic(ctx context.Context, adm *kadm.Client, t schemas.Topic, replication int16) error {
	configs := make(map[string]*string, len(t.Config))
	for k, v := range t.Config {
		configs[k] = kadm.StringPtr(v)
	}
	_, err := adm.CreateTopic(ctx, t.Partitions, replication, configs, t.Name)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("create topic %s: %w", t.Name, err)
	}
	return nil
}

func checkPartitions(ctx context.Context, adm *kadm.Client, topics []schemas.Topic) error {
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = t.Name
	}
	details, err := adm.ListTopics(ctx, names...)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	var errs []error
	for _, t := range topics {
		d := details[t.Name]
		if d.Err != nil {
			errs = append(errs, fmt.Errorf("look at topic %s: %w", t.Name, d.Err))
			continue
		}
		if got := len(d.Partitions); got != int(t.Partitions) {
			errs = append(errs, fmt.Errorf("topic %s has %d partitions, want %d: "+
				"a changed count breaks the order of events per key, make a new topic version instead", t.Name, got, t.Partitions))
		}
	}
	return errors.Join(errs...)
}
