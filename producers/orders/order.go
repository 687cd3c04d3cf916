package orders

import "time"

// Limits of an order. They are part of the API: openapi.json repeats them, and
// a test compares the two.
const (
	maxLines        = 2000
	maxQuantity     = 1_000_000
	maxInstallments = 99
	maxWeightG      = 10_000_000
	maxSizeCM       = 10_000

	maxCustomerID = 128
	maxChannel    = 32
	maxSKU        = 64
	maxTitle      = 256
	maxSellerID   = 64
	maxRegion     = 64
	maxCity       = 128
	maxPostal     = 16
	maxSystem     = 32
	maxRef        = 128
	maxReason     = 500
)

// Order is what a client asks for. Validate fills the unexported fields; only
// then do the amounts mean anything.
type Order struct {
	CustomerID string    `json:"customer_id"`
	Channel    string    `json:"channel"`
	PlacedAt   time.Time `json:"placed_at"`
	Lines      []Line    `json:"lines"`
	Discount   Money     `json:"discount"`
	Tax        Money     `json:"tax"`
	ShipTo     Address   `json:"ship_to"`
	Payment    Payment   `json:"payment"`
	PromisedBy time.Time `json:"promised_by"`
	Source     Source    `json:"source"`

	currency string // of every amount
	scale    int    // decimal places of every minor amount
	totals   totals
}

// Line is one article of an order.
type Line struct {
	SKU       string `json:"sku"`
	Title     string `json:"title"`
	Quantity  int    `json:"quantity"`
	UnitPrice Money  `json:"unit_price"`
	// Freight is for the whole line. Left out, it is nothing.
	Freight  Money  `json:"freight"`
	SellerID string `json:"seller_id"`
	// WeightG is the weight of one unit in grams, zero if unknown.
	WeightG int `json:"weight_g"`
	// SizeCM is the size of one unit, all zero if unknown.
	SizeCM Size `json:"size_cm"`
}

// Size is the outside of one unit in centimetres.
type Size struct {
	Length int `json:"length"`
	Width  int `json:"width"`
	Height int `json:"height"`
}

// Address says where an order goes, as coarsely as routing needs.
type Address struct {
	Country      string `json:"country"`
	Region       string `json:"region"`
	City         string `json:"city"`
	PostalPrefix string `json:"postal_prefix"`
}

// Payment says how the buyer pays.
type Payment struct {
	Method       string `json:"method"`
	Installments int    `json:"installments"`
}

// Source names the system that an order was imported from.
type Source struct {
	System string `json:"system"`
	Ref    string `json:"ref"`
}

// totals are the sums of an order in minor units: grand = items + freight -
// discount + tax.
type totals struct {
	items, freight, discount, tax, grand int64
}
