package kv

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// MetaPrefix begins the names of the headers that clients choose themselves.
const MetaPrefix = "x-tinycloud-meta-"

// IsMetadata reports whether a header, by its lower-case name, belongs to a value and can be sent with it. The list
// keeps tokens and cookies out of the store, and framing headers out of answers (docs/protocol.md, "Metadata").
func IsMetadata(name, value string) bool {
	switch name {
	case "content-type", "content-encoding", "content-language", "content-disposition":
	default:
		if !strings.HasPrefix(name, MetaPrefix) {
			return false
		}
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return utf8.ValidString(value)
}

// shown leaves of a write's metadata what is told to clients. Old histories hold all headers of a request.
func shown(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) { // two spellings of one name: the same one wins everywhere
		if lower := strings.ToLower(name); IsMetadata(lower, m[name]) {
			out[lower] = m[name]
		}
	}
	return out
}
