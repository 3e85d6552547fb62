package config

import (
	"fmt"
	"strconv"
	"strings"
)

type kind int

const (
	kindString kind = iota
	kindInteger
	kindFloat
	kindBool
	kindDatetime
	kindList
	kindTable
)

func (k kind) String() string {
	return [...]string{"a string", "an integer", "a float", "a boolean", "a date", "a list", "a table"}[k]
}

// value is a setting as a file or a variable spells it, before its setting says what it must be.
type value struct {
	kind  kind
	text  string // content of a string, spelling of other scalars
	list  []value
	table map[string]value
	loose bool // from a variable, where lists need no brackets and a secret no quotes
}

func (v value) str() (string, error) {
	if v.kind == kindString {
		return v.text, nil
	}
	if v.loose && v.kind != kindList && v.kind != kindTable {
		return "", fmt.Errorf("expected a string, found %s (write '\"%s\"' to mean a string)", v.kind, v.text)
	}
	return "", fmt.Errorf("expected a string, found %s", v.kind)
}

// secret takes a bare scalar of a variable as it stands: digits alone are a fine secret.
func (v value) secret() (string, error) {
	if v.kind == kindString || v.loose && v.kind != kindList && v.kind != kindTable {
		return v.text, nil
	}
	return "", fmt.Errorf("expected a string, found %s", v.kind)
}

func (v value) boolean() (bool, error) {
	if v.kind != kindBool {
		return false, fmt.Errorf("expected true or false, found %s", v.kind)
	}
	return v.text == "true", nil
}

// integer reads a whole number from least to most.
func (v value) integer(least, most uint64) (uint64, error) {
	if v.kind != kindInteger {
		return 0, fmt.Errorf("expected an integer, found %s", v.kind)
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(v.text, "+"), 10, 64)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%s is not from %d to %d", v.text, least, most)
	}
	return n, nil
}

func (v value) byteSize() (ByteSize, error) {
	if v.kind != kindString && v.kind != kindInteger {
		return 0, fmt.Errorf("expected a size, found %s", v.kind)
	}
	return ParseByteSize(v.text)
}

// strs reads a list of strings; a variable may leave out the brackets.
func (v value) strs() ([]string, error) {
	switch {
	case v.kind == kindList:
	case v.kind == kindString && v.loose:
		if strings.TrimSpace(v.text) == "" {
			return nil, nil
		}
		var out []string
		for item := range strings.SplitSeq(v.text, ",") {
			out = append(out, strings.TrimSpace(item))
		}
		return out, nil
	default:
		return nil, fmt.Errorf("expected a list of strings, found %s", v.kind)
	}
	var out []string
	for i, item := range v.list {
		s, err := item.str()
		if err != nil {
			return nil, fmt.Errorf("item %d: %w", i+1, err)
		}
		out = append(out, s)
	}
	return out, nil
}
