package db

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
)

// RowIDs is an argument: the numbers of rows, stored in one column of bytes, eight for each, the greatest first.
type RowIDs []int64

func (r RowIDs) bytes() []byte {
	out := make([]byte, 0, 8*len(r))
	for _, id := range r {
		out = binary.BigEndian.AppendUint64(out, uint64(id))
	}
	return out
}

// How an argument of a statement comes.
type how byte

const (
	plainly  how = iota
	given        // it may be a stand-in for a number that the server gives, see [FirstGiven]
	givenID      // the same as bytes, see [RowIDs]
	ownPlace     // it stands for the transaction's generation
)

func howOf(a any) how {
	switch v := a.(type) {
	case givenBytes:
		return givenID
	case int64:
		if v == OwnGeneration {
			return ownPlace
		}
		if v >= FirstGiven {
			return given
		}
	}
	return plainly
}

// stood is a statement that is sent whole, without stand-ins: PostgreSQL is told how far before the last number that was given
// a number is, below zero; MySQL, which is sent texts anyway, has the sum in the text. All rows of a statement are made alike.
func (d Dialect) stood(st statement, numbers int) statement {
	columns := cmp.Or(st.rowsOf, max(1, len(st.args)))
	hows, some := make([]how, len(st.args)), false
	for i, a := range st.args {
		if h := howOf(a); h != plainly {
			some = true
			for k := i % columns; k < len(hows); k += columns {
				hows[k] = max(hows[k], h)
			}
		}
	}
	if !some {
		return st
	}
	parts := d.parts(st.text)
	var text strings.Builder
	args := make([]any, 0, len(st.args))
	for i, part := range parts {
		if i > 0 {
			arg, value := d.standIn(st.args[i-1], hows[i-1], len(args)+1, numbers)
			text.WriteString(value)
			args = append(args, arg...)
		}
		text.WriteString(part)
	}
	return statement{text: text.String(), args: args, rows: st.rows}
}

// parts are what is between the arguments of a text.
func (d Dialect) parts(text string) []string {
	if d.Name != "postgres" {
		return strings.Split(text, "?")
	}
	parts := strings.Split(text, "$")
	for i := range parts[1:] {
		parts[i+1] = strings.TrimLeft(parts[i+1], "0123456789")
	}
	return parts
}

// standIn is the text of an argument that comes as the n-th, and what is sent with it, if anything is.
func (d Dialect) standIn(a any, h how, n, numbers int) (arg []any, text string) {
	if h == plainly || a == nil {
		if d.Name != "postgres" {
			return []any{a}, "?"
		}
		return []any{a}, "$" + strconv.Itoa(n)
	}
	if h == ownPlace {
		return nil, d.ownGeneration
	}
	number := int64(0)
	switch v := a.(type) {
	case givenBytes:
		number = int64(v)
	case int64:
		number = v
	}
	if d.Name != "postgres" {
		text = strconv.FormatInt(number, 10)
		if number >= FirstGiven {
			text = "(" + d.lastGiven + " + " + strconv.FormatInt(1+number-FirstGiven, 10) + ")"
		}
		if h == givenID {
			text = "UNHEX(LPAD(HEX(" + text + "), 16, '0'))"
		}
		return nil, text
	}
	p := "$" + strconv.Itoa(n) + "::BIGINT"
	if number >= FirstGiven {
		number -= FirstGiven + int64(numbers)
	}
	if text = "CASE WHEN " + p + " < 0 THEN " + d.lastGiven + " + 1 + " + p + " ELSE " + p + " END"; h == givenID {
		text = "int8send(" + text + ")"
	}
	return []any{number}, text
}

// withStandIns makes an argument one that may be sent whole.
func withStandIns(args []any, as []any) error {
	for i, a := range args {
		if ids, ok := a.(RowIDs); ok {
			if len(ids) != 1 {
				return ErrAsks // more have no stand-in
			}
			as[i] = givenBytes(ids[0])
		}
	}
	return nil
}

// withBytes has no [RowIDs] among arguments.
func withBytes(args []any) []any {
	if !slices.ContainsFunc(args, func(a any) bool { _, ok := a.(RowIDs); return ok }) {
		return args
	}
	args = slices.Clone(args)
	for i, a := range args {
		if ids, ok := a.(RowIDs); ok {
			args[i] = ids.bytes()
		}
	}
	return args
}
