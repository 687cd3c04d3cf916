//go:build !linux

package embedded

import "syscall"

// dieWithParent does nothing here: only Linux tells a child of its parent's death. What a killed parent leaves
// behind, the next start on the same directory stops.
func dieWithParent(*syscall.SysProcAttr, syscall.Signal) {}
