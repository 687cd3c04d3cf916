package lag

import (
	"fmt"
	"maps"
	"slices"
)

// failures gathers what went wrong with many partitions for few causes, so
// that a broker that is away makes one error and not one per partition.
type failures map[string]*failure

type failure struct {
	err   error
	first logKey
	count int
}

func (f failures) add(key logKey, err error) {
	cause := err.Error()
	one := f[cause]
	if one == nil {
		one = &failure{err: err, first: key}
		f[cause] = one
	}
	if compareLogs(key, one.first) < 0 {
		one.first = key
	}
	one.count++
}

// errors are one error per cause; what begins each, before the partition.
func (f failures) errors(what string) []error {
	var all []error
	for _, cause := range slices.Sorted(maps.Keys(f)) {
		one := f[cause]
		more := ""
		if one.count > 1 {
			more = fmt.Sprintf(" and %d more", one.count-1)
		}
		all = append(all, fmt.Errorf("%s %v%s: %w", what, one.first, more, one.err))
	}
	return all
}
