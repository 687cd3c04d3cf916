package embedded

import (
	"testing"
)

func TestSmoke(t *testing.T) {
	bin, err := FindPostgres(t.Context(), FindOptions{NoInstall: true})
	if err != nil {
		t.Fatal(err)
	}
	p, err := StartPostgres(t.Context(), PostgresConfig{BinDir: bin, DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(p.URL(), p.ClusterDir())
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}
