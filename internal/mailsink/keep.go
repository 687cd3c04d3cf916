package mailsink

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
)

// incoming begins the names of files that are being written.
const incoming = ".incoming-"

// maxName bounds a file's name without its suffix.
const maxName = 180

// keep writes a mail to its file. A reader of the directory sees the whole
// mail or none. It does not sync: a mail survives the end of this process,
// not that of the machine.
func (s *Sink) keep(text []byte) error {
	name := fileName(text)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("mail sink is closed")
	}
	temp, path := filepath.Join(s.cfg.Dir, incoming+name), filepath.Join(s.cfg.Dir, name)
	_, missing := os.Lstat(path)
	err := os.WriteFile(temp, text, 0o644)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(err, remove(temp)))
	}
	if missing != nil {
		s.count++
	}
	s.received.Add(1)
	return nil
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// fileName is the mail's Message-ID, or a digest of the mail that has none.
// Characters that a file name cannot hold become an underscore; a digest then
// keeps different ids apart.
func fileName(text []byte) string {
	m, err := mail.ReadMessage(bytes.NewReader(text))
	if err != nil {
		return digest(text) + suffix
	}
	id := strings.Trim(strings.TrimSpace(m.Header.Get("Message-Id")), "<>")
	if id == "" {
		return digest(text) + suffix
	}
	name := strings.Map(plain, id)
	if name[0] == '.' || name[0] == '-' {
		name = "_" + name[1:]
	}
	if name != id || len(name) > maxName {
		name = name[:min(len(name), maxName)] + "-" + digest([]byte(id))
	}
	return name + suffix
}

func plain(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("@._+=-", r):
		return r
	default:
		return '_'
	}
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}
