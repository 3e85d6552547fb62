package gate

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// Constrained is the caveat "constrained-statements" of a delegation: only the statements that it lists may run, and only
// to read.
type Constrained struct {
	ReadOnly   bool
	Statements []Listed
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

// ParseConstrained reads the caveats of a capability, a JSON array of objects, and returns the first that constrains
// statements, or nil. The error is a refusal: the caveat cannot be kept to.
func ParseConstrained(caveats []byte) (*Constrained, error) {
	var list []json.RawMessage
	if len(caveats) == 0 || json.Unmarshal(caveats, &list) != nil {
		return nil, nil
	}
	for _, v := range list {
		var wrapped struct {
			Inner json.RawMessage `json:"constrained-statements"`
		}
		if json.Unmarshal(v, &wrapped) == nil && wrapped.Inner != nil {
			v = wrapped.Inner
		}
		if c, err := parseConstrained(v); c != nil || err != nil {
			return c, err
		}
	}
	return nil, nil
}

func parseConstrained(v json.RawMessage) (*Constrained, error) {
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
	if json.Unmarshal(v, &in) != nil || in.Mode != "constrained-statements" || in.ReadOnly == nil || in.Statements == nil {
		return nil, nil // it is another caveat
	}
	c := &Constrained{ReadOnly: *in.ReadOnly}
	for _, s := range *in.Statements {
		if s.Name == nil || s.SQL == nil {
			return nil, nil
		}
		l := Listed{Name: *s.Name, SQL: *s.SQL}
		for _, f := range s.FixedParams {
			if f.Index == nil {
				return nil, nil
			}
			i, err := f.Index.Int64()
			if err != nil || i < 0 || i > maxIndex || slices.ContainsFunc(l.Fixed, func(x Fixed) bool { return x.Index == int(i) }) {
				return nil, tinycloud.Refuse(tinycloud.ErrInvalid, "constrained-statements: fixedParams: index %s", *f.Index)
			}
			if f.Value == nil {
				f.Value = json.RawMessage("null")
			}
			l.Fixed = append(l.Fixed, Fixed{int(i), compact(f.Value)})
		}
		c.Statements = append(c.Statements, l)
	}
	return c, nil
}

func compact(v json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	if json.Compact(&b, v) != nil {
		return v
	}
	return b.Bytes()
}

func (c *Constrained) listed(name string) *Listed {
	i := slices.IndexFunc(c.Statements, func(l Listed) bool { return l.Name == name })
	if i < 0 {
		return nil
	}
	return &c.Statements[i]
}

// Within says why a caveat given on is not within the one it was given under, "" if it is. Either may be nil, for none.
func Within(parent, child *Constrained) (code string) {
	switch {
	case parent == nil:
		return ""
	case child == nil:
		return "containment-caveat-required"
	case !parent.ReadOnly || !child.ReadOnly:
		return "sql-non-readonly-not-permitted"
	}
	for _, s := range child.Statements {
		of := parent.listed(s.Name)
		if of == nil || of.SQL != s.SQL {
			return "containment-sql-statement-added"
		}
		for _, f := range of.Fixed {
			i := slices.IndexFunc(s.Fixed, func(x Fixed) bool { return x.Index == f.Index })
			if i < 0 {
				return "containment-sql-fixed-param-dropped"
			}
			if !bytes.Equal(s.Fixed[i].Value, f.Value) {
				return "containment-sql-fixed-param-mismatch"
			}
		}
	}
	return ""
}

func code(c string) error { return tinycloud.Refuse(tinycloud.ErrForbidden, "%s", c) }

var writeWords = regexp.MustCompile(`(?i)\b(INSERT|UPDATE|DELETE|REPLACE|MERGE|CREATE|DROP|ALTER|TRUNCATE|ATTACH|DETACH|PRAGMA|VACUUM|ANALYZE)\b`)

// Resolve checks a request against the caveat and returns the statement that it names, with its parameters. The error is a
// refusal whose text is a code.
func (c *Constrained) Resolve(r *request.Request) (request.Statement, error) {
	switch r.Action {
	case request.Query:
		return request.Statement{}, code("sql-raw-query-blocked")
	case request.Execute:
		return request.Statement{}, code("sql-raw-execute-blocked")
	case request.Batch:
		return request.Statement{}, code("sql-batch-blocked")
	case request.Export, request.Outcome:
		return request.Statement{}, code("sql-" + string(r.Action) + "-blocked")
	}
	l := c.listed(r.Name)
	switch {
	case l == nil:
		return request.Statement{}, code("sql-statement-not-allowed")
	case writeWords.MatchString(l.SQL):
		return request.Statement{}, code("sql-write-blocked")
	case severalStatements(l.SQL):
		return request.Statement{}, code("sql-multistatement-blocked")
	}
	params, err := l.params(r.Statements[0].Params)
	return request.Statement{SQL: l.SQL, Params: params}, err
}

// severalStatements reports whether a text has a semicolon outside of single quotes, but for its end.
func severalStatements(sql string) bool {
	sql = strings.TrimRight(strings.TrimSpace(sql), "; \t\r\n")
	inside := false
	for _, c := range sql {
		switch {
		case c == '\'':
			inside = !inside
		case c == ';' && !inside:
			return true
		}
	}
	return false
}

// params puts the caller's parameters and the fixed ones together.
func (l *Listed) params(free []any) ([]any, error) {
	n := len(free)
	for _, f := range l.Fixed {
		if f.Index < len(free) {
			return nil, code("sql-fixed-param-override")
		}
		n = max(n, f.Index+1)
	}
	for _, v := range free {
		switch v := v.(type) {
		case string:
			if escapes(v) {
				return nil, code("sql-escape-blocked")
			}
		case []byte:
			return nil, code("sql-non-primitive-bind")
		}
	}
	all := make([]any, n)
	copy(all, free)
	for _, f := range l.Fixed {
		v, err := request.ParseValue(f.Value)
		if err != nil {
			return nil, code("sql-non-primitive-bind")
		}
		if _, is := v.([]byte); is {
			return nil, code("sql-non-primitive-bind")
		}
		all[f.Index] = v
	}
	return all, nil
}

func escapes(s string) bool {
	for _, part := range []string{`"`, "'", ";", "--", "/*", "*/", " OR 1=1"} {
		if strings.Contains(strings.ToUpper(s), part) {
			return true
		}
	}
	return false
}

// Facts are what an invocation restricts itself to: the member "sqlCaveats" of one of its facts.
type Facts struct {
	Tables     []string // nil: all
	Columns    []string // nil: all
	Statements []Listed // that executeStatement may name
	ReadOnly   bool
}

// ParseFacts finds them among the facts of an invocation, a JSON array; nil is for none. The error is a refusal: they are of
// no form that can be kept to.
func ParseFacts(facts []byte) (*Facts, error) {
	var list []json.RawMessage
	if len(facts) == 0 || json.Unmarshal(facts, &list) != nil {
		return nil, nil
	}
	for _, v := range list {
		var m map[string]json.RawMessage
		if json.Unmarshal(v, &m) != nil || m["sqlCaveats"] == nil {
			continue
		}
		var f struct {
			Tables, Columns []string
			Statements      []struct{ Name, SQL *string }
			ReadOnly        bool
		}
		if err := json.Unmarshal(m["sqlCaveats"], &f); err != nil {
			return nil, tinycloud.Refuse(tinycloud.ErrInvalid, "sqlCaveats: %v", err)
		}
		out := &Facts{Tables: f.Tables, Columns: f.Columns, ReadOnly: f.ReadOnly}
		for _, s := range f.Statements {
			if s.Name == nil || s.SQL == nil {
				return nil, tinycloud.Refuse(tinycloud.ErrInvalid, "sqlCaveats: statements: name and sql are required")
			}
			out.Statements = append(out.Statements, Listed{Name: *s.Name, SQL: *s.SQL})
		}
		return out, nil
	}
	return nil, nil
}

// Resolve returns the statement that a request names. f may be nil. The error is a refusal.
func (f *Facts) Resolve(r *request.Request) (request.Statement, error) {
	if f == nil || f.Statements == nil {
		return request.Statement{}, tinycloud.Refuse(tinycloud.ErrInvalid, "Invalid statement: No caveats found")
	}
	for _, l := range f.Statements {
		if l.Name == r.Name {
			return request.Statement{SQL: l.SQL, Params: r.Statements[0].Params}, nil
		}
	}
	return request.Statement{}, tinycloud.Refuse(tinycloud.ErrInvalid, "Invalid statement: Statement '%s' not found", r.Name)
}

// Permit checks a statement of a kind. f may be nil. The error is a refusal.
func (f *Facts) Permit(s Statement) error {
	if f != nil && f.ReadOnly && s.Writes() {
		return errReadOnly
	}
	return nil
}

func (f *Facts) table(name string) bool  { return f.Tables == nil || listed(f.Tables, name) }
func (f *Facts) column(name string) bool { return f.Columns == nil || listed(f.Columns, name) }
func listed(list []string, s string) bool {
	return slices.ContainsFunc(list, func(x string) bool { return strings.EqualFold(x, s) })
}
