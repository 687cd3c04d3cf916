package schemas_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/twmb/avro"

	"orderflow/internal/embedded"
	"orderflow/internal/testenv"
	"orderflow/schemas"
)

// The contract test holds the client to one behaviour, whatever registry is
// behind it. They differ in the cases below; see the comment on Registry.
func TestRegistryContract(t *testing.T) {
	t.Parallel()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		r, err := embedded.StartRegistry(t.Context(), embedded.RegistryConfig{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		contract(t, r.URL())
	})
	t.Run("real", func(t *testing.T) {
		t.Parallel()
		url := os.Getenv("ORDERFLOW_TEST_REGISTRY")
		if url == "" {
			t.Skip("ORDERFLOW_TEST_REGISTRY names no real registry to test against")
		}
		if !strings.HasPrefix(url, "http") {
			url = testenv.Registry(t)
		}
		contract(t, url)
	})
}

func contract(t *testing.T, url string) {
	for name, test := range map[string]func(*testing.T, string){
		"pings":                        pings,
		"the same schema keeps its id": sameSchemaKeepsItsID,
		"a slash at the end of the address is fine":  slashAtTheEnd,
		"two subjects may hold one schema":           twoSubjectsOneSchema,
		"names need no alphabet":                     oddSubjects,
		"a twin is read as well as its sibling":      twins,
		"versions come oldest first":                 versionsOldestFirst,
		"a subject without a version is none":        subjectsWithoutVersions,
		"an id nobody gave is unknown":               unknownID,
		"invalid Avro is refused":                    invalidRefused,
		"every version counts, not only the latest":  transitive,
		"the level is set before the first version":  levelSetFirst,
		"a lax level is put right":                   laxLevel,
		"additions with defaults are taken":          additions,
		"many may register one schema at once":       registeringAtOnce,
		"registering all twice changes nothing":      registeringAllTwice,
		"the check names version, path and level":    checkNamesThePath,
		"an event written anywhere is read anywhere": writtenAndRead,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, url)
		})
	}
}

