package orders

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v5"
)

// contract is openapi.json, to hold answers against. Every answer that a test
// gets through the harness is checked, and TestContract sees to it that each
// declared one occurs.
type contract struct {
	Paths      map[string]map[string]operation `json:"paths"`
	Components struct {
		Responses map[string]response `json:"responses"`
	} `json:"components"`

	mu      sync.Mutex
	schemas *jsonschema.Compiler // protected by mu
	seen    map[string]bool      // protected by mu; "post /v1/orders 201"
}

type operation struct {
	Responses map[string]response `json:"responses"`
}

type response struct {
	Ref     string         `json:"$ref"`
	Headers map[string]any `json:"headers"`
	Content map[string]any `json:"content"`
}

func readContract(t testing.TB) *contract {
	t.Helper()
	c := &contract{seen: map[string]bool{}, schemas: jsonschema.NewCompiler()}
	if err := json.Unmarshal(openAPIDocument, c); err != nil {
		t.Fatal(err)
	}
	c.schemas.Draft = jsonschema.Draft2020
	c.schemas.AssertFormat = true
	if err := c.schemas.AddResource("openapi.json", bytes.NewReader(openAPIDocument)); err != nil {
		t.Fatal(err)
	}
	return c
}

// operationOf finds what a request asked for, "" if nothing in the contract.
func (c *contract) operationOf(method, path string) string {
	path, _, _ = strings.Cut(path, "?")
	for template, methods := range c.Paths {
		if _, known := methods[strings.ToLower(method)]; known && fits(template, path) {
			return template
		}
	}
	return ""
}

func fits(template, path string) bool {
	want, got := strings.Split(template, "/"), strings.Split(path, "/")
	return slices.EqualFunc(want, got, func(w, g string) bool { return w == g || strings.HasPrefix(w, "{") })
}

// check returns how an answer differs from what the contract promises.
func (c *contract) check(method, path string, r reply) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	template := c.operationOf(method, path)
	if template == "" {
		return c.checkBody("#/components/schemas/Problem", r)
	}
	status := fmt.Sprint(r.status)
	where := fmt.Sprintf("#/paths/%s/%s/responses/%s", strings.ReplaceAll(template, "/", "~1"), strings.ToLower(method), status)
	want, declared := c.Paths[template][strings.ToLower(method)].Responses[status]
	if !declared {
		return fmt.Errorf("status %s is not in the contract", status)
	}
	c.seen[strings.ToLower(method)+" "+template+" "+status] = true
	if want.Ref != "" {
		where = want.Ref
		want = c.Components.Responses[want.Ref[strings.LastIndex(want.Ref, "/")+1:]]
	}
	if err := c.checkHeaders(want, r); err != nil {
		return err
	}
	media, _, _ := mime.ParseMediaType(r.header.Get("Content-Type"))
	if len(want.Content) == 0 {
		if r.body != "" {
			return fmt.Errorf("has a body: %s", r.body)
		}
		return nil
	}
	if want.Content[media] == nil {
		return fmt.Errorf("content type %q is not in the contract", media)
	}
	if !strings.HasSuffix(media, "json") {
		return nil
	}
	if media == "application/x-ndjson" {
		return c.checkStream(r)
	}
	return c.checkBody(where+"/content/"+strings.ReplaceAll(media, "/", "~1")+"/schema", r)
}

// mayBeAbsent are the headers that an answer has only sometimes.
var mayBeAbsent = map[string]bool{"Idempotency-Replayed": true, "Link": true, "Retry-After": true}

func (c *contract) checkHeaders(want response, r reply) error {
	for name := range want.Headers {
		if r.header.Get(name) == "" && !mayBeAbsent[name] {
			return fmt.Errorf("header %s is missing", name)
		}
	}
	if r.status == http.StatusServiceUnavailable && r.header.Get("Retry-After") == "" {
		return fmt.Errorf("header Retry-After is missing")
	}
	return nil
}

func (c *contract) checkBody(where string, r reply) error {
	schema, err := c.schemas.Compile("openapi.json" + where)
	if err != nil {
		return fmt.Errorf("compile schema: %w", err)
	}
	var v any
	if err := json.Unmarshal([]byte(r.body), &v); err != nil {
		return err
	}
	return schema.Validate(v)
}

func (c *contract) checkStream(r reply) error {
	lines := strings.Split(strings.TrimSuffix(r.body, "\n"), "\n")
	for i, line := range lines {
		schema := "#/components/schemas/IngestResult"
		if i == len(lines)-1 {
			schema = "#/components/schemas/IngestEnd"
		}
		if err := c.checkBody(schema, reply{body: line}); err != nil {
			return fmt.Errorf("line %d %s: %w", i+1, line, err)
		}
	}
	return nil
}
