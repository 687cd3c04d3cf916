package embedded

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// findJava returns a java program of at least a version: that of JAVA_HOME, that on the PATH, or the newest that
// Linux distributions and macOS install.
func findJava(ctx context.Context, oldest int) (string, error) {
	var candidates []string
	if home := os.Getenv("JAVA_HOME"); home != "" {
		candidates = append(candidates, filepath.Join(home, "bin", "java"))
	}
	if path, err := exec.LookPath("java"); err == nil {
		candidates = append(candidates, path)
	}
	for _, pattern := range []string{"/usr/lib/jvm/*/bin/java", "/Library/Java/JavaVirtualMachines/*/Contents/Home/bin/java", "/opt/homebrew/opt/openjdk*/bin/java"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return "", fmt.Errorf("look in %s: %w", pattern, err)
		}
		slices.SortFunc(paths, func(a, b string) int { return lastNumber(b) - lastNumber(a) })
		candidates = append(candidates, paths...)
	}
	newest := 0
	for _, path := range candidates {
		version := javaVersion(ctx, path)
		if version >= oldest {
			return path, nil
		}
		newest = max(newest, version)
	}
	missing := &MissingError{What: fmt.Sprintf("Java %d or later", oldest), Hint: "set JAVA_HOME, or install it: " + javaCommand()}
	if newest > 0 {
		missing.Err = fmt.Errorf("the newest here is %d", newest)
	}
	return "", missing
}

// javaVersion returns the major version, 0 for what does not run.
func javaVersion(ctx context.Context, path string) int {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "-version").CombinedOutput()
	if err != nil {
		return 0
	}
	return readJavaVersion(string(out))
}

// readJavaVersion reads `openjdk version "17.0.15" 2025-04-15`, and `java version "1.8.0_442"` of the old kind.
func readJavaVersion(out string) int {
	_, rest, ok := strings.Cut(out, `version "`)
	if !ok {
		return 0
	}
	rest = strings.TrimPrefix(rest, "1.")
	digits, _, _ := strings.Cut(rest, `"`)
	if i := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		digits = digits[:i]
	}
	version, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return version
}

func javaCommand() string {
	if runtime.GOOS == "darwin" {
		return "brew install openjdk maven"
	}
	return "apt-get install -y --no-install-recommends default-jre-headless maven"
}

// findMaven says what is missing when there is no Maven to fetch what with.
func findMaven(what string) error {
	if _, err := exec.LookPath("mvn"); err != nil {
		return &MissingError{What: what, Hint: "it is fetched by Maven; install that: " + javaCommand()}
	}
	return nil
}
