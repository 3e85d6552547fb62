package transfer

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
)

const maxExamples = 5 // of one kind of finding

// Findings are things that were not as they should be, counted by kind.
type Findings struct {
	kinds map[string]*finding
}

type finding struct {
	n        int
	examples []string
}

// Add counts one.
func (f *Findings) Add(what, which string) {
	if f.kinds == nil {
		f.kinds = map[string]*finding{}
	}
	k := f.kinds[what]
	if k == nil {
		k = &finding{}
		f.kinds[what] = k
	}
	if k.n++; len(k.examples) < maxExamples {
		k.examples = append(k.examples, which)
	}
}

// Count returns how many there are of a kind.
func (f *Findings) Count(what string) int {
	if k := f.kinds[what]; k != nil {
		return k.n
	}
	return 0
}

// Len returns how many there are.
func (f *Findings) Len() (n int) {
	for _, k := range f.kinds {
		n += k.n
	}
	return n
}

// Print lists them with some examples of each kind.
func (f *Findings) Print(w io.Writer) {
	for _, what := range slices.SortedFunc(maps.Keys(f.kinds), cmp.Compare[string]) {
		k := f.kinds[what]
		fmt.Fprintf(w, "%6d × %s\n", k.n, what)
		for _, e := range k.examples {
			fmt.Fprintf(w, "         %s\n", e)
		}
		if more := k.n - len(k.examples); more > 0 {
			fmt.Fprintf(w, "         and %d more\n", more)
		}
	}
}
