package embedded

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// HoldDirectory makes dir if need be and takes it for this process, so that
// nobody else runs on it or clears it meanwhile; otherwise ErrInUse.
func HoldDirectory(dir string) (release func() error, err error) {
	c, err := claimDirectory(dir)
	if err != nil {
		return nil, err
	}
	return c.release, nil
}

// WasHeld tells whether dir was ever taken by HoldDirectory: whether it is one
// of ours.
func WasHeld(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, "lock"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
