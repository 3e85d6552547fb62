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

// stood are statements that were kept back, without stand-ins.
func (c *Conn) stood(kept []statement, given int) []statement {
	all := c.whole(kept)
	for i, st := range all {
		hows := howsOf(st)
		switch {
		case hows == nil:
		case c.d.Name == "postgres":
			all[i] = c.byOffset(st, hows, given)
		default:
			all[i] = c.d.bySum(st, hows)
		}
	}
	return all
}

// howsOf is how the arguments of a statement come, by column: all rows of one are made alike. It is nil if all come plainly.
func howsOf(st statement) (hows []how) {
	columns := cmp.Or(st.rowsOf, max(1, len(st.args)))
	for i, a := range st.args {
		if h := howOf(a); h != plainly {
			if hows == nil {
				hows = make([]how, columns)
			}
			hows[i%columns] = max(hows[i%columns], h)
		}
	}
	return hows
}

// shape is all that the text of a statement with stand-ins depends on.
type shape struct{ text, hows string }

// maxShapes bounds the texts that are kept.
const maxShapes = 1024

// byOffset is a statement for PostgreSQL. It is told how far before the last number that was given a number is, below zero: so
// the text is always the same, and prepared once.
func (c *Conn) byOffset(st statement, hows []how, given int) statement {
	args := make([]any, 0, len(st.args))
	for i, a := range st.args {
		switch h := hows[i%len(hows)]; {
		case h == ownPlace:
			continue
		case h != plainly && a != nil:
			n := number(a)
			if n >= FirstGiven {
				n -= FirstGiven + int64(given)
			}
			a = n
		}
		args = append(args, a)
	}
	of := shape{st.text, string(hows)}
	text, ok := c.shapes[of]
	if !ok {
		if len(c.shapes) >= maxShapes {
			clear(c.shapes)
		}
		text = c.d.offsetText(st.text, hows)
		c.shapes[of] = text
	}
	return statement{text: text, args: args, rows: st.rows}
}

func (d Dialect) offsetText(from string, hows []how) string {
	parts := strings.Split(from, "$")
	text, n := strings.Builder{}, 0
	text.WriteString(parts[0])
	for i, part := range parts[1:] {
		h := hows[i%len(hows)]
		if h != ownPlace {
			n++
		}
		p := "$" + strconv.Itoa(n)
		switch h {
		case ownPlace:
			p = d.ownGeneration
		case given, givenID:
			p += "::BIGINT"
			if p = "CASE WHEN " + p + " < 0 THEN " + d.lastGiven + " + 1 + " + p + " ELSE " + p + " END"; h == givenID {
				p = "int8send(" + p + ")"
			}
		}
		text.WriteString(p + strings.TrimLeft(part, "0123456789"))
	}
	return text.String()
}

// bySum is a statement for MySQL, which is sent texts anyway: the sum is in the text.
func (d Dialect) bySum(st statement, hows []how) statement {
	parts := strings.Split(st.text, "?")
	text, args := strings.Builder{}, make([]any, 0, len(st.args))
	text.WriteString(parts[0])
	for i, part := range parts[1:] {
		a, h, p := st.args[i], hows[i%len(hows)], "?"
		switch {
		case h == ownPlace:
			p = d.ownGeneration
		case h == plainly || a == nil:
			args = append(args, a)
		default:
			n := number(a)
			if p = strconv.FormatInt(n, 10); n >= FirstGiven {
				p = "(" + d.lastGiven + " + " + strconv.FormatInt(1+n-FirstGiven, 10) + ")"
			}
			if h == givenID {
				p = "UNHEX(LPAD(HEX(" + p + "), 16, '0'))"
			}
		}
		text.WriteString(p + part)
	}
	return statement{text: text.String(), args: args, rows: st.rows}
}

// number is an argument that may be a stand-in.
func number(a any) int64 {
	if v, ok := a.(givenBytes); ok {
		return int64(v)
	}
	return a.(int64)
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
