package config

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// ByteSize is a number of bytes.
type ByteSize uint64

// maxByteSizeText is far above any useful spelling and keeps the arithmetic small.
const maxByteSizeText = 128

// ParseByteSize reads digits, an optional fraction, optional spaces and an optional unit B, kB, KiB, MB, MiB … EB,
// EiB in any case: "10 MiB", "1.5GB", "10". A fraction needs a unit above B and rounds down to whole bytes.
func ParseByteSize(text string) (ByteSize, error) {
	if len(text) > maxByteSizeText {
		return 0, errors.New("not a size: too long")
	}
	bad := func(why string) (ByteSize, error) { return 0, fmt.Errorf("%q is not a size: %s", text, why) }
	whole, rest := cutDigits(text)
	if whole == "" {
		return bad("no digit at its start")
	}
	fraction := ""
	if after, ok := strings.CutPrefix(rest, "."); ok {
		if fraction, rest = cutDigits(after); fraction == "" {
			return bad("no digit after the point")
		}
	}
	suffix := strings.TrimLeft(rest, " ")
	if suffix == "" && rest != "" {
		return bad("blank at its end")
	}
	unit, ok := byteUnit(suffix)
	if !ok {
		return bad("unknown unit")
	}
	if fraction != "" && unit == 1 {
		return bad("a fraction of a byte")
	}
	size, err := scale(whole, fraction, unit)
	if err != nil {
		return bad(err.Error())
	}
	return size, nil
}

// Int64 returns the size, at most math.MaxInt64.
func (b ByteSize) Int64() int64 { return int64(min(uint64(b), math.MaxInt64)) }

// String prints the size with the largest binary unit that divides it; ParseByteSize reads it back.
func (b ByteSize) String() string {
	units := []string{"", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"}
	i, n := 0, uint64(b)
	for n != 0 && n%1024 == 0 && i < len(units)-1 {
		n /= 1024
		i++
	}
	return strconv.FormatUint(n, 10) + units[i]
}

func cutDigits(s string) (digits, rest string) {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return s[:i], s[i:]
}

func byteUnit(suffix string) (uint64, bool) {
	suffix = strings.ToLower(suffix)
	if suffix == "" || suffix == "b" {
		return 1, true
	}
	step := uint64(1000)
	prefix, binary := strings.CutSuffix(suffix, "ib")
	if binary {
		step = 1024
	} else if prefix, binary = strings.CutSuffix(suffix, "b"); !binary {
		return 0, false
	}
	power := strings.Index("kmgtpe", prefix) + 1
	if len(prefix) != 1 || power == 0 {
		return 0, false
	}
	unit := uint64(1)
	for range power {
		unit *= step
	}
	return unit, true
}

// scale returns floor((whole + 0.fraction) × unit).
func scale(whole, fraction string, unit uint64) (ByteSize, error) {
	n, ok := new(big.Int).SetString(whole+fraction, 10)
	if !ok {
		return 0, errors.New("not a number")
	}
	n.Mul(n, new(big.Int).SetUint64(unit))
	n.Quo(n, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(len(fraction))), nil))
	if !n.IsUint64() {
		return 0, errors.New("more than 2^64-1 bytes")
	}
	return ByteSize(n.Uint64()), nil
}
