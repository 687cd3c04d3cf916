package bench

import "syscall"

// peakMiB is the largest resident set; Linux counts it in KiB.
func peakMiB(u *syscall.Rusage) float64 { return float64(u.Maxrss) / 1024 }