func newRegistry(t *testing.T, url string, opts ...schemas.RegistryOption) *schemas.Registry {
	t.Helper()
	r, err := schemas.NewRegistry(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// newSubject returns a subject nobody else uses, since a real registry is
// shared and forgets nothing.
func newSubject() string { return "test-" + uuid.NewString() }

// thing is a schema no other test has: name makes it its own.
func thing(name string, fields ...string) string {
	return `{"type":"record","name":"Thing","namespace":"test.t` + strings.ReplaceAll(name, "-", "") +
		`","fields":[{"name":"a","type":"string"}` + strings.Join(append([]string{""}, fields...), ",") + `]}`
}

func mustID(t *testing.T, r *schemas.Registry, subject, text string) int {
	t.Helper()
	id, err := r.ID(t.Context(), subject, text)
	if err != nil {
		t.Fatal(err)
	}
	if id <= 0 {
		t.Fatalf("got id %d", id)
	}
	return id
}

// sameSchema compares two texts without what registries may take from a twin.
func sameSchema(t *testing.T, a, b string) bool {
	t.Helper()
	parsedA, err := avro.Parse(a)
	if err != nil {
		t.Fatal(err)
	}
	parsedB, err := avro.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(parsedA.Canonical()) == string(parsedB.Canonical())
}

func pings(t *testing.T, url string) {
	if err := newRegistry(t, url).Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func sameSchemaKeepsItsID(t *testing.T, url string) {
	subject, text := newSubject(), thing(uuid.NewString())
	first := newRegistry(t, url)
	id := mustID(t, first, subject, text)
	if again := mustID(t, first, subject, text); again != id {
		t.Errorf("got id %d again, want %d", again, id)
	}
	other := newRegistry(t, url)
	if again := mustID(t, other, subject, text); again != id {
		t.Errorf("another client got id %d, want %d", again, id)
	}
	got, err := other.Text(t.Context(), id)
	if err != nil || !sameSchema(t, got, text) {
		t.Errorf("got %s, %v, want %s", got, err, text)
	}
}

func slashAtTheEnd(t *testing.T, url string) {
	mustID(t, newRegistry(t, url+"/"), newSubject(), thing(uuid.NewString()))
}

func twoSubjectsOneSchema(t *testing.T, url string) {
	r, text := newRegistry(t, url), thing(uuid.NewString())
	for range 2 {
		id := mustID(t, r, newSubject(), text)
		if got, err := newRegistry(t, url).Text(t.Context(), id); err != nil || !sameSchema(t, got, text) {
			t.Errorf("got %s, %v, want %s", got, err, text)
		}
	}
}

func oddSubjects(t *testing.T, url string) {
	r := newRegistry(t, url)
	for _, odd := range []string{"a/b", "50%", "a b", "größe", "a?b#c"} {
		subject := newSubject() + odd
		id := mustID(t, r, subject, thing(uuid.NewString()))
		versions, err := r.Versions(t.Context(), subject)
		if err != nil || len(versions) != 1 || versions[0].ID != id {
			t.Errorf("%s: got %v, %v, want one version with id %d", odd, versions, err, id)
		}
	}
}

// A text that differs where no reader looks may get a version of its own or
// the id and the text of its twin; either way it is read as the same schema.
func twins(t *testing.T, url string) {
	r, subject, name := newRegistry(t, url), newSubject(), uuid.NewString()
	enum := func(tail string) string {
		return thing(name, `{"name":"e","type":{"type":"enum","name":"E","symbols":["X","Y"]`+tail+`},"default":"X"}`)
	}
	first := enum("")
	mustID(t, r, subject, first)
	for what, text := range map[string]string{
		"white space":  strings.ReplaceAll(first, ",", ",\n  "),
		"doc":          strings.Replace(first, `"fields"`, `"doc":"a thing","fields"`, 1),
		"alias":        strings.Replace(first, `"fields"`, `"aliases":["Thingy"],"fields"`, 1),
		"enum default": enum(`,"default":"X"`),
	} {
		id := mustID(t, r, subject, text)
		if got, err := newRegistry(t, url).Text(t.Context(), id); err != nil || !sameSchema(t, got, text) {
			t.Errorf("%s: got %s, %v, want %s", what, got, err, text)
		}
	}
}

func versionsOldestFirst(t *testing.T, url string) {
	r, subject, name := newRegistry(t, url), newSubject(), uuid.NewString()
	texts := []string{
		thing(name),
		thing(name, `{"name":"b","type":["null","string"],"default":null}`),
		thing(name, `{"name":"b","type":["null","string"],"default":null}`, `{"name":"c","type":"int","default":7}`),
	}
	for _, text := range texts {
		mustID(t, r, subject, text)
	}
	got, err := r.Versions(t.Context(), subject)
	if err != nil || len(got) != len(texts) {
		t.Fatalf("got %d versions, %v, want %d", len(got), err, len(texts))
	}
	for i, v := range got {
		if v.Number != i+1 || v.ID != mustID(t, r, subject, texts[i]) || !sameSchema(t, v.Text, texts[i]) {
			t.Errorf("got %+v in place %d", v, i)
		}
	}
}

func subjectsWithoutVersions(t *testing.T, url string) {
	r, levelOnly := newRegistry(t, url), newSubject()
	setLevel(t, url, levelOnly, "FULL")
	for _, subject := range []string{newSubject(), levelOnly} {
		if got, err := r.Versions(t.Context(), subject); err != nil || len(got) > 0 {
			t.Errorf("%s: got %v, %v, want none", subject, got, err)
		}
	}
}

func unknownID(t *testing.T, url string) {
	_, err := newRegistry(t, url).Text(t.Context(), 2147483000)
	if !errors.Is(err, schemas.ErrUnknownSchemaID) || schemas.Unavailable(err) {
		t.Errorf("got error %v, want ErrUnknownSchemaID", err)
	}
}

func invalidRefused(t *testing.T, url string) {
	r := newRegistry(t, url)
	for _, text := range []string{`{"type":"record","name":"X"}`, `{"type":"no such type"}`} {
		if _, err := r.ID(t.Context(), newSubject(), text); !schemas.Refused(err) || schemas.Unavailable(err) {
			t.Errorf("%s: got error %v, want a refusal", text, err)
		}
	}
}

// The third text goes with the latest version and breaks the first.
func transitive(t *testing.T, url string) {
	r, subject, name := newRegistry(t, url), newSubject(), uuid.NewString()
	mustID(t, r, subject, thing(name))
	mustID(t, r, subject, thing(name, `{"name":"b","type":"string","default":""}`))
	_, err := r.ID(t.Context(), subject, thing(name, `{"name":"b","type":"string"}`))
	if !schemas.Refused(err) || schemas.Unavailable(err) {
		t.Errorf("got error %v, want a refusal", err)
	}
	if got, err := r.Versions(t.Context(), subject); err != nil || len(got) != 2 {
		t.Errorf("got %v, %v, want the two versions before", got, err)
	}
}

func levelSetFirst(t *testing.T, url string) {
	subject := newSubject()
	mustID(t, newRegistry(t, url), subject, thing(uuid.NewString()))
	if got := getLevel(t, url, subject); !strings.Contains(got, `"FULL_TRANSITIVE"`) {
		t.Errorf("the registry says %s", got)
	}
}

func laxLevel(t *testing.T, url string) {
	r, subject, name := newRegistry(t, url), newSubject(), uuid.NewString()
	register(t, url, subject, thing(name))
	setLevel(t, url, subject, "NONE")
	if _, err := r.ID(t.Context(), subject, thing(name, `{"name":"b","type":"string"}`)); !schemas.Refused(err) {
		t.Errorf("got error %v, want a refusal", err)
	}
}

func additions(t *testing.T, url string) {
	r, subject, name := newRegistry(t, url), newSubject(), uuid.NewString()
	enum := func(symbols string) string {
		return `{"name":"e","type":{"type":"enum","name":"E","symbols":[` + symbols + `],"default":"UNKNOWN"},"default":"UNKNOWN"}`
	}
	for _, text := range []string{
		thing(name, enum(`"UNKNOWN","X"`)),
		thing(name, enum(`"UNKNOWN","X","Y"`)),
		thing(name, enum(`"UNKNOWN","X","Y"`), `{"name":"at","type":["null",{"type":"long","logicalType":"timestamp-micros"}],"default":null}`),
		thing(name, enum(`"UNKNOWN","X","Y"`), `{"name":"id","type":{"type":"string","logicalType":"uuid"},"default":""}`),
	} {
		mustID(t, r, subject, text)
	}
}

func registeringAtOnce(t *testing.T, url string) {
	subject, text := newSubject(), thing(uuid.NewString())
	var mu sync.Mutex
	ids := map[int]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			r, err := schemas.NewRegistry(url)
			if err != nil {
				t.Error(err)
				return
			}
			id, err := r.ID(t.Context(), subject, text)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			ids[id] = true
		})
	}
	wg.Wait()
	if len(ids) != 1 {
		t.Errorf("got ids %v, want one", ids)
	}
}

