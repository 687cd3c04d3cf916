package embedded

import (
	"errors"
	"fmt"
)

// MissingError says which outside part could not be had on this machine, and how to get it.
type MissingError struct {
	What string // the part, for example "PostgreSQL 15 or later"
	Hint string // what the operator can do about it, one sentence or one command
	Err  error  // why the last attempt ended, may be nil
}

func (e *MissingError) Error() string {
	text := e.What + " not found"
	if e.Err != nil {
		text = fmt.Sprintf("%s: %v", text, e.Err)
	}
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

func (e *MissingError) Unwrap() error { return e.Err }

// Missing reports whether err means that an outside part is not on this machine, as opposed to a part that is there
// and does not work.
func Missing(err error) bool {
	var missing *MissingError
	return errors.As(err, &missing)
}
