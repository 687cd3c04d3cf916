//go:build !linux

package bench

import "syscall"

// peakMiB is the largest resident set; macOS counts it in bytes.
func peakMiB(u *syscall.Rusage) float64 { return float64(u.Maxrss) / (1 << 20) }
