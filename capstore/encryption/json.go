package encryption

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/recap"
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
func (d document) canonical() []byte { return recap.AppendCanonical(nil, d.value) }

// hash is the lower-case hex SHA-256 of the canonical form.
func (d document) hash() string { return digest(d.canonical()) }

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// hashText is the hash of a JSON string: of the literal with its quotes.
func hashText(s string) string { return digest(recap.AppendString(nil, s)) }

// canonicalOf returns the canonical form of what marshals to JSON.
func canonicalOf(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	d, err := parse(b)
	return d.canonical(), err
}
