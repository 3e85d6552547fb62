package encryption

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/recap"
)

// MaxBody bounds the body of a request in bytes. What clients send is some 1,200 bytes.
const MaxBody = 64 << 10

// document is a JSON value of a request.
type document struct{ value recap.Value }

// parse reads a JSON value of which there is one canonical form: no member twice, numbers that are integers every client
// can tell apart, text that is Unicode. The error is a refusal of class [tinycloud.ErrInvalid].
func parse(text []byte) (document, error) {
	if len(text) > MaxBody {
		return document{}, tinycloud.Refuse(tinycloud.ErrTooLarge, "JSON of %d bytes, at most %d", len(text), MaxBody)
	}
	v, err := recap.ParseJSON(string(text))
	if err == nil {
		err = integers(v)
	}
	if err != nil {
		return document{}, invalid("%v", err)
	}
	return document{v}, nil
}

func invalid(format string, args ...any) error {
	return tinycloud.Refuse(tinycloud.ErrInvalid, "request body is malformed: "+format, args...)
}

// maxInteger is the greatest integer that a double tells from its neighbours.
const maxInteger = 1<<53 - 1

// integers refuses numbers that are not written as integers.
func integers(v recap.Value) error {
	for _, x := range v.Items {
		if err := integers(x); err != nil {
			return err
		}
	}
	for _, m := range v.Members {
		if err := integers(m.Value); err != nil {
			return err
		}
	}
	if v.Kind == recap.Number {
		if _, ok := integer(v); !ok {
			return fmt.Errorf("number %.40q is no integer of at most 53 bits", v.Raw)
		}
	}
	return nil
}

func integer(v recap.Value) (int64, bool) {
	n, err := strconv.ParseInt(v.Raw, 10, 64)
	return n, v.Kind == recap.Number && err == nil && n <= maxInteger && n >= -maxInteger && v.Raw != "-0"
}

// canonical is the value with its members in the order of their names' bytes, no white space, and as few escapes as can
// be.
func (d document) canonical() []byte { return appendValue(nil, d.value) }

// hash is the lower-case hex SHA-256 of the canonical form.
func (d document) hash() string { return digest(d.canonical()) }

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// hashText is the hash of a JSON string: of the literal with its quotes.
func hashText(s string) string { return digest(appendString(nil, s)) }

// canonicalOf returns the canonical form of what marshals to JSON.
func canonicalOf(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	d, err := parse(b)
	return d.canonical(), err
}

func appendValue(b []byte, v recap.Value) []byte {
	switch v.Kind {
	case recap.String:
		return appendString(b, v.Text)
	case recap.Array:
		b = append(b, '[')
		for i, x := range v.Items {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, x)
		}
		return append(b, ']')
	case recap.Object:
		members := slices.SortedFunc(slices.Values(v.Members), func(x, y recap.Member) int { return cmp.Compare(x.Name, y.Name) })
		b = append(b, '{')
		for i, m := range members {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(append(appendString(b, m.Name), ':'), m.Value)
		}
		return append(b, '}')
	}
	return append(b, v.Raw...)
}

const hexDigits = "0123456789abcdef"

// appendString writes a literal. Package encoding/json escapes more: <, >, & and two separators of lines.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case escape(c) != 0:
			b = append(b, '\\', escape(c))
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// escape is what stands for a character behind a backslash, 0 when it has no such form.
func escape(c byte) byte {
	switch c {
	case '"', '\\':
		return c
	case '\b':
		return 'b'
	case '\f':
		return 'f'
	case '\n':
		return 'n'
	case '\r':
		return 'r'
	case '\t':
		return 't'
	}
	return 0
}
