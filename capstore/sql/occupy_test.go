package sql

import (
	"errors"
	"io/fs"
	"os"
	"testing"
)

// Two services that are given one directory have files of their own; those of the second are gone when it is closed.
func TestTwoServicesShareNoFiles(t *testing.T) {
	dir := t.TempDir()
	root := func(s *Service) string {
		t.Helper()
		s.mu.Lock()
		defer s.mu.Unlock()
		path, err := s.dir()
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	closed := func(s *Service) {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	a, b := New(Options{Dir: dir}), New(Options{Dir: dir})
	if got := root(a); got != dir {
		t.Errorf("the first has %s", got)
	}
	other := root(b)
	if other == dir {
		t.Error("the second has the same files")
	}
	closed(b)
	if _, err := os.Stat(other); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("files are left: %v", err)
	}
	closed(a)
	c := New(Options{Dir: dir})
	if got := root(c); got != dir {
		t.Errorf("the next has %s", got)
	}
	closed(c)
}
