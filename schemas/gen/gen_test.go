package main

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestGeneratedTypesFollowFromTheContract(t *testing.T) {
	t.Parallel()
	want, err := Generate(os.DirFS("../avro"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../events.gen.go")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Errorf("events.gen.go is stale, run go generate ./schemas (-generated from avro, +checked in):\n%s", diff)
	}
}

const (
	metaType = `{"type":"record","name":"EventMeta","namespace":"orderflow","doc":"d","fields":[` +
		`{"name":"event_id","type":"string","doc":"d"}]}`
	metaField = `{"name":"meta","type":` + metaType + `,"doc":"d"}`
)

// event returns a minimal file of the event X with more fields and with its
// head replaced where head is not empty.
func event(fields ...string) string {
	return eventWith(`"name":"X","namespace":"orderflow.orders","doc":"d","topic":"t","aggregate":"order"`,
		append([]string{metaField}, fields...)...)
}

func eventWith(head string, fields ...string) string {
	return `{"type":"record",` + head + `,"fields":[` + strings.Join(fields, ",") + `]}`
}

func TestGeneratorHoldsTheContractToItsRules(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, want string }{
		"doc on records":    {eventWith(`"name":"X","namespace":"orderflow.orders","topic":"t","aggregate":"order"`, metaField), "doc is missing"},
		"doc on fields":     {event(`{"name":"a","type":"string"}`), "X.a: doc is missing"},
		"type on fields":    {event(`{"name":"a","doc":"d"}`), "type is missing"},
		"enum default":      {event(`{"name":"a","type":{"type":"enum","name":"E","doc":"d","symbols":["A"]},"doc":"d"}`), "E: an enum needs a default"},
		"enum default true": {event(`{"name":"a","type":{"type":"enum","name":"E","doc":"d","symbols":["A"],"default":"B"},"doc":"d"}`), "E: an enum needs a default"},
		"null default":      {event(`{"name":"a","type":["null","string"],"doc":"d"}`), "needs the default null"},
		"no double":         {event(`{"name":"a","type":"double","doc":"d"}`), "type orderflow.orders.double: neither allowed"},
		"no bytes":          {event(`{"name":"a","type":{"type":"bytes","logicalType":"decimal"},"doc":"d"}`), `"bytes" is not allowed`},
		"only micros":       {event(`{"name":"a","type":{"type":"long","logicalType":"timestamp-millis"},"doc":"d"}`), "only timestamp-micros"},
		"no wide unions":    {event(`{"name":"a","type":["null","string","int"],"doc":"d"}`), "only [null, T]"},
		"no null arrays":    {event(`{"name":"a","type":["null",{"type":"array","items":"int"}],"default":null,"doc":"d"}`), "leave it empty"},
		"no map":            {event(`{"name":"a","type":{"type":"map","values":"int"},"doc":"d"}`), `"map" is not allowed`},
		"known attributes":  {event(`{"name":"a","type":"string","dok":"d"}`), `unknown field "dok"`},
		"defined once":      {event(`{"name":"a","type":` + metaType + `,"doc":"d"}`), "orderflow.EventMeta is defined twice"},
		"file name":         {eventWith(`"name":"Y","namespace":"orderflow.orders","doc":"d","topic":"t","aggregate":"order"`, metaField), "named after its event"},
		"owner":             {eventWith(`"name":"X","namespace":"orderflow","doc":"d","topic":"t","aggregate":"order"`, metaField), "names no owner"},
		"topic":             {eventWith(`"name":"X","namespace":"orderflow.orders","doc":"d","aggregate":"order"`, metaField), "topic or aggregate"},
		"envelope first":    {eventWith(`"name":"X","namespace":"orderflow.orders","doc":"d","topic":"t","aggregate":"order"`, `{"name":"a","type":"string","doc":"d"}`), "does not begin with meta"},
		"key is a field":    {eventWith(`"name":"X","namespace":"orderflow.orders","doc":"d","topic":"t","aggregate":"order","key":"sku"`, metaField), `key "sku"`},
		"a record":          {`"string"`, "is not a record"},
		"empty":             {``, "is empty"},
		"broken":            {`{"type":`, "unexpected end"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Generate(fstest.MapFS{"X.avsc": {Data: []byte(c.file)}})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestSharedRecordsAreEqualInEveryFile(t *testing.T) {
	t.Parallel()
	other := strings.NewReplacer(`"name":"X"`, `"name":"Y"`, `"event_id"`, `"id"`).Replace(event())
	_, err := Generate(fstest.MapFS{"X.avsc": {Data: []byte(event())}, "Y.avsc": {Data: []byte(other)}})
	if want := "orderflow.EventMeta differs from its definition in another file"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got error %v, want one with %q", err, want)
	}
}

func TestOneShortNameMeansOneType(t *testing.T) {
	t.Parallel()
	part := func(namespace string) string {
		return `{"name":"a","type":{"type":"record","name":"Part","namespace":"` + namespace + `","doc":"d","fields":[]},"doc":"d"}`
	}
	other := strings.Replace(event(part("orderflow.b")), `"name":"X"`, `"name":"Y"`, 1)
	_, err := Generate(fstest.MapFS{"X.avsc": {Data: []byte(event(part("orderflow.a")))}, "Y.avsc": {Data: []byte(other)}})
	if want := "orderflow.a.Part and orderflow.b.Part share a name"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got error %v, want one with %q", err, want)
	}
}

func TestRegisteredTextIgnoresHowAFileIsLaidOut(t *testing.T) {
	t.Parallel()
	const array = `{"type":"array","items":"string"}`
	file := event(
		`{"name":"a","type":["null","string"],"default":null,"doc":"less < more"}`,
		`{"name":"b","type":`+array+`,"default":[],"doc":"d"}`,
	)
	spread := strings.NewReplacer(
		`"name":"a","type":["null","string"],"default":null`, "\n\t\"default\" : null,\n \"type\": [ \"null\" , \"string\" ], \"name\":\"a\"",
		`"default":[]`, `"default" : [ ]`,
	).Replace(file)
	compact, err := Generate(fstest.MapFS{"X.avsc": {Data: []byte(file)}})
	if err != nil {
		t.Fatal(err)
	}
	loose, err := Generate(fstest.MapFS{"X.avsc": {Data: []byte(spread)}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(compact), string(loose)); diff != "" || spread == file {
		t.Errorf("layout changed the registered text:\n%s", diff)
	}
	if want := "`" + file + "`"; !strings.Contains(string(compact), want) {
		t.Errorf("the registered text is not the file's, which was compact already:\n%s", compact)
	}
}

func FuzzGenerate(f *testing.F) {
	f.Add(event(`{"name":"a","type":["null",{"type":"array","items":"string"}],"default":null,"doc":"d"}`))
	placed, err := os.ReadFile("../avro/OrderPlaced.avsc")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(placed))
	f.Fuzz(func(_ *testing.T, file string) {
		_, _ = Generate(fstest.MapFS{"X.avsc": {Data: []byte(file)}}) // an error or not, never a panic
	})
}
