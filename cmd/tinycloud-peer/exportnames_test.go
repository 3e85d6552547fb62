package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// FuzzConflictFile checks that the names of files lead nowhere and that two conflicts never share one.
func FuzzConflictFile(f *testing.F) {
	f.Add("../../etc/passwd", "..")
	f.Add(".", "a/b\x00c")
	f.Add(strings.Repeat("é", 500), strings.Repeat("é", 501))
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := conflictFile(a, "bafkr4ia"), conflictFile(b, "bafkr4ib")
		if x == y {
			t.Errorf("%q and %q share %q", a, b, x)
		}
		for _, name := range []string{x, y} {
			if filepath.Base(name) != name || strings.HasPrefix(name, "..") || name == "." || len(name) > 255 {
				t.Errorf("name %q", name)
			}
		}
	})
}
