package consumers

// faults are the crash points that this package's tests reach. Nil, the
// only value outside those tests, does nothing.
type faults struct{}
