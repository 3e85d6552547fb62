package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// FuzzConflictFile checks that the names of files lead nowhere and that two keys never share one.
func FuzzConflictFile(f *testing.F) {
	f.Add("../../etc/passwd", "..")
	f.Add(".", "a/b\x00c")
	f.Add("", "%")
	f.Add("a.b", "a.bafkr4ia")
	f.Add("~", strings.Repeat("x", 101))
	f.Add(strings.Repeat("é", 500), strings.Repeat("é", 501))
	const event = "bafkr4ifc5dtrzaljcclxqtcv2z3n6xn3zhv5ufhdr6pfr3qkhmgwvmkbhi"
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := conflictFile(a, event), conflictFile(b, event) // of one event that writes several keys
		if (x == y) != (a == b) {
			t.Errorf("%q and %q have %q and %q", a, b, x, y)
		}
		if other := conflictFile(a, "bafkr4ia"); other == x {
			t.Errorf("two events of %q share %q", a, x)
		}
		for _, name := range []string{x, y} {
			if filepath.Base(name) != name || strings.HasPrefix(name, ".") || len(name) > 255-len(".part") || strings.ContainsAny(name, "/\\:\x00") {
				t.Errorf("name %q", name)
			}
		}
	})
}
