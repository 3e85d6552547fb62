// Package caveat reads the caveats that hosts know, and compares them: "constrained-statements" of SQL. It is pure.
package caveat

import (
	"bytes"
	"encoding/json"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Service is the one whose resources they are on.
const Service = "sql"

// Constrained is the caveat "constrained-statements" of a delegation: only the statements that it lists may run, and only
// to read.
type Constrained struct {
	ReadOnly   bool
	Statements []Listed

	byName map[string]int            // the first of each name in Statements
	fixed  []map[int]json.RawMessage // of each of these, by index
}

// Listed is a statement that a caveat lists.
type Listed struct {
	Name  string
	SQL   string
	Fixed []Fixed // parameters whose values the delegation gives, by their indexes
}

// Fixed is the value of a parameter.
type Fixed struct {
	Index int             // from 0
	Value json.RawMessage // compact JSON
}

// maxIndex is the greatest index of a parameter that SQLite has.
const maxIndex = 32765

// Parse reads the caveats of a capability, a JSON array of objects, and returns the first that constrains statements, or
// nil. The error is a refusal: the caveat cannot be kept to.
func Parse(caveats []byte) (*Constrained, error) {
	var list []json.RawMessage
	if len(caveats) == 0 || json.Unmarshal(caveats, &list) != nil {
		return nil, nil
	}
	for _, v := range list {
		if c, err := parse(v, false); c != nil || err != nil {
			return c, err
		}
	}
	return nil, nil
}

// Alone is the caveat if it is the only one, says nothing that is not known, and lists no name twice; else nil. Others
// can't be compared.
func Alone(caveats []byte) *Constrained {
	var list []json.RawMessage
	if len(caveats) == 0 || json.Unmarshal(caveats, &list) != nil || len(list) != 1 {
		return nil
	}
	c, err := parse(list[0], true)
	if err != nil || c == nil || len(c.byName) != len(c.Statements) {
		return nil
	}
	return c
}

func parse(v json.RawMessage, strict bool) (*Constrained, error) {
	var wrapped struct {
		Inner json.RawMessage `json:"constrained-statements"`
	}
	if json.Unmarshal(v, &wrapped) == nil && wrapped.Inner != nil {
		if strict && decode(v, &wrapped, true) != nil {
			return nil, nil
		}
		v = wrapped.Inner
	}
	var in struct {
		Mode       string
		ReadOnly   *bool
		Statements *[]struct {
			Name, SQL   *string
			FixedParams []struct {
				Index *json.Number
				Value json.RawMessage
			}
		}
	}
	if decode(v, &in, strict) != nil || in.Mode != "constrained-statements" || in.ReadOnly == nil || in.Statements == nil {
		return nil, nil // it is another caveat
	}
	c := &Constrained{ReadOnly: *in.ReadOnly, byName: map[string]int{}}
	for n, s := range *in.Statements {
		if s.Name == nil || s.SQL == nil {
			return nil, nil
		}
		l, fixed := Listed{Name: *s.Name, SQL: *s.SQL}, map[int]json.RawMessage{}
		for _, f := range s.FixedParams {
			if f.Index == nil {
				return nil, nil
			}
			i, err := f.Index.Int64()
			if _, twice := fixed[int(i)]; err != nil || i < 0 || i > maxIndex || twice {
				return nil, tinycloud.Refuse(tinycloud.ErrInvalid, "constrained-statements: fixedParams: index %s", *f.Index)
			}
			if f.Value == nil {
				f.Value = json.RawMessage("null")
			}
			fixed[int(i)] = compact(f.Value)
			l.Fixed = append(l.Fixed, Fixed{int(i), fixed[int(i)]})
		}
		if _, twice := c.byName[l.Name]; !twice {
			c.byName[l.Name] = n
		}
		c.Statements, c.fixed = append(c.Statements, l), append(c.fixed, fixed)
	}
	return c, nil
}

func decode(v json.RawMessage, into any, strict bool) error {
	d := json.NewDecoder(bytes.NewReader(v))
	if strict {
		d.DisallowUnknownFields()
	}
	return d.Decode(into)
}

func compact(v json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	if json.Compact(&b, v) != nil {
		return v
	}
	return b.Bytes()
}

// Listed is the statement of a name, nil if the caveat lists none.
func (c *Constrained) Listed(name string) *Listed {
	i, ok := c.byName[name]
	if !ok {
		return nil
	}
	return &c.Statements[i]
}

// Within says why a caveat given on is not within the one it was given under, "" if it is: a code of the reference. Either may
// be nil, for none.
func Within(parent, child *Constrained) (code string) {
	switch {
	case parent == nil:
		return ""
	case child == nil:
		return "containment-caveat-required"
	case !parent.ReadOnly || !child.ReadOnly:
		return "sql-non-readonly-not-permitted"
	}
	for n, s := range child.Statements {
		of := parent.Listed(s.Name)
		if of == nil || of.SQL != s.SQL {
			return "containment-sql-statement-added"
		}
		for _, f := range of.Fixed {
			v, ok := child.fixed[n][f.Index]
			if !ok {
				return "containment-sql-fixed-param-dropped"
			}
			if !bytes.Equal(v, f.Value) {
				return "containment-sql-fixed-param-mismatch"
			}
		}
	}
	return ""
}
