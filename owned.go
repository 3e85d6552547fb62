package tinycloud

import (
	"strings"
	"unique"
)

// ownedID is the id of what somebody owns. It is comparable, and all that are equal share their texts.
type ownedID struct {
	is unique.Handle[ownedText]
}

type ownedText struct {
	text  string // ends with the name
	owner Principal
}

func newOwnedID(beginning string, owner Principal, name string) ownedID {
	return ownedID{unique.Make(ownedText{text: beginning + ":" + name, owner: owner})}
}

// parts are empty for what was never parsed.
func (i ownedID) parts() ownedText {
	if i.IsZero() {
		return ownedText{}
	}
	return i.is.Value()
}

// String returns the id with its owner in canonical spelling.
func (i ownedID) String() string { return i.parts().text }

// Owner returns the DID inside the id.
func (i ownedID) Owner() Principal { return i.parts().owner }

// Name returns the last part of the id.
func (i ownedID) Name() string {
	text := i.parts().text
	return text[strings.LastIndexByte(text, ':')+1:]
}

// IsZero reports whether the id was never parsed.
func (i ownedID) IsZero() bool { return i == ownedID{} }
