package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// layers are the packages from the contract up to the program. A package
// imports packages of lower layers, and of its own layer its sub-packages. So
// stages never import one another: they meet in Kafka, in Postgres, or over HTTP.
var layers = []struct{ name, packages string }{
	{"contract", `schemas`},
	{"adapter", `internal/(pg|kafka|ops)`},
	{"pattern", `consumers|outbox-relay/outbox|internal/lag`},
	{"stage", `producers/\w+|outbox-relay(/source)?|consumers/\w+|console`},
	{"environment", `internal/(embedded|mailsink)`},
	{"test environment", `internal/testenv`},
	{"whole", `|e2e(/\w+)*|consumers/internal/servicetest`},
}

func TestImportsGoDownOnly(t *testing.T) {
	t.Parallel()
	const format = `{{with .Module}}{{if .Main}}{{$.ImportPath}} {{join $.Imports " "}}{{end}}{{end}}`
	for line := range strings.Lines(output(t, "go", "list", "-deps", "-f", format, "./...")) {
		packages := ours(strings.Fields(line))
		if len(packages) == 0 {
			continue
		}
		from := packages[0]
		above := layerOf(t, from)
		for _, to := range packages[1:] {
			below := layerOf(t, to)
			mayUse := below < above || below == above && strings.HasPrefix(to, from+"/") || layers[above].name == "whole"
			if !mayUse {
				t.Errorf("%s (%s) imports %s (%s)", from, layers[above].name, to, layers[below].name)
			}
		}
	}
}

// ours keeps the packages of this module, by their path in it. Commands that
// make files of their parent package are that package.
func ours(packages []string) []string {
	var kept []string
	for _, p := range packages {
		if path, ok := strings.CutPrefix(p+"/", "orderflow/"); ok {
			path = strings.TrimSuffix(path, "/")
			kept = append(kept, strings.TrimSuffix(strings.TrimSuffix(path, "/gen"), "/mksample"))
		}
	}
	return kept
}

func layerOf(t *testing.T, path string) int {
	t.Helper()
	for i, l := range layers {
		if regexp.MustCompile(`^(` + l.packages + `)$`).MatchString(path) {
			return i
		}
	}
	t.Fatalf("package %q has no layer: name one in this test and in docs/design.md", path)
	return -1
}

// A service joins by a folder under consumers/ and a line in main.go's table.
// The loyalty service is the example, so nothing else may know it.
func TestServiceJoinsByOneFolderAndOneLine(t *testing.T) {
	t.Parallel()
	const service = "loyalty"
	named := map[string]int{}
	eachFile(t, func(path string) {
		switch {
		case strings.HasPrefix(path, "consumers/"+service+"/"),
			strings.HasPrefix(path, "helm/") && filepath.Base(path) == "values.yaml", // its entry there
			strings.HasPrefix(path, "e2e/") && strings.HasSuffix(path, "_test.go"),   // stories choose whom they start
			filepath.Ext(path) == ".md", path == "imports_test.go":
			return
		}
		lines := bufio.NewScanner(bytes.NewReader(read(t, path)))
		lines.Buffer(nil, 16<<20) // a line of generated text may be long
		for lines.Scan() {
			if strings.Contains(strings.ToLower(lines.Text()), service) {
				named[path]++
			}
		}
		if err := lines.Err(); err != nil {
			t.Errorf("read %s: %v", path, err)
		}
	})
	if named["main.go"] != 2 || len(named) != 1 {
		t.Errorf("lines that name %s: %v, want its import and its line in the table of main.go, and no others", service, named)
	}
}

// Functions are held to 70 lines by the linter; files are held here.
func TestFilesAreOfOneNoun(t *testing.T) {
	t.Parallel()
	const most, mostTest = 400, 600
	eachFile(t, func(path string) {
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, ".gen.go") {
			return
		}
		limit := most
		if strings.HasSuffix(path, "_test.go") {
			limit = mostTest
		}
		if n := bytes.Count(read(t, path), []byte("\n")); n > limit {
			t.Errorf("%s has %d lines, at most %d: is it two nouns?", path, n, limit)
		}
	})
}

// eachFile visits the files that belong to the project.
func eachFile(t *testing.T, visit func(path string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("walk %s: %w", path, err)
		}
		if d.IsDir() && (path == "bin" || path != "." && strings.HasPrefix(d.Name(), ".")) {
			return fs.SkipDir
		}
		if d.Type().IsRegular() {
			visit(filepath.ToSlash(path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("run %s %v: %v", name, args, err)
	}
	return string(out)
}
