package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// terminal is as much of a terminal as the screen asks for.
type terminal struct {
	lines []string
	row   int
}

func (t *terminal) show(b []byte) {
	for s := string(b); s != ""; {
		switch {
		case strings.HasPrefix(s, "\x1b[A"):
			t.row, s = t.row-1, s[3:]
		case strings.HasPrefix(s, "\x1b[J"):
			t.lines, s = t.lines[:t.row], s[3:]
		case s[0] == '\r':
			s = s[1:]
		default:
			line, rest, _ := strings.Cut(s, "\n")
			t.lines, t.row, s = append(t.lines[:t.row], line), t.row+1, rest
		}
	}
}

// The log scrolls above the table, and no line of it is lost.
func TestTableStaysBelowTheLog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := newScreen(&out)
	for _, step := range []struct{ log, block string }{
		{log: "started\n"}, {block: "a 1\nb 1\n"}, {log: "error: look here\n"}, {block: "a 2\nb 2\nc 2\n"}, {log: "more\n"}, {block: "a 3\n"},
	} {
		if step.log != "" {
			if _, err := s.Write([]byte(step.log)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		s.draw(step.block)
	}
	var got terminal
	got.show(out.Bytes())
	if diff := cmp.Diff([]string{"started", "error: look here", "more", "a 3"}, got.lines); diff != "" {
		t.Errorf("on the terminal (-want +got):\n%s", diff)
	}
}

func TestOrdersToImportAreAllNoneOrANumber(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int{"all": 0, "none": -1, "7": 7} {
		if got, err := importLimit(in); err != nil || got != want {
			t.Errorf("%s: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "0", "-3", "5x", "many"} {
		if _, err := importLimit(in); err == nil {
			t.Errorf("%q passes", in)
		}
	}
}
