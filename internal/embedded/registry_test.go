package embedded

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func startRegistry(t *testing.T, dir string) *Registry {
	t.Helper()
	r, err := StartRegistry(t.Context(), RegistryConfig{DataDir: dir, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// call sends a request to the registry and returns status and decoded body.
func call(t *testing.T, base, method, path string, body any) (int, any) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, base+path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/vnd.schemaregistry.v1+json")
	// A connection kept from before a restart of the registry would break a request off.
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var got any
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatalf("%s %s answers %q: %v", method, path, raw, err)
	}
	return resp.StatusCode, got
}

func errorCode(body any) float64 {
	fields, _ := body.(map[string]any)
	code, _ := fields["error_code"].(float64)
	return code
}

func schemaBody(text string) map[string]any { return map[string]any{"schema": text} }

func setLevel(t *testing.T, base, subject, level string) {
	t.Helper()
	if status, body := call(t, base, http.MethodPut, "/config/"+subject, map[string]any{"compatibility": level}); status != http.StatusOK {
		t.Fatalf("set level %s: %d %v", level, status, body)
	}
}

func register(t *testing.T, base, subject, text string) (status int, id float64) {
	t.Helper()
	status, body := call(t, base, http.MethodPost, "/subjects/"+subject+"/versions", schemaBody(text))
	fields, _ := body.(map[string]any)
	id, _ = fields["id"].(float64)
	return status, id
}

// order is a schema of one record with the given fields.
func order(fields ...string) string {
	return `{"type":"record","name":"Order","namespace":"orders","fields":[` + strings.Join(fields, ",") + `]}`
}

const (
	fieldID       = `{"name":"id","type":"string"}`
	fieldNote     = `{"name":"note","type":["null","string"],"default":null}`
	fieldRequired = `{"name":"total","type":"long"}`
	fieldNumberID = `{"name":"id","type":"long"}`
)

func TestRegistryHoldsEachLevel(t *testing.T) {
	t.Parallel()
	r := startRegistry(t, "")
	const taken, refused = http.StatusOK, http.StatusConflict
	for i, c := range []struct {
		level string
		steps []string // versions registered before, without a check
		next  string
		want  int
	}{
		{"NONE", []string{order(fieldID)}, order(fieldNumberID), taken},
		{"BACKWARD", []string{order(fieldID)}, order(fieldID, fieldNote), taken},
		{"BACKWARD", []string{order(fieldID)}, order(fieldID, fieldRequired), refused},
		{"BACKWARD", []string{order(fieldID, fieldRequired)}, order(fieldID), taken},
		{"FORWARD", []string{order(fieldID)}, order(fieldID, fieldRequired), taken},
		{"FORWARD", []string{order(fieldID, fieldRequired)}, order(fieldID), refused},
		{"FULL", []string{order(fieldID)}, order(fieldID, fieldNote), taken},
		{"FULL", []string{order(fieldID)}, order(fieldID, fieldRequired), refused},
		{"FULL", []string{order(fieldID, fieldRequired)}, order(fieldID), refused},
		// What breaks the first version only is seen by the transitive levels only.
		{"BACKWARD", []string{order(fieldNumberID), order(fieldID)}, order(fieldID, fieldNote), taken},
		{"BACKWARD_TRANSITIVE", []string{order(fieldNumberID), order(fieldID)}, order(fieldID, fieldNote), refused},
		{"FORWARD", []string{order(fieldNumberID), order(fieldID)}, order(fieldID, fieldNote), taken},
		{"FORWARD_TRANSITIVE", []string{order(fieldNumberID), order(fieldID)}, order(fieldID, fieldNote), refused},
		{"FULL", []string{order(fieldNumberID), order(fieldID)}, order(fieldID, fieldNote), taken},
		{"FULL_TRANSITIVE", []string{order(fieldNumberID), order(fieldID)}, order(fieldID, fieldNote), refused},
		{"FULL_TRANSITIVE", []string{order(fieldID)}, order(fieldID, fieldNote), taken},
	} {
		t.Run(fmt.Sprintf("%d %s", i, c.level), func(t *testing.T) {
			t.Parallel()
			subject := fmt.Sprintf("levels-%d", i)
			setLevel(t, r.URL(), subject, "NONE")
			for _, step := range c.steps {
				if status, _ := register(t, r.URL(), subject, step); status != taken {
					t.Fatalf("register %s: %d", step, status)
				}
			}
			setLevel(t, r.URL(), subject, c.level)
			status, verdict := call(t, r.URL(), http.MethodPost, "/compatibility/subjects/"+subject+"/versions", schemaBody(c.next))
			if want := map[string]any{"is_compatible": c.want == taken}; status != http.StatusOK || !cmp.Equal(verdict, any(want)) {
				t.Errorf("compatibility check says %d %v, want %v", status, verdict, want)
			}
			status, body := call(t, r.URL(), http.MethodPost, "/subjects/"+subject+"/versions", schemaBody(c.next))
			if status != c.want || (c.want == refused && errorCode(body) != 409) {
				t.Errorf("registration says %d %v, want %d", status, body, c.want)
			}
			if status, body := register(t, r.URL(), subject, c.steps[0]); status != http.StatusOK {
				t.Errorf("what is registered already is refused: %d %v", status, body)
			}
		})
	}
}

func TestRegistrySaysWhatIsIncompatible(t *testing.T) {
	t.Parallel()
	r := startRegistry(t, "")
	register(t, r.URL(), "s", order(fieldID))
	_, body := call(t, r.URL(), http.MethodPost, "/compatibility/subjects/s/versions?verbose=true", schemaBody(order(fieldNumberID)))
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"version 1", "id", "cannot read"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("verdict lacks %q: %s", want, text)
		}
	}
}

