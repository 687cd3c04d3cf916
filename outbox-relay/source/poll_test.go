package source_test

import (
	"strings"
	"testing"

	"orderflow/internal/pg"
	"orderflow/outbox-relay/source"
)

func TestPollConforms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		cfg  source.PollConfig
	}{
		{"batches as configured by default", source.PollConfig{}},
		{"batches smaller than most windows", source.PollConfig{MaxBatchRows: 17, MaxBatchBytes: 4 << 10, Batches: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conform(t, func(t *testing.T, url string, after source.Point) source.Source {
				t.Helper()
				cfg := c.cfg
				cfg.DB = pg.Config{URL: url}
				s, err := source.NewPoll(t.Context(), cfg, after)
				if err != nil {
					t.Fatal(err)
				}
				return s
			})
		})
	}
}

func TestPollRefusesForeignPoint(t *testing.T) {
	t.Parallel()
	_, err := source.NewPoll(t.Context(), source.PollConfig{}, "0/16B3748 12 x")
	if err == nil || !strings.Contains(err.Error(), "no point of this source") {
		t.Errorf("error %v, want a refusal of the point", err)
	}
}
