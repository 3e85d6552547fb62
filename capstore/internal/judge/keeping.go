package judge

import (
	"encoding/binary"
	"unsafe"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/recap"
)

// keeping is how the facts of a Space are kept in little memory: the sessions of an app have the same capabilities.
type keeping struct {
	lists map[tinycloud.Hash][]recap.Capability
	size  int                         // bytes, about
	by    map[tinycloud.Principal]int // likewise of what each signed
}

func newKeeping() keeping {
	return keeping{lists: map[tinycloud.Hash][]recap.Capability{}, by: map[tinycloud.Principal]int{}}
}

const (
	sizeOfPlace = int(unsafe.Sizeof(Place{}))
	// sizeOfFact is of what is kept beside the token: entries of maps, with the room that these have left.
	sizeOfFact = int(unsafe.Sizeof(fact{})) + sizeOfPlace + 256
)

// keep returns what is kept of a token.
func (k *keeping) keep(t *token.Token) *token.Token {
	l := t.Lean()
	key := keyOf(l.Caps)
	list, have := k.lists[key]
	if have {
		l.Caps = nil // while it is measured
	}
	n := l.Size() + sizeOfFact
	if have {
		l.Caps = list
	} else {
		k.lists[key] = l.Caps
	}
	k.size += n
	k.by[l.Signer] += n
	return l
}

// keyOf names a list of capabilities.
func keyOf(caps []recap.Capability) tinycloud.Hash {
	var b []byte
	for _, c := range caps {
		for _, part := range []string{c.Resource.String(), c.Ability, string(c.Caveats)} {
			b = append(binary.AppendUvarint(b, uint64(len(part))), part...)
		}
		if c.Caveats == nil {
			b = append(b, 0)
		}
	}
	return tinycloud.Sum(b)
}

// Granted reports whether a delegation of the very same capabilities is in the set. One more takes little memory.
func (f *Facts) Granted(caps []recap.Capability) bool {
	_, ok := f.lists[keyOf(caps)]
	return ok
}

// Size is about how many bytes of memory the facts take.
func (f *Facts) Size() int { return f.size }

// SizeOf is about how many of them are of what a principal signed.
func (f *Facts) SizeOf(signer tinycloud.Principal) int { return f.by[signer] }
