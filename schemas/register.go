package schemas

import (
	"context"
	"errors"
	"fmt"
)

// Registration is what the registry says about one event type.
type Registration struct {
	Schema *Schema
	// ID goes into the frame of every event of the type.
	ID int
	// Version counts within the subject.
	Version int
	// New is true when the version was not there before.
	New bool
}

// String returns the registration as one line.
func (r Registration) String() string {
	state := "known"
	if r.New {
		state = "new"
	}
	return fmt.Sprintf("%s id %d version %d %s", r.Schema.Subject, r.ID, r.Version, state)
}

// RegisterAll holds every subject to Level, reads that back, and registers
// today's schemas where they are missing. Doing it again changes nothing. The
// schemas that the registry refuses are joined in the error, and the others
// are registered all the same; a registry that is Unavailable ends it.
func RegisterAll(ctx context.Context, r *Registry) ([]Registration, error) {
	var done []Registration
	var refused []error
	for _, s := range All() {
		reg, err := r.ensure(ctx, s)
		switch {
		case Refused(err):
			refused = append(refused, err)
		case err != nil:
			return done, errors.Join(append(refused, err)...)
		default:
			done = append(done, reg)
		}
	}
	return done, errors.Join(refused...)
}

func (r *Registry) ensure(ctx context.Context, s *Schema) (Registration, error) {
	if err := r.requireLevel(ctx, s.Subject); err != nil {
		return Registration{}, err
	}
	v, err := r.find(ctx, s.Subject, s.Text)
	if err != nil {
		return Registration{}, err
	}
	isNew := v.ID == 0
	if isNew {
		if v, err = r.register(ctx, s.Subject, s.Text); err != nil {
			return Registration{}, err
		}
	}
	return Registration{Schema: s, ID: v.ID, Version: v.Number, New: isNew}, nil
}