func TestRegistryAnswersLikeARealOne(t *testing.T) {
	t.Parallel()
	r := startRegistry(t, "")
	setLevel(t, r.URL(), "orders", "FULL_TRANSITIVE")
	register(t, r.URL(), "orders", order(fieldID))
	register(t, r.URL(), "orders", order(fieldID, fieldNote))
	setLevel(t, r.URL(), "only-a-level", "FULL")
	for name, c := range map[string]struct {
		method, path string
		body         any
		status       int
		code         float64 // of an error
		want         any     // of a success, nil = not looked at
	}{
		"invalid Avro":                    {"POST", "/subjects/s/versions", schemaBody(`{"type":"record"}`), 422, 42201, nil},
		"no JSON":                         {"POST", "/subjects/s/versions", schemaBody(`{`), 422, 42201, nil},
		"default of another type":         {"POST", "/subjects/s/versions", schemaBody(order(`{"name":"n","type":"int","default":"x"}`)), 422, 42201, nil},
		"another kind of schema":          {"POST", "/subjects/s/versions", map[string]any{"schema": `{"type":"object"}`, "schemaType": "JSON"}, 422, 42201, nil},
		"reference to nothing":            {"POST", "/subjects/s/versions", map[string]any{"schema": order(fieldID), "references": []any{map[string]any{"name": "x", "subject": "x", "version": 1}}}, 422, 42201, nil},
		"check of invalid Avro":           {"POST", "/compatibility/subjects/orders/versions/latest", schemaBody(`{"type":"record"}`), 422, 42201, nil},
		"check of a missing subject":      {"POST", "/compatibility/subjects/s/versions/latest", schemaBody(order(fieldID)), 200, 0, map[string]any{"is_compatible": true}},
		"check against one version":       {"POST", "/compatibility/subjects/orders/versions/1", schemaBody(order(fieldID)), 200, 0, map[string]any{"is_compatible": true}},
		"check that fails on one version": {"POST", "/compatibility/subjects/orders/versions/1", schemaBody(order(fieldNumberID)), 200, 0, map[string]any{"is_compatible": false}},
		"check against no such version":   {"POST", "/compatibility/subjects/orders/versions/9", schemaBody(order(fieldID)), 404, 40402, nil},
		"check against nonsense":          {"POST", "/compatibility/subjects/orders/versions/x", schemaBody(order(fieldID)), 422, 42202, nil},
		"missing subject":                 {"GET", "/subjects/s/versions", nil, 404, 40401, nil},
		"missing version":                 {"GET", "/subjects/orders/versions/9", nil, 404, 40402, nil},
		"missing id":                      {"GET", "/schemas/ids/99", nil, 404, 40403, nil},
		"lookup of another schema":        {"POST", "/subjects/orders", schemaBody(order(fieldNumberID)), 404, 40403, nil},
		"lookup in a missing subject":     {"POST", "/subjects/s", schemaBody(order(fieldID)), 404, 40401, nil},
		"unknown level":                   {"PUT", "/config/orders", map[string]any{"compatibility": "SOME"}, 422, 42203, nil},
		"level of its own":                {"GET", "/config/orders", nil, 200, 0, map[string]any{"compatibilityLevel": "FULL_TRANSITIVE"}},
		"no level of its own":             {"GET", "/config/s?defaultToGlobal=false", nil, 404, 40401, nil},
		"subjects":                        {"GET", "/subjects", nil, 200, 0, []any{"orders"}},
		"versions of a mere level":        {"GET", "/subjects/only-a-level/versions", nil, 404, 40401, nil},
		"versions":                        {"GET", "/subjects/orders/versions", nil, 200, 0, []any{1.0, 2.0}},
		"schema types":                    {"GET", "/schemas/types", nil, 200, 0, []any{"AVRO"}},
		"root":                            {"GET", "/", nil, 200, 0, map[string]any{}},
		"mode":                            {"GET", "/mode", nil, 200, 0, map[string]any{"mode": "READWRITE"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, body := call(t, r.URL(), c.method, c.path, c.body)
			if status != c.status || errorCode(body) != c.code {
				t.Errorf("got %d %v, want %d with code %v", status, body, c.status, c.code)
			}
			if diff := cmp.Diff(c.want, body); c.want != nil && diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRegistryUnderstandsReferences(t *testing.T) {
	t.Parallel()
	r := startRegistry(t, "")
	register(t, r.URL(), "money", `{"type":"record","name":"Money","namespace":"orders","fields":[{"name":"minor","type":"long"}]}`)
	body := func(field string) map[string]any {
		return map[string]any{
			"schema":     order(fieldID, field),
			"references": []any{map[string]any{"name": "orders.Money", "subject": "money", "version": 1}},
		}
	}
	setLevel(t, r.URL(), "orders", "FULL_TRANSITIVE")
	if status, got := call(t, r.URL(), http.MethodPost, "/subjects/orders/versions", body(`{"name":"total","type":"Money"}`)); status != http.StatusOK {
		t.Fatalf("schema with a reference: %d %v", status, got)
	}
	if status, got := call(t, r.URL(), http.MethodPost, "/subjects/orders/versions", body(`{"name":"total","type":["null","Money"]}`)); status != http.StatusConflict {
		t.Errorf("incompatible schema with a reference: %d %v, want 409", status, got)
	}
}

// dump is all that a client can see of a registry.
func dump(t *testing.T, base string) map[string]any {
	t.Helper()
	seen := map[string]any{}
	look := func(path string) {
		status, body := call(t, base, http.MethodGet, path, nil)
		if list, ok := body.([]any); ok { // the order of these lists means nothing
			slices.SortFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		}
		seen[path] = fmt.Sprint(status, body)
	}
	look("/subjects")
	look("/config")
	for _, subject := range []string{"a", "b", "c", "gone"} {
		look("/config/" + subject)
		look("/subjects/" + subject + "/versions?deleted=true")
		look("/subjects/" + subject + "/versions/latest")
	}
	for id := 1; id < 8; id++ {
		look(fmt.Sprintf("/schemas/ids/%d/versions", id))
		look(fmt.Sprintf("/schemas/ids/%d", id))
	}
	return seen
}

// fill makes a registry with shared ids, several versions, deletions and levels.
func fill(t *testing.T, base string) {
	t.Helper()
	call(t, base, http.MethodPut, "/config", map[string]any{"compatibility": "FORWARD"})
	setLevel(t, base, "a", "FULL_TRANSITIVE")
	register(t, base, "a", order(fieldID))
	register(t, base, "a", order(fieldID, fieldNote))
	register(t, base, "gone", order(fieldRequired))
	register(t, base, "b", order(fieldID, fieldNote)) // the id of another subject's schema
	setLevel(t, base, "c", "NONE")
	register(t, base, "c", order(fieldRequired))
	register(t, base, "c", order(fieldNumberID))
	call(t, base, http.MethodDelete, "/subjects/gone", nil)
	call(t, base, http.MethodDelete, "/subjects/c/versions/1", nil)
	register(t, base, "c", order(fieldID))
	setLevel(t, base, "c", "BACKWARD")
	if status, body := register(t, base, "a", order(fieldNumberID)); status != http.StatusConflict {
		t.Fatalf("registry is not strict: %d %v", status, body)
	}
}

func TestRegistryKeepsAllItAcknowledged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := startRegistry(t, dir)
	fill(t, r.URL())
	before := dump(t, r.URL())
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	again := startRegistry(t, dir)
	if again.URL() != r.URL() {
		t.Errorf("address is %s, was %s", again.URL(), r.URL())
	}
	if diff := cmp.Diff(before, dump(t, again.URL())); diff != "" {
		t.Errorf("after a restart (-before +after):\n%s", diff)
	}
	if _, id := register(t, again.URL(), "new", order(`{"name":"new","type":"int"}`)); id != 5 {
		t.Errorf("a new schema has id %v, want the next one, 5", id)
	}
}

func TestRegistryKeepsAllThroughKills(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	url, kill := startSupervisor(t, "registry", dir)
	fill(t, url)
	before := dump(t, url)
	kill()
	again, _ := startSupervisor(t, "registry", dir)
	if again != url {
		t.Fatalf("address is %s, was %s", again, url)
	}
	if diff := cmp.Diff(before, dump(t, url)); diff != "" {
		t.Errorf("after kill -9 (-before +after):\n%s", diff)
	}
}

func TestRegistryFileDoesNotGrowWithRepeats(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	size := func() int64 {
		info, err := os.Stat(filepath.Join(dir, "registry.json"))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	r := startRegistry(t, dir)
	fill(t, r.URL())
	announce := func() { // what every client does at its start
		setLevel(t, r.URL(), "a", "FULL_TRANSITIVE")
		register(t, r.URL(), "a", order(fieldID))
		register(t, r.URL(), "a", order(fieldID, fieldNote))
		register(t, r.URL(), "b", order(fieldID, fieldNote))
	}
	announce() // once behind the deletions
	want := size()
	announce()
	announce()
	if got := size(); got != want {
		t.Errorf("file has %d bytes, had %d", got, want)
	}
}

func TestRegistryDoesNotAcknowledgeWhatItCannotKeep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := startRegistry(t, dir)
	path := r.journal.path
	r.journal.path = filepath.Join(dir, "no", "such", "folder")
	if status, _ := register(t, r.URL(), "a", order(fieldID)); status != http.StatusInternalServerError {
		t.Errorf("got %d, want 500", status)
	}
	r.journal.path = path
	// The client tries again, which changes nothing in memory any more and still has to reach the disk.
	_, id := register(t, r.URL(), "a", order(fieldID))
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, again := register(t, startRegistry(t, dir).URL(), "a", order(fieldID)); again != id {
		t.Errorf("id is %v, was %v", again, id)
	}
}

func TestRegistryRefusesADamagedFile(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(string) string{
		"half of it":  func(s string) string { return s[:len(s)/2] },
		"another id":  func(s string) string { return strings.Replace(s, `"id": 2`, `"id": 7`, 1) },
		"later years": func(s string) string { return strings.Replace(s, `"version": 1`, `"version": 9`, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r := startRegistry(t, dir)
			fill(t, r.URL())
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "registry.json")
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(damage(string(text))), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := StartRegistry(t.Context(), RegistryConfig{DataDir: dir}); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want an error that names %s", err, path)
			}
		})
	}
}

func TestRegistryRefusesASecondUserOfItsDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	startRegistry(t, dir)
	if _, err := StartRegistry(t.Context(), RegistryConfig{DataDir: dir}); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v, want %v", err, ErrInUse)
	}
}
