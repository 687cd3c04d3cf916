//go:build linux || darwin

package verify

import "syscall"

// freeBytes tells what an ordinary user may still write in dir.
func freeBytes(dir string) (free int64, known bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, false
	}
	return int64(st.Bavail) * int64(st.Bsize), true //nolint:unconvert // the fields' types differ between systems
}
