package logistics

import (
	"math"

	"orderflow/schemas"
)

const (
	// unknownWeightG is what a piece weighs for us when nobody said.
	unknownWeightG = 500
	// volumeDivisor turns cubic centimetres into grams of volume weight, the
	// carriers' usual 5,000 cm³ a kilogram.
	volumeDivisor = 5
	// most bounds all arithmetic, far above any carrier's limit.
	most = math.MaxInt64 / 4
)

// parcel is what one seller sends for one order.
type parcel struct {
	seller  string
	weightG int64 // that counts: the higher of weight and volume weight
	edgeCM  int64 // longest edge of any piece; 0 when no size is known
}

// pack makes one parcel a seller, in the order of the sellers' first lines. A
// piece of unknown weight weighs 500 g; one of unknown size takes no room.
func pack(lines []schemas.OrderLine) []parcel {
	type load struct{ weight, volume, edge int64 }
	var sellers []string
	loads := map[string]*load{}
	for i := range lines {
		l := &lines[i]
		of, known := loads[l.SellerID]
		if !known {
			of = &load{}
			loads[l.SellerID] = of
			sellers = append(sellers, l.SellerID)
		}
		pieces := int64(max(l.Quantity, 0))
		of.weight = min(most, of.weight+times(pieces, weightOf(l)))
		if s := l.Size; s != nil {
			length, width, height := int64(max(s.LengthCM, 0)), int64(max(s.WidthCM, 0)), int64(max(s.HeightCM, 0))
			of.volume = min(most, of.volume+times(times(times(pieces, length), width), height))
			of.edge = max(of.edge, length, width, height)
		}
	}
	parcels := make([]parcel, len(sellers))
	for i, seller := range sellers {
		of := loads[seller]
		parcels[i] = parcel{seller: seller, weightG: max(of.weight, of.volume/volumeDivisor), edgeCM: of.edge}
	}
	return parcels
}

func weightOf(l *schemas.OrderLine) int64 {
	if l.WeightG == nil || *l.WeightG <= 0 {
		return unknownWeightG
	}
	return int64(*l.WeightG)
}

// times multiplies two numbers that are not negative, and stops at most.
func times(a, b int64) int64 {
	if b != 0 && a > most/b {
		return most
	}
	return a * b
}
