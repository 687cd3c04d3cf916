//go:build !linux

package testenv

import (
	"os/exec"
	"syscall"
)

// detach takes a process out of our group, so that a Ctrl-C for us does not reach it.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// killWithUs does nothing here: only Linux tells a child of its parent's death.
func killWithUs(*exec.Cmd) {}
