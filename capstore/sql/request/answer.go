package request

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Rows is the answer to a Query, made row by row.
type Rows struct {
	columns  []byte
	rows     []byte
	n        int
	maxRows  int
	maxBytes int
}

// NewRows returns an answer without rows, within the bounds of a request.
func NewRows(r *Request, columns []string) (*Rows, error) {
	a := &Rows{columns: []byte{'['}, maxRows: r.MaxRows, maxBytes: r.MaxBytes}
	if a.maxBytes == 0 {
		a.maxBytes = AnswerBytes
	}
	for i, c := range columns {
		if i > 0 {
			a.columns = append(a.columns, ',')
		}
		a.columns = appendString(a.columns, c)
	}
	a.columns = append(a.columns, ']')
	return a, a.check()
}

// size is how long the answer is as it stands.
func (a *Rows) size() int {
	return len(`{"columns":,"rowCount":,"rows":[]}`) + len(a.columns) + len(a.rows) + len(strconv.Itoa(a.n))
}

func (a *Rows) check() error {
	if n := a.size(); n > a.maxBytes {
		return tooLarge(n)
	}
	return nil
}

func tooLarge(n int) error {
	return tinycloud.Refuse(tinycloud.ErrTooLarge, "Response too large: %d bytes", n)
}

// Add adds a row. The error is a refusal of class [tinycloud.ErrTooLarge].
func (a *Rows) Add(cells []any) error {
	if a.maxRows > 0 && a.n == a.maxRows {
		return tooLarge(a.size())
	}
	if a.n++; a.n > 1 {
		a.rows = append(a.rows, ',')
	}
	a.rows = append(a.rows, '[')
	for i, c := range cells {
		if i > 0 {
			a.rows = append(a.rows, ',')
		}
		a.rows = AppendCell(a.rows, c)
	}
	a.rows = append(a.rows, ']')
	return a.check()
}

// JSON returns the answer.
func (a *Rows) JSON() []byte {
	b := make([]byte, 0, a.size())
	b = append(append(b, `{"columns":`...), a.columns...)
	b = strconv.AppendInt(append(b, `,"rowCount":`...), int64(a.n), 10)
	b = append(append(b, `,"rows":[`...), a.rows...)
	return append(b, "]}"...)
}

// Change is what a statement that gives no rows did.
type Change struct {
	Rows  int64 // how many it changed
	Added bool  // it is an INSERT
	RowID int64 // of an INSERT: the id of the last row
}

func (c Change) appendJSON(b []byte) []byte {
	b = strconv.AppendInt(append(b, `{"changes":`...), c.Rows, 10)
	b = append(b, `,"lastInsertRowId":`...)
	if c.Added {
		b = strconv.AppendInt(b, c.RowID, 10)
	} else {
		b = append(b, "null"...)
	}
	return append(b, '}')
}

// JSON returns the answer to an Execute.
func (c Change) JSON() []byte { return c.appendJSON(nil) }

// Changes is the answer to a Batch.
type Changes []Change

// JSON returns the answer.
func (all Changes) JSON() []byte {
	b := []byte(`{"results":[`)
	for i, c := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = c.appendJSON(b)
	}
	return append(b, "]}"...)
}

// AppendCell appends a cell as JSON: a REAL always with a fraction or an exponent, a BLOB as an array of its bytes, a text
// with what is no UTF-8 in it replaced.
func AppendCell(b []byte, cell any) []byte {
	switch v := cell.(type) {
	case int64:
		return strconv.AppendInt(b, v, 10)
	case float64:
		return appendReal(b, v)
	case string:
		return appendString(b, v)
	case []byte:
		b = append(b, '[')
		for i, c := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendUint(b, uint64(c), 10)
		}
		return append(b, ']')
	}
	return append(b, "null"...)
}

// appendReal writes 2.0, 1.5e-7 and 1e+16, as the reference does: plain for exponents from -5 to 15.
func appendReal(b []byte, f float64) []byte {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return append(b, "null"...)
	}
	s := strconv.FormatFloat(f, 'e', -1, 64)
	mantissa, exponent, _ := strings.Cut(s, "e")
	e, _ := strconv.Atoi(exponent)
	if e < -5 || e > 15 {
		b = append(append(b, mantissa...), 'e', exponent[0])
		return strconv.AppendInt(b, int64(max(e, -e)), 10)
	}
	s = strconv.FormatFloat(f, 'f', -1, 64)
	if b = append(b, s...); !strings.Contains(s, ".") {
		b = append(b, ".0"...)
	}
	return b
}

const hex = "0123456789abcdef"

// appendString escapes what JSON has to have escaped, and no more.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= ' ' && c < utf8.RuneSelf:
			b = append(b, c)
		case c < ' ':
			if k := strings.IndexByte("\b\f\n\r\t", c); k >= 0 {
				b = append(b, '\\', "bfnrt"[k])
			} else {
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r) // U+FFFD for what is no UTF-8
			i += n
			continue
		}
		i++
	}
	return append(b, '"')
}
