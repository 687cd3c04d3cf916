package logistics

import (
	"fmt"
	"strings"
	"time"

	"orderflow/schemas"
)

// lane is how far a package goes. The platform packs in Britain and in Brazil,
// and a package leaves from the nearer one.
type lane int

const (
	unserved    lane = iota // no country, or one that nobody goes to
	domestic                // within Britain or within Brazil
	remote                  // domestic, but hard to reach
	continental             // the rest of Europe, the rest of South America
	worldwide               // everywhere else
	lanes
)

func (l lane) String() string {
	return [...]string{"unserved", "domestic", "remote", "continental", "worldwide"}[l]
}

// carrier is one row of the table of carriers.
type carrier struct {
	code       string
	days       [lanes]int // in transit, by lane; 0 = not served
	maxWeightG int64
	maxEdgeCM  int64 // of the longest piece
}

// carriers lists who may carry a package, cheapest first: the first one that
// serves the lane and takes weight and size gets it.
func carriers() [6]carrier {
	return [...]carrier{
		{"letterbox", [lanes]int{domestic: 2, remote: 4}, 2_000, 35},
		{"parcel", [lanes]int{domestic: 3, remote: 5}, 30_000, 120},
		{"roadnet", [lanes]int{continental: 6}, 30_000, 175},
		{"airlink", [lanes]int{worldwide: 8}, 70_000, 150},
		{"pallet", [lanes]int{domestic: 4, remote: 7, continental: 9}, 1_000_000, 240},
		{"container", [lanes]int{domestic: 6, remote: 12, continental: 14, worldwide: 45}, 24_000_000, 580},
	}
}

// europe and southAmerica are the countries that the packing places reach by
// road. EU and the Channel Islands come from real orders.
const (
	europe       = "AD AL AT BA BE BG CH CY CZ DE DK EE ES EU FI FR GG GI GR HR HU IE IM IS IT JE LI LT LU LV MC MD ME MK MT NL NO PL PT RO RS SE SI SK SM UA VA XK"
	southAmerica = "AR BO CL CO EC GY PE PY SR UY VE"
	nobodyGoes   = "AQ BV HM ZZ"
	farBrazil    = "AC AM AP PA RO RR TO"
	farBritain   = "BT GY HS IM IV JE KW ZE" // postal areas: islands, Highlands, Northern Ireland
)

// among reports whether code is one of the codes in list.
func among(list, code string) bool {
	return code != "" && strings.Contains(" "+list+" ", " "+code+" ")
}

// laneOf decides by country, and within the home countries by region (Brazil)
// or postal area (Britain).
func laneOf(to schemas.Address) lane {
	switch c := to.Country; {
	case len(c) != 2, among(nobodyGoes, c):
		return unserved
	case c == "GB":
		if among(farBritain, postalArea(to.PostalPrefix)) {
			return remote
		}
		return domestic
	case c == "BR":
		if to.Region != nil && among(farBrazil, *to.Region) {
			return remote
		}
		return domestic
	case among(europe, c), among(southAmerica, c):
		return continental
	default:
		return worldwide
	}
}

// postalArea is the leading letters of a British postcode: IV of IV27 4HH.
func postalArea(prefix *string) string {
	if prefix == nil {
		return ""
	}
	for i, r := range *prefix {
		if r < 'A' || r > 'Z' {
			return (*prefix)[:i]
		}
	}
	return *prefix
}

// choice is the carrier of a package, or why there is none.
type choice struct {
	carrier string // empty if none
	rule    string // lane and carrier
	eta     time.Time

	reason schemas.CarrierUnavailableReason
	detail string
}

const (
	packingDays  = 2
	deliveryHour = 18 // UTC
)

// choose takes the first carrier that fits. The package should arrive at 18:00
// UTC, after two days of packing and the carrier's days in transit, counted
// from the day the order was placed.
func choose(p parcel, to schemas.Address, placed time.Time) choice {
	l := laneOf(to)
	var heaviest, longest int64
	for _, c := range carriers() {
		days := c.days[l]
		if days == 0 {
			continue
		}
		if p.weightG <= c.maxWeightG && p.edgeCM <= c.maxEdgeCM {
			year, month, day := placed.UTC().Date()
			return choice{
				carrier: c.code,
				rule:    l.String() + "-" + c.code,
				eta:     time.Date(year, month, day+packingDays+days, deliveryHour, 0, 0, 0, time.UTC),
			}
		}
		heaviest, longest = max(heaviest, c.maxWeightG), max(longest, c.maxEdgeCM)
	}
	switch {
	case heaviest == 0:
		return choice{reason: schemas.CarrierUnavailableReasonRegionNotServed, detail: fmt.Sprintf("nobody goes to %q", to.Country)}
	case p.edgeCM > longest:
		return choice{reason: schemas.CarrierUnavailableReasonTooLarge, detail: fmt.Sprintf("%d cm long, at most %d", p.edgeCM, longest)}
	default:
		return choice{reason: schemas.CarrierUnavailableReasonTooHeavy, detail: fmt.Sprintf("weighs %d g, at most %d", p.weightG, heaviest)}
	}
}
