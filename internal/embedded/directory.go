package embedded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
)

// ErrInUse says that another live process holds a data directory.
var ErrInUse = errors.New("data directory is in use")

// claim is a data directory held by this process. The kernel lets go of it when the process ends, in whatever way. It
// is a bare descriptor: an os.File is closed when nobody refers to it any more, and with it the lock would be gone.
type claim struct {
	fd       int
	released atomic.Bool
}

// claimDirectory makes dir if need be and takes it for this process.
func claimDirectory(dir string) (*claim, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	path := filepath.Join(dir, "lock")
	// Children must not inherit the lock.
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CREAT|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock %s: %w", path, err)
	}
	c := &claim{fd: fd}
	if err := syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(path) // only for the message
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = fmt.Errorf("%s is held by process %s, stop it or choose another directory: %w",
				dir, strings.TrimSpace(string(holder)), ErrInUse)
		} else {
			err = fmt.Errorf("lock %s: %w", path, err)
		}
		return nil, errors.Join(err, c.release())
	}
	if err := c.sign(); err != nil {
		return nil, errors.Join(fmt.Errorf("write lock %s: %w", path, err), c.release())
	}
	return c, nil
}

// sign writes our process id into the lock, for whoever finds it held.
func (c *claim) sign() error {
	if err := syscall.Ftruncate(c.fd, 0); err != nil {
		return err
	}
	_, err := syscall.Write(c.fd, fmt.Appendf(nil, "%d\n", os.Getpid()))
	return err
}

// release lets the next process in, once. The lock file stays: removing it would let two processes lock two files of
// one name.
func (c *claim) release() error {
	if c == nil || c.released.Swap(true) {
		return nil
	}
	if err := syscall.Close(c.fd); err != nil {
		return fmt.Errorf("release data directory: %w", err)
	}
	return nil
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
