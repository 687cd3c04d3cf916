package testenv

import (
	"os"
	"testing"
)

// Dir returns a temporary directory that the user which runs Postgres for root can enter, for data directories of
// tests. t.TempDir lets in its owner alone, so a cluster in it is moved to /var/tmp, where nobody removes it.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "orderflow-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove test directory: %v", err)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}
