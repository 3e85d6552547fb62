package sql

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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
	// What the second would collect is the first's.
	left := filepath.Join(dir, strings.Repeat("a", 64), strings.Repeat("b", 64))
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	collected := func(s *Service, want error) {
		t.Helper()
		if _, err := s.Collect(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(left); !errors.Is(err, want) {
			t.Errorf("collected: %v, want %v", err, want)
		}
	}
	other := root(b)
	collected(b, nil)
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
	collected(c, fs.ErrNotExist)
	closed(c)
}
