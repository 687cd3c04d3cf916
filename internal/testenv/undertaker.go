package testenv

import (
	"os/exec"
	"strconv"
	"sync"
)

// buryWithUs starts a shell that outlives this process only to clear up after it: when our end of its input closes,
// by whatever end of ours, it signals the server, waits until the mark is gone and removes the directory. A test
// process has no last moment of its own in which to do that.
func buryWithUs(pid int, signal, mark, dir string) error {
	const script = `read -r _; kill -"$1" "$2" 2>/dev/null; n=0
while [ -e "$3" ] && [ $n -lt 200 ]; do sleep 0.05; n=$((n+1)); done; rm -rf "$4"`
	cmd := exec.Command("/bin/sh", "-c", script, "sh", signal, strconv.Itoa(pid), mark, dir)
	detach(cmd)
	input, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	lifelines.Store(input, nil)
	return cmd.Start()
}

// lifelines keeps the inputs of the shells above reachable: the collector closes a file that nobody refers to, which
// would be read as our end.
var lifelines sync.Map
