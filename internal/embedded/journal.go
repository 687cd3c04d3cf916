package embedded

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
)

// journal holds the writes that made the registry what it is, oldest first. Played again they give the same ids,
// versions and levels, so nothing of the registry's inner state has to be known here.
type journal struct {
	path   string // empty = in memory
	writes []write
	stale  bool // the file lacks a write that took effect
}

type write struct {
	Method string          `json:"method"`
	Path   string          `json:"path"`
	Body   json.RawMessage `json:"body,omitempty"`
	Answer json.RawMessage `json:"answer"`
}

type journalFile struct {
	Version int     `json:"version"`
	Writes  []write `json:"writes"`
}

const journalVersion = 1

// add keeps a write that took effect. Writes that change nothing are not kept, or every start of a client would make
// the journal longer.
func (j *journal) add(w write) error {
	if len(bytes.TrimSpace(w.Body)) == 0 {
		w.Body = nil
	}
	if j.repeats(w) && !j.stale {
		return nil
	}
	j.writes = append(j.writes, w)
	return j.save()
}

// repeats reports whether w is a registration or a setting that was made before, with nothing on its subject or on
// the same setting since.
func (j *journal) repeats(w write) bool {
	for i := len(j.writes) - 1; i >= 0; i-- {
		old := j.writes[i]
		if old.Method == http.MethodDelete {
			return false
		}
		if old.Method != w.Method || old.Path != w.Path {
			continue
		}
		if w.Method == http.MethodPost && !bytes.Equal(old.Answer, w.Answer) {
			continue // another version of the same subject
		}
		return w.Method == http.MethodPost || bytes.Equal(old.Body, w.Body)
	}
	return false
}

func (j *journal) save() error {
	if j.path == "" {
		return nil
	}
	j.stale = true
	text, err := json.MarshalIndent(journalFile{Version: journalVersion, Writes: j.writes}, "", " ")
	if err != nil {
		return fmt.Errorf("encode journal: %w", err)
	}
	if err := writeFileAtomic(j.path, text, 0o644); err != nil {
		return err
	}
	j.stale = false
	return nil
}

// replay reads the file and plays its writes to a fresh registry.
func (j *journal) replay(ctx context.Context, h http.Handler) error {
	if j.path == "" {
		return nil
	}
	text, err := os.ReadFile(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	var file journalFile
	if err := json.Unmarshal(text, &file); err != nil {
		return fmt.Errorf("read journal %s: %w", j.path, err)
	}
	if file.Version != journalVersion {
		return fmt.Errorf("read journal %s: version %d, this program knows %d", j.path, file.Version, journalVersion)
	}
	for i, w := range file.Writes {
		got := roundTrip(ctx, h, w.Method, w.Path, w.Body)
		// Another id would give every record in Kafka that carries the old one another schema.
		if got.status != http.StatusOK || !sameJSON(got.body, w.Answer) {
			return fmt.Errorf("play journal %s: write %d (%s %s) answers %d %s, was %s",
				j.path, i+1, w.Method, w.Path, got.status, bytes.TrimSpace(got.body), w.Answer)
		}
	}
	j.writes = file.Writes
	return nil
}

func sameJSON(a, b []byte) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}
