package embedded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrInUse says that another live process holds a data directory.
var ErrInUse = errors.New("data directory is in use")

// claim is a data directory held by this process. The kernel lets go of it when the process ends, in whatever way.
type claim struct {
	file *os.File
}

// claimDirectory makes dir if need be and takes it for this process.
func claimDirectory(dir string) (*claim, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	path := filepath.Join(dir, "lock")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock of data directory: %w", err)
	}
	// Children do not inherit the lock: Go opens files close-on-exec.
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(path)
		file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is held by process %s, stop it or choose another directory: %w",
				dir, strings.TrimSpace(string(holder)), ErrInUse)
		}
		return nil, fmt.Errorf("lock data directory %s: %w", dir, err)
	}
	if err := file.Truncate(0); err != nil {
		file.Close()
		return nil, fmt.Errorf("write lock of data directory: %w", err)
	}
	if _, err := fmt.Fprintf(file, "%d\n", os.Getpid()); err != nil {
		file.Close()
		return nil, fmt.Errorf("write lock of data directory: %w", err)
	}
	return &claim{file: file}, nil
}

// release lets the next process in. The lock file stays: removing it would let two processes lock two files of one
// name.
func (c *claim) release() error {
	if c == nil {
		return nil
	}
	return c.file.Close()
}

// writeFileAtomic replaces path by content: after a crash it holds either the old or the new text, whole.
func writeFileAtomic(path string, content []byte, mode os.FileMode) error {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(temp.Name()) // no-op after the rename
	err = errors.Join(temp.Chmod(mode), writeAndSync(temp, content), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDirectory(filepath.Dir(path))
}

func writeAndSync(f *os.File, content []byte) error {
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.Sync()
}

// syncDirectory makes a rename inside dir durable.
func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
