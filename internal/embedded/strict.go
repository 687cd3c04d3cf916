package embedded

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/sr"
)

// Error codes of the protocol, as real registries use them.
const (
	codeIncompatible    = 409
	codeSubjectNotFound = 40401
	codeVersionNotFound = 40402
	codeInvalidSchema   = 42201
	codeInvalidVersion  = 42202
	codeStore           = 50001
)

// refusal is an error answer of the protocol.
type refusal struct {
	status, code int
	message      string
}

func (r *refusal) answer() answer {
	body, err := json.Marshal(map[string]any{"error_code": r.code, "message": r.message})
	if err != nil { // a map of a number and a string always encodes
		body = []byte("{}")
	}
	return answer{r.status, body}
}

func (r *refusal) send(w http.ResponseWriter) { r.answer().send(w) }

// checkRegistration says what a real registry has against a new version of a subject. The caller holds writing.
func (r *Registry) checkRegistration(req *http.Request, body []byte) *refusal {
	schema, no := readSchema(body)
	if no != nil {
		return no
	}
	parsed, err := r.parse(req.Context(), schema)
	if err != nil {
		return &refusal{http.StatusUnprocessableEntity, codeInvalidSchema, "Invalid schema: " + err.Error()}
	}
	subject := req.PathValue("subject")
	if r.ask(req.Context(), http.MethodPost, "/subjects/"+url.PathEscape(subject), body).status == http.StatusOK {
		return nil // it is there already, whatever the level says by now
	}
	level := r.level(req.Context(), subject)
	problems, err := r.compare(req.Context(), parsed, subject, level, r.versionsFor(req.Context(), subject, level))
	if err != nil {
		return &refusal{http.StatusInternalServerError, codeStore, err.Error()}
	}
	if len(problems) > 0 {
		return &refusal{http.StatusConflict, codeIncompatible, fmt.Sprintf(
			"Schema being registered is incompatible with an earlier schema for subject %q under %s: %v", subject, level, problems)}
	}
	return nil
}

// answerCompatibility tells whether a schema could be registered: against the one version that is named, or, where
// none is named, against all that the subject's level asks for.
func (r *Registry) answerCompatibility(w http.ResponseWriter, req *http.Request) {
	var body json.RawMessage
	if err := json.NewDecoder(http.MaxBytesReader(w, req.Body, biggestRequest)).Decode(&body); err != nil {
		(&refusal{http.StatusUnprocessableEntity, codeInvalidSchema, "read request: " + err.Error()}).send(w)
		return
	}
	schema, no := readSchema(body)
	if no != nil {
		no.send(w)
		return
	}
	parsed, err := r.parse(req.Context(), schema)
	if err != nil {
		(&refusal{http.StatusUnprocessableEntity, codeInvalidSchema, "Invalid schema: " + err.Error()}).send(w)
		return
	}
	subject := req.PathValue("subject")
	level := r.level(req.Context(), subject)
	versions, no := r.versionsAsked(req.Context(), subject, req.PathValue("version"), level)
	if no != nil {
		no.send(w)
		return
	}
	problems, err := r.compare(req.Context(), parsed, subject, level, versions)
	if err != nil {
		(&refusal{http.StatusInternalServerError, codeStore, err.Error()}).send(w)
		return
	}
	verdict := map[string]any{"is_compatible": len(problems) == 0}
	if req.URL.Query().Get("verbose") == "true" {
		verdict["messages"] = append([]string{}, problems...)
	}
	text, err := json.Marshal(verdict)
	if err != nil {
		(&refusal{http.StatusInternalServerError, codeStore, err.Error()}).send(w)
		return
	}
	answer{http.StatusOK, text}.send(w)
}

func readSchema(body []byte) (sr.Schema, *refusal) {
	var schema sr.Schema
	if err := json.Unmarshal(body, &schema); err != nil {
		return schema, &refusal{http.StatusUnprocessableEntity, codeInvalidSchema, "read schema: " + err.Error()}
	}
	if schema.Type != sr.TypeAvro {
		return schema, &refusal{
			http.StatusUnprocessableEntity, codeInvalidSchema,
			"this registry holds Avro only, not " + schema.Type.String(),
		}
	}
	return schema, nil
}

// parse reads a schema and first, depth first, all that it refers to.
func (r *Registry) parse(ctx context.Context, schema sr.Schema) (*avro.Schema, error) {
	return r.parseInto(ctx, new(avro.SchemaCache), schema, 0)
}

func (r *Registry) parseInto(ctx context.Context, cache *avro.SchemaCache, schema sr.Schema, depth int) (*avro.Schema, error) {
	const deepest = 32
	if depth > deepest {
		return nil, fmt.Errorf("references go deeper than %d", deepest)
	}
	for _, ref := range schema.References {
		target, ok := r.fake.GetSchema(ref.Subject, ref.Version)
		if !ok {
			return nil, fmt.Errorf("reference %q: subject %q has no version %d", ref.Name, ref.Subject, ref.Version)
		}
		if _, err := r.parseInto(ctx, cache, target.Schema, depth+1); err != nil {
			return nil, fmt.Errorf("reference %q: %w", ref.Name, err)
		}
	}
	return cache.Parse(schema.Schema)
}

