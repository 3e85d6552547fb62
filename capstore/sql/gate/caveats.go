package gate

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/caveat"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// Constrained is the caveat "constrained-statements" of a delegation: only the statements that it lists may run, and only
// to read.
type Constrained caveat.Constrained

// Listed is a statement that a caveat, or a fact, lists.
type Listed = caveat.Listed

// ParseConstrained reads the caveats of a capability, a JSON array of objects, and returns the first that constrains
// statements, or nil. The error is a refusal: the caveat cannot be kept to.
func ParseConstrained(caveats []byte) (*Constrained, error) {
	c, err := caveat.Parse(caveats)
	return (*Constrained)(c), err
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
	l := (*caveat.Constrained)(c).Listed(r.Name)
	switch {
	case l == nil:
		return request.Statement{}, code("sql-statement-not-allowed")
	case writeWords.MatchString(l.SQL):
		return request.Statement{}, code("sql-write-blocked")
	case severalStatements(l.SQL):
		return request.Statement{}, code("sql-multistatement-blocked")
	}
	params, err := bind(l, r.Statements[0].Params)
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

// bind puts the caller's parameters and the fixed ones together.
func bind(l *Listed, free []any) ([]any, error) {
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
