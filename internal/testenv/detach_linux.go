package testenv

import (
	"os/exec"
	"syscall"
)

// detach takes a process out of our group, so that a Ctrl-C for us does not reach it.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// killWithUs makes the kernel kill a process when the thread that starts it ends, at the latest when we do.
func killWithUs(cmd *exec.Cmd) { cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL }
