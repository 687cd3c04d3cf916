package importer

import (
	"bytes"
	"compress/gzip"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// dataDir is the folder of the full data sets, which are too large or not free
// enough to lie in the repository.
func dataDir(t *testing.T) string {
	dir := os.Getenv("ORDERFLOW_DATA")
	if dir == "" {
		t.Skip("ORDERFLOW_DATA names no folder with uci-online-retail and olist-sample in it; the embedded sample and the stories are tested without")
	}
	return dir
}

func TestSampleIsLargeEnoughAndKnown(t *testing.T) {
	t.Parallel()
	if len(sample) >= 1_000_000 {
		t.Errorf("the sample has %d bytes, want less than a million", len(sample))
	}
	api := newFakeOrders(t)
	got, err := Run(t.Context(), uciConfig(api.serve(), Sample()), Deps{})
	if err != nil {
		t.Fatal(err)
	}
	want := Summary{
		Format: FormatUCI, Lines: 61050, Read: 2590, Accepted: 2309,
		Rejected:      map[Reason]int{Adjustment: 3, NoGoods: 40, NothingPriced: 95, StockWriteOff: 143},
		Cancellations: 465, Cancelled: 8,
		CancellationsIgnored: map[Reason]int{NoCustomer: 23, NoEqualSale: 431, SaleNotPlaced: 2, SeveralEqual: 1},
		LinesDropped:         map[Reason]int{NotGoods: 16, PriceNotPositive: 5},
		Mapped:               map[Reason]int{CarriageLines: 217, CountryMapped: 49, DefaultsUsed: 2309, GuestCustomer: 143},
		Seen: map[Reason]int{
			DuplicateLines: 386, FinePriceLines: 1, LinesNoCustomer: 14413, LinesNotPriced: 279, RepeatedCode: 267, SpansMinutes: 3,
		},
	}
	if d := cmp.Diff(want, got, ignoreDuration); d != "" {
		t.Errorf("summary (-want +got):\n%s", d)
	}
}

// The counts of oddities are those of the data's own description; the others were
// counted independently.
func TestFullUCIEndsAsCounted(t *testing.T) {
	t.Parallel()
	api := newFakeOrders(t)
	cfg := Config{API: api.serve(), Format: FormatUCI, Path: filepath.Join(dataDir(t), "uci-online-retail", "online_retail.csv.gz")}
	got, err := Run(t.Context(), cfg, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	want := Summary{
		Format: FormatUCI, Lines: 541909, Read: 22064, Accepted: 19773,
		Rejected:      map[Reason]int{Adjustment: 3, NoGoods: 186, NothingPriced: 766, StockWriteOff: 1336},
		Cancellations: 3836, Cancelled: 106,
		CancellationsIgnored: map[Reason]int{NoCustomer: 182, NoEqualSale: 3523, SaleNotPlaced: 13, SeveralEqual: 12},
		LinesDropped:         map[Reason]int{NotGoods: 213, PriceNotPositive: 60},
		Mapped:               map[Reason]int{CarriageLines: 1894, CountryMapped: 324, DefaultsUsed: 19773, GuestCustomer: 1371},
		Seen: map[Reason]int{
			DuplicateLines: 5268, FinePriceLines: 4, Interrupted: 1, LinesNoCustomer: 135080,
			LinesNotPriced: 2517, RepeatedCode: 2864, SpansMinutes: 43,
		},
	}
	if d := cmp.Diff(want, got, ignoreDuration); d != "" {
		t.Errorf("summary (-want +got):\n%s", d)
	}
	if lines := len(api.orders["uci:573585"].order.Lines); lines != 1113 {
		t.Errorf("the largest invoice has %d lines, want its 1,114 without DOT", lines)
	}
}

func TestFullOlistEndsAsCounted(t *testing.T) {
	t.Parallel()
	api := newFakeOrders(t)
	cfg := Config{API: api.serve(), Format: FormatOlist, Path: filepath.Join(dataDir(t), "olist-sample")}
	got, err := Run(t.Context(), cfg, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	want := Summary{
		Format: FormatOlist, Lines: 16500, Read: 8135, Accepted: 7360,
		Rejected:      map[Reason]int{NoItems: 775},
		Cancellations: 625, Cancelled: 461,
		CancellationsIgnored: map[Reason]int{SaleNotPlaced: 164},
		LinesDropped:         map[Reason]int{},
		Mapped:               map[Reason]int{PaymentsMerged: 249},
		Seen: map[Reason]int{
			CancelledShipped: 75, CancelledUnapproved: 141, CarrierBeforeOK: 77, DeliveredBefore: 3, DeliveredNoTime: 8,
			PaymentDiffers: 22, SeveralPayments: 274, SeveralSellers: 71, ZeroPayments: 5,
		},
	}
	if d := cmp.Diff(want, got, ignoreDuration); d != "" {
		t.Errorf("summary (-want +got):\n%s", d)
	}
}

func TestSampleIsAPieceOfTheFullFile(t *testing.T) {
	t.Parallel()
	full, err := os.ReadFile(filepath.Join(dataDir(t), "uci-online-retail", "online_retail.csv.gz"))
	if err != nil {
		t.Fatal(err)
	}
	plain := func(b []byte) []byte {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	head, rows, _ := bytes.Cut(plain(sample), []byte("\n"))
	text := plain(full)
	first, _, _ := bytes.Cut(rows, []byte("\n"))
	at := max(bytes.Index(text, first), 0)
	if !bytes.HasPrefix(text, head) || !bytes.HasPrefix(text[at:], rows) {
		t.Error("the sample's rows do not lie in the full file, byte for byte and together")
	}
}

// A reason that no story shows is a treatment nobody tested.
func TestEveryReasonIsShownByAStory(t *testing.T) {
	t.Parallel()
	var stories strings.Builder
	for _, pattern := range []string{"testdata/uci/*", "testdata/olist/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			b, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			stories.Write(b)
		}
	}
	elsewhere := map[string]bool{ // in run_test.go
		string(TooManyLines): true, string(RefusedOther): true,
	}
	f, err := parser.ParseFile(token.NewFileSet(), "reasons.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	ast.Inspect(f, func(node ast.Node) bool {
		lit, ok := node.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return true
		}
		n++
		code, err := strconv.Unquote(lit.Value)
		if err != nil {
			t.Fatal(err)
		}
		if !elsewhere[code] && code != "other" && !strings.Contains(stories.String(), " "+strings.TrimSuffix(code, ":")) {
			t.Errorf("no story shows %s", code)
		}
		return true
	})
	if n < 40 {
		t.Errorf("found only %d reasons", n)
	}
}
