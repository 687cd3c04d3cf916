package outbox_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"orderflow/outbox-relay/outbox"
)

func headersOf(t *testing.T, b []byte) map[string]string {
	t.Helper()
	got := map[string]string{}
	for len(b) > 0 {
		name, value, rest, err := outbox.NextHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		got[name], b = string(value), rest
	}
	return got
}

func TestHeadersKeepTheEnvelopeAndTheTrace(t *testing.T) {
	t.Parallel()
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	e := event(1, "a")
	e.Meta.OccurredAt = time.Date(2010, 12, 1, 8, 26, 0, 0, time.FixedZone("", 3600))
	cause := "a-cause"
	e.Meta.CausationID = &cause
	row, err := outbox.Prepare(outbox.WithTraceparent(t.Context(), trace), e)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"ce_source": "/services/orders", "ce_time": "2010-12-01T07:26:00Z", "ce_correlationid": "correlation",
		"ce_causationid": "a-cause", "traceparent": trace,
	}
	if diff := cmp.Diff(want, headersOf(t, row.Headers)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTextThatIsNoTraceparentIsLeftOut(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"", "00", "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0\n",
	} {
		row, err := outbox.Prepare(outbox.WithTraceparent(t.Context(), s), event(1, "a"))
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := headersOf(t, row.Headers)["traceparent"]; ok {
			t.Errorf("traceparent %q taken from %q", got, s)
		}
	}
}

func FuzzNextHeader(f *testing.F) {
	f.Add([]byte{1, 3, 'a', 'b', 'c', 2, 0})
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			name, value, rest, err := outbox.NextHeader(b)
			if err != nil {
				return
			}
			if name == "" || len(value)+len(rest) >= len(b) {
				t.Fatalf("header %q of %d bytes with %d behind, out of %d", name, len(value), len(rest), len(b))
			}
			b = rest
		}
	})
}

func BenchmarkPrepare(b *testing.B) {
	e := event(1, "a")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := outbox.Prepare(b.Context(), e); err != nil {
			b.Fatal(err)
		}
	}
}
