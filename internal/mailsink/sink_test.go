package mailsink

import (
	"errors"
	"fmt"
	"net/smtp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"

	"orderflow/internal/testenv"
)

func start(t *testing.T, c Config) *Sink {
	t.Helper()
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	c.Log = testenv.Logger(t)
	s, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func letter(id, body string) string {
	return fmt.Sprintf("From: a@shop.invalid\r\nTo: b@home.invalid\r\nMessage-ID: <%s>\r\nSubject: hello\r\n\r\n%s\r\n", id, body)
}

func send(s *Sink, to, text string) error {
	return smtp.SendMail(s.Addr(), nil, "a@shop.invalid", []string{to}, []byte(text))
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestEachMailIsAFileThatOneCanRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, Config{Dir: dir})
	if err := send(s, "b@home.invalid", letter("order.1@shop.invalid", "thank you")); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "order.1@shop.invalid.eml"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(got), "Subject: hello") || !strings.HasSuffix(string(got), "thank you\r\n") {
		t.Errorf("the file reads\n%s", got)
	}
	if s.Count() != 1 {
		t.Errorf("counted %d mails, want 1", s.Count())
	}
}

func TestMailThatIsSentAgainIsOneFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, Config{Dir: dir})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, id := range []string{"order.1@shop.invalid", "order.2@shop.invalid"} {
				if err := send(s, "b@home.invalid", letter(id, "thank you")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if s.Count() != 2 || s.Received() != 8 {
		t.Errorf("counted %d mails of %d received, want 2 of 8", s.Count(), s.Received())
	}
	want := []string{"order.1@shop.invalid.eml", "order.2@shop.invalid.eml"}
	if diff := cmp.Diff(want, names(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestMailsOfAnEarlierRunCount(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := start(t, Config{Dir: dir})
	if err := send(first, "b@home.invalid", letter("order.1@shop.invalid", "thank you")); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	torn := filepath.Join(dir, incoming+"123")
	if err := os.WriteFile(torn, []byte("half a mail"), 0o600); err != nil {
		t.Fatal(err)
	}
	second := start(t, Config{Dir: dir})
	if second.Count() != 1 {
		t.Errorf("counted %d mails, want the one of the first run", second.Count())
	}
	if _, err := os.Stat(torn); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a mail is still there: %v", err)
	}
}

func TestMessageIDCannotLeaveTheDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "mails")
	s := start(t, Config{Dir: dir})
	ids := []string{"../escape@x", "a/b@x", "a_b@x", ".hidden@x", "-rf@x", strings.Repeat("long", 100) + "@x", "a\\b@x", "ä@x"}
	for _, id := range ids {
		if err := send(s, "b@home.invalid", letter(id, "x")); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"Subject: no id\r\n\r\nx\r\n", "no header at all\r\n"} {
		if err := send(s, "b@home.invalid", text); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(t, dir); len(got) != len(ids)+2 || s.Count() != len(got) {
		t.Errorf("got the files %q, want one for each of %d mails", got, len(ids)+2)
	}
	if up := names(t, filepath.Dir(dir)); !slices.Equal(up, []string{"mails"}) {
		t.Errorf("found %q beside the directory", up)
	}
	for _, n := range names(t, dir) {
		if n[0] == '.' || n[0] == '-' {
			t.Errorf("file %q is hidden or reads as an option", n)
		}
	}
}

func TestRefusedRecipientGetsTheChosenAnswer(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Refuse: func(to string) error {
		if strings.HasPrefix(to, "unknown@") {
			return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "No such user"}
		}
		return nil
	}})
	if err := send(s, "unknown@home.invalid", letter("1@x", "x")); err == nil || !strings.Contains(err.Error(), "550") {
		t.Errorf("got %v, want 550", err)
	}
	if err := send(s, "known@home.invalid", letter("2@x", "x")); err != nil {
		t.Error(err)
	}
	if s.Count() != 1 {
		t.Errorf("counted %d mails, want 1", s.Count())
	}
}

func TestMailThatIsTooLargeIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t, Config{MaxBytes: 1000})
	if err := send(s, "b@home.invalid", letter("1@x", strings.Repeat("x ", 600))); err == nil || !strings.Contains(err.Error(), "552") {
		t.Errorf("got %v, want 552", err)
	}
	if s.Count() != 0 {
		t.Errorf("kept %d mails", s.Count())
	}
}

func TestTooManyConnectionsAreTurnedAway(t *testing.T) {
	t.Parallel()
	s := start(t, Config{})
	hello := func() (*smtp.Client, error) {
		c, err := smtp.Dial(s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		return c, c.Hello("test")
	}
	var open []*smtp.Client
	for range maxSessions {
		c, err := hello()
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	if c, err := hello(); err == nil || !strings.Contains(err.Error(), "421") {
		t.Errorf("got %v, want 421", err)
	} else {
		c.Close()
	}
	if err := open[0].Quit(); err != nil {
		t.Fatal(err)
	}
	var last *smtp.Client
	testenv.Wait(t, 10*time.Second, "room for another", func() bool {
		c, err := hello()
		last = c
		return err == nil
	})
	for _, c := range append(open[1:], last) {
		c.Close()
	}
}