// level is the subject's own, or else the global one.
func (r *Registry) level(ctx context.Context, subject string) sr.CompatibilityLevel {
	got := r.ask(ctx, http.MethodGet, "/config/"+url.PathEscape(subject), nil)
	var body struct {
		Level sr.CompatibilityLevel `json:"compatibilityLevel"`
	}
	if got.status != http.StatusOK || json.Unmarshal(got.body, &body) != nil {
		return sr.CompatFullTransitive // cannot happen with the fake inside; if it does, the strictest
	}
	return body.Level
}

// versions lists the live versions of a subject, oldest first.
func (r *Registry) versions(ctx context.Context, subject string) []int {
	got := r.ask(ctx, http.MethodGet, "/subjects/"+url.PathEscape(subject)+"/versions", nil)
	var versions []int
	if got.status != http.StatusOK || json.Unmarshal(got.body, &versions) != nil {
		return nil
	}
	return versions
}

// versionsFor is what a level compares a new version with: all for the transitive ones, the latest for the others.
func (r *Registry) versionsFor(ctx context.Context, subject string, level sr.CompatibilityLevel) []int {
	versions := r.versions(ctx, subject)
	switch level {
	case sr.CompatNone:
		return nil
	case sr.CompatBackwardTransitive, sr.CompatForwardTransitive, sr.CompatFullTransitive:
		return versions
	default:
		return versions[max(0, len(versions)-1):]
	}
}

func (r *Registry) versionsAsked(ctx context.Context, subject, asked string, level sr.CompatibilityLevel) ([]int, *refusal) {
	versions := r.versions(ctx, subject)
	switch asked {
	case "":
		return r.versionsFor(ctx, subject, level), nil
	case "latest", "-1":
		return versions[max(0, len(versions)-1):], nil // of a missing subject: nothing to compare with
	}
	number, err := strconv.Atoi(asked)
	if err != nil || number < 1 {
		return nil, &refusal{http.StatusUnprocessableEntity, codeInvalidVersion, fmt.Sprintf("The specified version %q is not a valid version id", asked)}
	}
	for _, v := range versions {
		if v == number {
			return []int{v}, nil
		}
	}
	if len(versions) == 0 {
		return nil, &refusal{http.StatusNotFound, codeSubjectNotFound, fmt.Sprintf("Subject %q not found.", subject)}
	}
	return nil, &refusal{http.StatusNotFound, codeVersionNotFound, fmt.Sprintf("Version %d not found.", number)}
}

// compare returns what keeps schema from standing beside the versions: each problem names the version, the direction
// and the path.
func (r *Registry) compare(ctx context.Context, schema *avro.Schema, subject string, level sr.CompatibilityLevel, versions []int) ([]string, error) {
	backward, forward := directions(level)
	var problems []string
	for _, v := range versions {
		stored, ok := r.fake.GetSchema(subject, v)
		if !ok {
			return nil, fmt.Errorf("read version %d of %q: it is gone", v, subject)
		}
		old, err := r.parse(ctx, stored.Schema)
		if err != nil {
			return nil, fmt.Errorf("parse version %d of %q: %w", v, subject, err)
		}
		if backward {
			if err := avro.CheckCompatibility(old, schema); err != nil {
				problems = append(problems, fmt.Sprintf("the new schema cannot read version %d: %v", v, err))
			}
		}
		if forward {
			if err := avro.CheckCompatibility(schema, old); err != nil {
				problems = append(problems, fmt.Sprintf("version %d cannot read the new schema: %v", v, err))
			}
		}
	}
	return problems, nil
}

// directions tells which of the two reads a level asks for: the new schema reading old data, the old reading new.
func directions(level sr.CompatibilityLevel) (backward, forward bool) {
	switch level {
	case sr.CompatBackward, sr.CompatBackwardTransitive:
		return true, false
	case sr.CompatForward, sr.CompatForwardTransitive:
		return false, true
	case sr.CompatFull, sr.CompatFullTransitive:
		return true, true
	}
	return false, false
}

// listVersions knows no subject that has only a level, as real registries do not.
func (r *Registry) listVersions(w http.ResponseWriter, req *http.Request) {
	got := r.ask(req.Context(), http.MethodGet, req.URL.RequestURI(), nil)
	var versions []int
	if got.status == http.StatusOK && json.Unmarshal(got.body, &versions) == nil && len(versions) == 0 {
		(&refusal{http.StatusNotFound, codeSubjectNotFound, fmt.Sprintf("Subject %q not found.", req.PathValue("subject"))}).send(w)
		return
	}
	got.send(w)
}

// listSubjects leaves out the subjects that have only a level.
func (r *Registry) listSubjects(w http.ResponseWriter, req *http.Request) {
	got := r.ask(req.Context(), http.MethodGet, req.URL.RequestURI(), nil)
	var all []string
	if got.status != http.StatusOK || json.Unmarshal(got.body, &all) != nil {
		got.send(w)
		return
	}
	deleted := ""
	if q := req.URL.Query(); q.Get("deleted") == "true" || q.Get("deletedOnly") == "true" {
		deleted = "?deleted=true"
	}
	filled := make([]string, 0, len(all))
	for _, subject := range all {
		var versions []int
		has := r.ask(req.Context(), http.MethodGet, "/subjects/"+url.PathEscape(subject)+"/versions"+deleted, nil)
		if has.status == http.StatusOK && json.Unmarshal(has.body, &versions) == nil && len(versions) > 0 {
			filled = append(filled, subject)
		}
	}
	text, err := json.Marshal(filled)
	if err != nil {
		(&refusal{http.StatusInternalServerError, codeStore, err.Error()}).send(w)
		return
	}
	answer{http.StatusOK, text}.send(w)
}
