package schemas

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/twmb/avro"
)

//go:embed testdata/released
var releasedFiles embed.FS

// Released returns the schemas of every release, one folder per tag; they are
// part of the binary, so that a check needs no registry and no sources.
func Released() (fs.FS, error) { return fs.Sub(releasedFiles, "testdata/released") }

// Report says how today's schemas compare with older versions of themselves.
type Report struct {
	// Compared counts the older versions that were looked at.
	Compared int
	// Problems is empty when every version reads every other.
	Problems []Problem
}

// Problem is one reason why two versions of an event do not go together.
type Problem struct {
	// Event is the event's full name.
	Event string
	// Against names the other version.
	Against string
	// Path leads to the field, dotted; it is empty for the event as a whole.
	Path string
	// Detail says what is wrong there.
	Detail string
}

// String returns the problem as one line.
func (p Problem) String() string {
	where := p.Event
	if p.Path != "" {
		where += " at " + p.Path
	}
	return fmt.Sprintf("%s, against %s: %s", where, p.Against, p.Detail)
}

// String returns the report as lines to print, the problems first.
func (r Report) String() string {
	var b strings.Builder
	for _, p := range r.Problems {
		fmt.Fprintln(&b, p)
	}
	fmt.Fprintf(&b, "%d older versions compared, %d problems\n", r.Compared, len(r.Problems))
	return b.String()
}

// Check compares today's schemas with the released ones, both ways: each must
// read what the other writes. released holds one folder per tag and in it one
// file per schema, as Released returns it.
func Check(released fs.FS) (Report, error) {
	return check(All(), released)
}

func check(today []*Schema, released fs.FS) (Report, error) {
	var report Report
	files, err := fs.Glob(released, "*/*.avsc")
	if err != nil {
		return report, fmt.Errorf("list released schemas: %w", err)
	}
	for _, file := range files {
		text, err := fs.ReadFile(released, file)
		if err != nil {
			return report, fmt.Errorf("read released schema: %w", err)
		}
		old, err := parseVersion(path.Dir(file), string(text))
		if err != nil {
			return report, fmt.Errorf("parse released schema %s: %w", file, err)
		}
		i := slices.IndexFunc(today, func(s *Schema) bool { return s.FullName == old.fullName })
		if i < 0 {
			report.Compared++
			report.add(old.fullName, old.name, "", "the event is no longer in the catalogue")
			continue
		}
		if err := report.compare(today[i], old); err != nil {
			return report, err
		}
	}
	return report, nil
}

// CheckRegistry compares today's schemas with every version that the registry
// has of their subjects, and looks at the level it holds them to. It does not
// rely on the registry's own check, which some answer for the latest version
// only.
func CheckRegistry(ctx context.Context, r *Registry) (Report, error) {
	var report Report
	for _, s := range All() {
		if err := report.checkSubject(ctx, r, s); err != nil {
			return report, fmt.Errorf("check %s: %w", s.FullName, err)
		}
	}
	return report, nil
}

func (r *Report) checkSubject(ctx context.Context, registry *Registry, s *Schema) error {
	versions, err := registry.Versions(ctx, s.Subject)
	if err != nil || len(versions) == 0 {
		return err
	}
	level, err := registry.level(ctx, s.Subject)
	if err != nil {
		return err
	}
	if level != Level {
		r.add(s.FullName, "the registry", "", fmt.Sprintf("the subject is held to %q instead of %s; registering sets it", level, Level))
	}
	for _, v := range versions {
		old, err := parseVersion(fmt.Sprintf("registry version %d", v.Number), v.Text)
		if err != nil {
			return fmt.Errorf("parse version %d: %w", v.Number, err)
		}
		if err := r.compare(s, old); err != nil {
			return err
		}
	}
	return nil
}

// version is an older version of one of the schemas.
type version struct {
	name     string
	fullName string
	topic    string
	schema   *avro.Schema
}

func parseVersion(name, text string) (version, error) {
	schema, err := avro.Parse(text)
	if err != nil {
		return version{}, err
	}
	var head struct{ Topic string }
	if err := json.Unmarshal([]byte(text), &head); err != nil {
		return version{}, err
	}
	root := schema.Root()
	return version{name: name, fullName: fullName(root), topic: head.Topic, schema: schema}, nil
}

func (r *Report) add(event, against, path, detail string) {
	r.Problems = append(r.Problems, Problem{Event: event, Against: against, Path: path, Detail: detail})
}

func (r *Report) compare(current *Schema, old version) error {
	r.Compared++
	schema, err := current.avro()
	if err != nil {
		return fmt.Errorf("check %s: %w", current.FullName, err)
	}
	add := func(path, detail string) { r.add(current.FullName, old.name, path, detail) }
	if old.topic != "" && old.topic != current.Topic {
		add("", fmt.Sprintf("the topic was %s and is %s", old.topic, current.Topic))
	}
	if path, detail, ok := incompatibility(old.schema, schema); ok {
		add(path, "today's cannot read the older: "+detail)
	}
	if path, detail, ok := incompatibility(schema, old.schema); ok {
		add(path, "the older cannot read today's: "+detail)
	}
	compareMeaning(old.schema.Root().ExpandReferences(), schema.Root().ExpandReferences(), "", add)
	return nil
}

func incompatibility(writer, reader *avro.Schema) (path, detail string, found bool) {
	err := avro.CheckCompatibility(writer, reader)
	var c *avro.CompatibilityError
	switch {
	case err == nil:
		return "", "", false
	case errors.As(err, &c):
		return c.Path, c.Detail, true
	default:
		return "", err.Error(), true
	}
}

// compareMeaning reports what Avro's rules let pass although it changes what
// the bytes mean, or what other implementations refuse: the logical type of a
// number, and the namespace of a named type.
func compareMeaning(old, now *avro.SchemaNode, path string, add func(path, detail string)) {
	if old.Type != now.Type {
		return // told by Avro's rules already, or a promotion they allow
	}
	if old.LogicalType != now.LogicalType {
		add(path, fmt.Sprintf("the logical type was %q and is %q", old.LogicalType, now.LogicalType))
	}
	if fullName(old) != fullName(now) {
		add(path, fmt.Sprintf("the name was %s and is %s", fullName(old), fullName(now)))
	}
	for i := range old.Fields {
		for j := range now.Fields {
			if old.Fields[i].Name == now.Fields[j].Name {
				compareMeaning(&old.Fields[i].Type, &now.Fields[j].Type, join(path, old.Fields[i].Name), add)
			}
		}
	}
	if old.Items != nil && now.Items != nil {
		compareMeaning(old.Items, now.Items, path+".items", add)
	}
	if len(old.Branches) == len(now.Branches) {
		for i := range old.Branches {
			compareMeaning(&old.Branches[i], &now.Branches[i], path, add)
		}
	}
}

func fullName(n *avro.SchemaNode) string {
	if n.Namespace == "" || strings.Contains(n.Name, ".") {
		return n.Name
	}
	return n.Namespace + "." + n.Name
}

func join(path, field string) string {
	if path == "" {
		return field
	}
	return path + "." + field
}
