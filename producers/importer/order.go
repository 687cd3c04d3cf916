package importer

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// maxLines is the most lines the API takes in one order.
const maxLines = 2000

// order is one order as the API reads it.
type order struct {
	ClientOrderID string    `json:"client_order_id"`
	CustomerID    string    `json:"customer_id"`
	Channel       string    `json:"channel"`
	PlacedAt      string    `json:"placed_at"` // RFC 3339, UTC
	Lines         []line    `json:"lines"`
	ShipTo        address   `json:"ship_to"`
	Payment       payment   `json:"payment"`
	PromisedBy    string    `json:"promised_by,omitempty"` // RFC 3339, UTC
	Source        sourceRef `json:"source"`
}

type line struct {
	SKU       string `json:"sku"`
	Title     string `json:"title,omitempty"`
	Quantity  int64  `json:"quantity"`
	UnitPrice money  `json:"unit_price"`
	Freight   *money `json:"freight,omitempty"` // of the whole line
	SellerID  string `json:"seller_id"`
	WeightG   int64  `json:"weight_g"` // of one piece
	Size      size   `json:"size_cm"`
}

type size struct {
	Length int64 `json:"length"`
	Width  int64 `json:"width"`
	Height int64 `json:"height"`
}

type address struct {
	Country      string `json:"country"` // ISO 3166-1 alpha-2
	Region       string `json:"region,omitempty"`
	City         string `json:"city,omitempty"`
	PostalPrefix string `json:"postal_prefix,omitempty"`
}

type payment struct {
	Method       string `json:"method"`
	Installments int64  `json:"installments"`
}

type sourceRef struct {
	System string `json:"system"`
	Ref    string `json:"ref"`
}

type money struct {
	Amount   amount `json:"amount"`
	Currency string `json:"currency"`
}

var defaultSize = size{Length: DefaultLengthCM, Width: DefaultWidthCM, Height: DefaultHeightCM}

// amount is money in ten-thousandths of its currency: the API takes four
// decimals, the files have up to three.
type amount int64

const amountDecimals = 4

// parseAmount reads a decimal such as 2.55, 99.9 or -11062.06, exactly.
func parseAmount(s string) (amount, error) {
	whole, frac, _ := strings.Cut(strings.TrimPrefix(s, "-"), ".")
	frac = strings.TrimRight(frac, "0")
	if whole == "" || len(frac) > amountDecimals || !digits(whole) || !digits(frac) {
		return 0, fmt.Errorf("read amount: not a decimal with up to %d places", amountDecimals)
	}
	n, err := strconv.ParseInt(whole+frac+strings.Repeat("0", amountDecimals-len(frac)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read amount: out of range")
	}
	if strings.HasPrefix(s, "-") {
		n = -n
	}
	return amount(n), nil
}

func digits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

// String gives the amount with at least two decimals and no more than it needs.
func (a amount) String() string {
	sign, n := "", uint64(a)
	if a < 0 {
		sign, n = "-", -n
	}
	s := fmt.Sprintf("%s%d.%04d", sign, n/10000, n%10000)
	for range 2 {
		s = strings.TrimSuffix(s, "0")
	}
	return s
}

// MarshalText makes the amount a decimal string in JSON.
func (a amount) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// fine says that the amount has more than two decimals.
func (a amount) fine() bool { return a%100 != 0 }

// plus adds quantity times price, both positive, and says whether that fits.
func (a amount) plus(quantity int64, price amount) (amount, bool) {
	if quantity > (math.MaxInt64-int64(a))/int64(price) {
		return a, false
	}
	return a + amount(quantity)*price, true
}
