package embedded

import "syscall"

// dieWithParent asks the kernel to send sig to the child when the thread that starts it ends, which for us is when
// this process ends.
func dieWithParent(attr *syscall.SysProcAttr, sig syscall.Signal) { attr.Pdeathsig = sig }
