package importer

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// dataDir is the folder of the full data sets, which are too large or not free
// enough to lie in the repository.
func dataDir(t *testing.T) string {
	dir := os.Getenv("ORDERFLOW_DATA")
	if dir == "" {
		t.Skip("ORDERFLOW_DATA does not name the folder that holds uci-online-retail and olist-sample; the embedded sample and small fixtures are tested instead")
	}
	return dir
}

func TestFullUCI(t *testing.T) {
	api := newFakeOrders(t)
	cfg := Config{API: api.serve(), Format: FormatUCI, Path: filepath.Join(dataDir(t), "uci-online-retail", "online_retail.csv.gz")}
	got, err := Run(t.Context(), cfg, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("%d MiB\n%s", m.Sys>>20, got)
	_ = cmp.Diff(got, Summary{}, cmpopts.IgnoreFields(Summary{}, "Duration"))
}

func TestFullOlist(t *testing.T) {
	api := newFakeOrders(t)
	cfg := Config{API: api.serve(), Format: FormatOlist, Path: filepath.Join(dataDir(t), "olist-sample")}
	got, err := Run(t.Context(), cfg, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", got)
}

func TestSample(t *testing.T) {
	api := newFakeOrders(t)
	cfg := Config{API: api.serve(), Format: FormatUCI, Input: Sample()}
	got, err := Run(t.Context(), cfg, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", got)
}
