package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
)

// Ports are drawn from below the range that Linux hands out to outgoing connections (32768 and up), so that a port
// that is remembered is still free after a restart.
const (
	lowestPort  = 20000
	highestPort = 32000
)

// freePort returns a port on which nobody listens on the loopback address.
func freePort() (int, error) {
	for range 100 {
		port := lowestPort + rand.IntN(highestPort-lowestPort)
		if portFree(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("find a free port between %d and %d", lowestPort, highestPort)
}

func portFree(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// rememberedPort returns the port written in a file if it is free. Otherwise it draws a free one and writes it there.
// A wanted port above zero is taken as it is.
func rememberedPort(path string, wanted int) (int, error) {
	if wanted == 0 {
		kept, err := readPort(path)
		if err != nil {
			return 0, err
		}
		if kept != 0 && portFree(kept) {
			return kept, nil
		}
		if wanted, err = freePort(); err != nil {
			return 0, err
		}
	}
	if err := writeFileAtomic(path, []byte(strconv.Itoa(wanted)+"\n"), 0o644); err != nil {
		return 0, fmt.Errorf("remember port %d: %w", wanted, err)
	}
	return wanted, nil
}

// readPort returns 0 when no port was remembered yet, or what was written is no port.
func readPort(path string) (int, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read remembered port: %w", err)
	}
	port, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || port < 1 || port > 65535 {
		return 0, nil
	}
	return port, nil
}
