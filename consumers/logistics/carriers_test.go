package logistics

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	st "orderflow/consumers/internal/servicetest"
	"orderflow/schemas"
)

func to(country, region, postal string) schemas.Address {
	a := schemas.Address{Country: country}
	if region != "" {
		a.Region = &region
	}
	if postal != "" {
		a.PostalPrefix = &postal
	}
	return a
}

func TestCarrierIsChosenByWeightSizeAndRegion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		weightG int64
		edgeCM  int64
		to      schemas.Address
		want    string // rule, or the reason why nobody carries it
		eta     string // days after the order
	}{
		{"light and flat", 2_000, 35, to("GB", "", ""), "domestic-letterbox", "2026-03-08"},
		{"a gram over", 2_001, 35, to("GB", "", ""), "domestic-parcel", "2026-03-09"},
		{"a centimetre over", 2_000, 36, to("GB", "", ""), "domestic-parcel", "2026-03-09"},
		{"no size known", 2_000, 0, to("BR", "SP", ""), "domestic-letterbox", "2026-03-08"},
		{"heavy", 30_001, 50, to("GB", "UNSPECIFIED", "SW1"), "domestic-pallet", "2026-03-10"},
		{"long", 1_000, 300, to("GB", "", ""), "domestic-container", "2026-03-12"},
		{"Highlands", 1_000, 10, to("GB", "", "IV27"), "remote-letterbox", "2026-03-10"},
		{"an area that only begins alike", 1_000, 10, to("GB", "", "I27"), "domestic-letterbox", "2026-03-08"},
		{"Amazonas", 5_000, 50, to("BR", "AM", "690"), "remote-parcel", "2026-03-11"},
		{"Amazonas means nothing in Britain", 1_000, 10, to("GB", "AM", ""), "domestic-letterbox", "2026-03-08"},
		{"Europe", 1_000, 10, to("DE", "", ""), "continental-roadnet", "2026-03-12"},
		{"European Community", 1_000, 10, to("EU", "", ""), "continental-roadnet", "2026-03-12"},
		{"South America", 31_000, 10, to("UY", "", ""), "continental-pallet", "2026-03-15"},
		{"overseas", 70_000, 150, to("AU", "", ""), "worldwide-airlink", "2026-03-14"},
		{"overseas and heavy", 70_001, 150, to("JP", "", ""), "worldwide-container", "2026-04-20"},
		{"too heavy", 24_000_001, 10, to("GB", "", ""), "TOO_HEAVY", ""},
		{"too large", 10, 581, to("GB", "", ""), "TOO_LARGE", ""},
		{"too large and too heavy", 24_000_001, 581, to("GB", "", ""), "TOO_LARGE", ""},
		{"no country", 10, 10, to("ZZ", "", ""), "REGION_NOT_SERVED", ""},
		{"empty country", 10, 10, to("", "", ""), "REGION_NOT_SERVED", ""},
		{"two countries at once", 10, 10, to("GB DE", "", ""), "REGION_NOT_SERVED", ""},
		{"Antarctica", 10, 10, to("AQ", "", ""), "REGION_NOT_SERVED", ""},
	} {
		got := choose(parcel{weightG: c.weightG, edgeCM: c.edgeCM}, c.to, st.PlacedAt())
		rule, eta := got.rule, ""
		if got.carrier == "" {
			rule = string(got.reason)
		} else {
			eta = got.eta.Format("2006-01-02")
		}
		if rule != c.want || eta != c.eta {
			t.Errorf("%s: got %q by %q, want %q by %q", c.name, rule, eta, c.want, c.eta)
		}
	}
}

func TestPackageWeighsByItsVolumeWhenThatIsMore(t *testing.T) {
	t.Parallel()
	light := sized("anna", 10, 100, schemas.Size{LengthCM: 20, WidthCM: 15, HeightCM: 10}) // 10 x 3,000 cm³
	heavy := sized("ben", 10, 1000, schemas.Size{LengthCM: 20, WidthCM: 15, HeightCM: 10})
	mixed := sized("anna", 1, 100, schemas.Size{LengthCM: 1, WidthCM: 90, HeightCM: 1})
	unknown := st.Line("carl", "mug", 3)
	got := pack([]schemas.OrderLine{light, heavy, mixed, unknown})
	want := []parcel{
		{seller: "anna", weightG: (30_000 + 90) / 5, edgeCM: 90},
		{seller: "ben", weightG: 10_000, edgeCM: 20},
		{seller: "carl", weightG: 1_500},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(parcel{})); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
}