func registeringAllTwice(t *testing.T, url string) {
	first, err := schemas.RegisterAll(t.Context(), newRegistry(t, url))
	if err != nil {
		t.Fatal(err)
	}
	again, err := schemas.RegisterAll(t.Context(), newRegistry(t, url))
	if err != nil {
		t.Fatal(err)
	}
	if len(first) != len(schemas.All()) || len(again) != len(first) {
		t.Fatalf("registered %d, then %d of %d", len(first), len(again), len(schemas.All()))
	}
	for i, reg := range again {
		if reg.New || reg.ID != first[i].ID || reg.Version != first[i].Version || reg.Version < 1 {
			t.Errorf("first %v, then %v", first[i], reg)
		}
	}
	report, err := schemas.CheckRegistry(t.Context(), newRegistry(t, url))
	if err != nil || len(report.Problems) > 0 || report.Compared < len(first) {
		t.Errorf("got %v, %v", report, err)
	}
}

// checkNamesThePath leaves a version behind that today's schema cannot read,
// so it works on a subject that no other test registers.
func checkNamesThePath(t *testing.T, url string) {
	if os.Getenv("ORDERFLOW_TEST_REGISTRY") != "" && !strings.HasPrefix(url, "http://127.0.0.1") {
		t.Skip("this would leave an incompatible version in a registry that is not ours")
	}
	// A registry of its own: the other cases register the catalogue in url.
	r, err := embedded.StartRegistry(t.Context(), embedded.RegistryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	placed := (*schemas.OrderPlaced)(nil).EventSchema()
	setLevel(t, r.URL(), placed.Subject, "NONE")
	old := strings.Replace(placed.Text, `{"name":"quantity","type":"int"`, `{"name":"quantity","type":"string"`, 1)
	register(t, r.URL(), placed.Subject, old)

	report, err := schemas.CheckRegistry(t.Context(), newRegistry(t, r.URL()))
	if err != nil {
		t.Fatal(err)
	}
	want := "orderflow.orders.OrderPlaced, against the registry: the subject is held to \"NONE\" instead of FULL_TRANSITIVE; registering sets it\n" +
		"orderflow.orders.OrderPlaced at lines.items.quantity, against registry version 1: today's cannot read the older: incompatible types\n" +
		"orderflow.orders.OrderPlaced at lines.items.quantity, against registry version 1: the older cannot read today's: incompatible types\n" +
		"1 older versions compared, 3 problems\n"
	if diff := cmp.Diff(want, report.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	done, err := schemas.RegisterAll(t.Context(), newRegistry(t, r.URL()))
	if !schemas.Refused(err) || !strings.Contains(err.Error(), placed.Subject) {
		t.Errorf("got error %v, want a refusal that names %s", err, placed.Subject)
	}
	if got, want := len(done), len(schemas.All())-1; got != want {
		t.Errorf("registered %d of the others, want %d", got, want)
	}
}

func writtenAndRead(t *testing.T, url string) {
	e := &schemas.ShipmentTracked{Meta: schemas.EventMeta{Flow: schemas.FlowUnknown}, Code: "HUB"}
	s := e.EventSchema()
	framed, err := s.AppendFramed(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	schemas.PutSchemaID(framed, mustID(t, newRegistry(t, url), s.Subject, s.Text))
	got, err := schemas.NewDecoder(newRegistry(t, url)).Decode(t.Context(), framed, s)
	if err != nil || got.(*schemas.ShipmentTracked).Code != "HUB" {
		t.Errorf("got %v, %v", got, err)
	}
}

func setLevel(t *testing.T, url, subject, level string) {
	t.Helper()
	rawCall(t, http.MethodPut, url+"/config/"+subject, `{"compatibility":"`+level+`"}`)
}

func getLevel(t *testing.T, url, subject string) string {
	t.Helper()
	return rawCall(t, http.MethodGet, url+"/config/"+subject, "")
}

func register(t *testing.T, url, subject, text string) {
	t.Helper()
	rawCall(t, http.MethodPost, url+"/subjects/"+subject+"/versions", fmt.Sprintf(`{"schema":%q}`, text))
}

// rawCall arranges what the client itself never would.
func rawCall(t *testing.T, method, url, body string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/vnd.schemaregistry.v1+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || !slices.Contains([]int{200, 204}, resp.StatusCode) {
		t.Fatalf("%s %s: %s %s %v", method, url, resp.Status, answer, err)
	}
	return string(answer)
}
