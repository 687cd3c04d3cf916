package orders

import (
	"math/bits"
	"strconv"
)

// Amounts travel as decimal strings and are kept as whole numbers of minor
// units, so no float ever touches them. All amounts of one order share one
// currency and one scale: the currency's own number of decimals, or more where
// a price has more, such as 0.001 pounds.
const (
	maxScale  = 4
	maxDigits = 12 // before the point; with four decimals still far below 2^63
)

// Money is an amount as a client writes it: "2.55" of "GBP".
type Money struct {
	Amount   string `json:"amount"`
	Currency string `json:"currency"`

	minor int64 // at scale, until the order's scale is known; then at that
	scale int
}

func (m *Money) absent() bool { return m.Amount == "" && m.Currency == "" }

// parse reads the Amount. Trailing zeros do not count, so "2.50" and "2.5" are
// one amount. It reports false for anything but up to 12 digits, a point and
// up to 4 decimals.
func (m *Money) parse() bool {
	whole, decimals, n := 0, 0, int64(0)
	seenPoint := false
	for i := range len(m.Amount) {
		c := m.Amount[i]
		switch {
		case c >= '0' && c <= '9' && !seenPoint && whole < maxDigits:
			whole++
		case c >= '0' && c <= '9' && seenPoint && decimals < maxScale:
			decimals++
		case c == '.' && !seenPoint && whole > 0:
			seenPoint = true
			continue
		default:
			return false
		}
		n = n*10 + int64(c-'0')
	}
	if whole == 0 || seenPoint && decimals == 0 {
		return false
	}
	for decimals > 0 && n%10 == 0 {
		n, decimals = n/10, decimals-1
	}
	m.minor, m.scale = n, decimals
	return true
}

// rescale expresses a parsed amount with more decimals. With at most 16 digits
// after parsing it cannot overflow.
func (m *Money) rescale(scale int) {
	for ; m.scale < scale; m.scale++ {
		m.minor *= 10
	}
}

// times multiplies two amounts that are not negative, ok unless the product
// exceeds an int64.
func times(a, b int64) (product int64, ok bool) {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	return int64(lo), hi == 0 && lo <= 1<<63-1
}

// plus adds two amounts that are not negative.
func plus(a, b int64) (sum int64, ok bool) {
	return a + b, a <= 1<<63-1-b
}

// appendAmount writes minor with scale decimals.
func appendAmount(dst []byte, minor int64, scale int) []byte {
	if scale == 0 {
		return strconv.AppendInt(dst, minor, 10)
	}
	unit := int64(1)
	for range scale {
		unit *= 10
	}
	dst = strconv.AppendInt(dst, minor/unit, 10)
	dst = append(dst, '.')
	for rest := minor % unit; unit > 1; rest %= unit {
		unit /= 10
		dst = append(dst, byte('0'+rest/unit))
	}
	return dst
}
