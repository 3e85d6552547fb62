package request

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Parse reads a body. Its errors are refusals that name the member they are about, of class [tinycloud.ErrTooLarge] or
// [tinycloud.ErrInvalid]. Members that it does not know are ignored.
func Parse(body []byte) (Request, error) {
	if len(body) > MaxBody {
		return Request{}, tinycloud.Refuse(tinycloud.ErrTooLarge, "Request body of more than %d bytes", MaxBody)
	}
	if !utf8.Valid(body) {
		return Request{}, invalid("request body is not UTF-8")
	}
	p := &parser{json.NewDecoder(bytes.NewReader(body))}
	p.UseNumber()
	if len(bytes.TrimSpace(body)) == 0 {
		return Request{}, invalid("EOF while parsing a value: the request body is empty")
	}
	if !json.Valid(body) {
		return Request{}, invalid("request body is not JSON: %v", json.Unmarshal(body, new(json.RawMessage)))
	}
	var r Request
	m, err := p.members(body)
	if err == nil {
		err = m.read(&r)
	}
	if err != nil {
		return Request{}, err
	}
	return r, nil
}

// parser reads JSON that is valid.
type parser struct{ *json.Decoder }

// object are the members of an object.
type object map[string]json.RawMessage

// members reads an object and refuses one with two members of a name.
func (p *parser) members(text []byte) (object, error) {
	if kind := kindOf(text); kind != "map" {
		return nil, invalid("invalid type: %s, expected an object with the member `action`", kind)
	}
	m := object{}
	_, err := p.Token() // {
	for err == nil && p.More() {
		var name json.Token
		if name, err = p.Token(); err != nil {
			break
		}
		if _, twice := m[name.(string)]; twice {
			return nil, invalid("duplicate field `%s`", name)
		}
		var v json.RawMessage
		err = p.Decode(&v)
		m[name.(string)] = v
	}
	if err != nil {
		return nil, invalid("request body is not JSON: %v", err)
	}
	return m, nil
}

func membersOf(text json.RawMessage) (object, error) {
	p := &parser{json.NewDecoder(bytes.NewReader(text))}
	return p.members(text)
}

func (m object) read(r *Request) (err error) {
	action, err := m.text("action")
	if err != nil {
		return err
	}
	if action == "execute_statement" { // as the SDK spells it
		action = string(ExecuteStatement)
	}
	switch r.Action = Action(action); r.Action {
	case Query:
		r.Statements = make([]Statement, 1)
		if err = m.statement(&r.Statements[0]); err == nil {
			if r.MaxRows, err = m.bound("maxRows", MaxRows); err == nil {
				r.MaxBytes, err = m.bound("maxBytes", MaxBytes)
			}
		}
	case Execute:
		r.Statements = make([]Statement, 1)
		if err = m.statement(&r.Statements[0]); err == nil {
			r.Schema, err = m.schema()
		}
	case Batch:
		r.Statements, err = m.statements()
	case ExecuteStatement:
		r.Statements = make([]Statement, 1)
		if r.Name, err = m.text("name"); err == nil {
			r.Statements[0].Params, err = m.params()
		}
	case Export:
	case Outcome:
		var epoch string
		if epoch, err = m.text("epoch"); err == nil {
			if r.Epoch, err = tinycloud.ParseCID(epoch); err != nil {
				err = invalid("epoch: %v", err)
			}
		}
	default:
		err = invalid("action: unknown variant `%s`, expected one of `query`, `execute`, `batch`, `executeStatement`, `export`, `outcome`", action)
	}
	return err
}

// kindOf names the kind of a value.
func kindOf(text []byte) string {
	switch c := bytes.TrimSpace(text)[0]; c {
	case '{':
		return "map"
	case '[':
		return "sequence"
	case '"':
		return "string"
	case 't', 'f':
		return "boolean"
	case 'n':
		return "null"
	default:
		if bytes.ContainsAny(text, ".eE") {
			return "floating point `" + string(text) + "`"
		}
		return "integer `" + string(text) + "`"
	}
}

func (m object) text(name string) (s string, err error) {
	v, there := m[name]
	if !there {
		return "", invalid("missing field `%s`", name)
	}
	return asText(name, v)
}

func asText(name string, v json.RawMessage) (s string, err error) {
	if v[0] != '"' {
		return "", invalid("%s: invalid type: %s, expected a string", name, kindOf(v))
	}
	if err := json.Unmarshal(v, &s); err != nil {
		return "", invalid("%s: %v", name, err)
	}
	return s, nil
}

// list are the elements of an array; there is none where the member is missing.
func (m object) list(name string) (list []json.RawMessage, err error) {
	v, there := m[name]
	if !there {
		return nil, nil
	}
	if v[0] != '[' {
		return nil, invalid("%s: invalid type: %s, expected a sequence", name, kindOf(v))
	}
	if err := json.Unmarshal(v, &list); err != nil {
		return nil, invalid("%s: %v", name, err)
	}
	return list, nil
}

func (m object) statement(s *Statement) (err error) {
	if s.SQL, err = m.text("sql"); err == nil {
		s.Params, err = m.params()
	}
	return err
}

func (m object) params() ([]any, error) {
	list, err := m.list("params")
	if err != nil || len(list) == 0 {
		return nil, err
	}
	params := make([]any, len(list))
	for i, v := range list {
		if params[i], err = value(v); err != nil {
			return nil, invalid("params[%d]: %v", i, err)
		}
	}
	return params, nil
}

func (m object) statements() ([]Statement, error) {
	if _, there := m["statements"]; !there {
		return nil, invalid("missing field `statements`")
	}
	list, err := m.list("statements")
	if err != nil {
		return nil, err
	}
	all := make([]Statement, len(list))
	for i, v := range list {
		one, err := membersOf(v)
		if err == nil {
			err = one.statement(&all[i])
		}
		if err != nil {
			return nil, invalid("statements[%d]: %v", i, err)
		}
	}
	return all, nil
}

func (m object) schema() ([]string, error) {
	if string(m["schema"]) == "null" {
		return nil, nil
	}
	list, err := m.list("schema")
	if err != nil || len(list) == 0 {
		return nil, err
	}
	all := make([]string, len(list))
	for i, v := range list {
		if all[i], err = asText(fmt.Sprintf("schema[%d]", i), v); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// bound is a number from 1 to most, 0 where there is none.
func (m object) bound(name string, most int) (int, error) {
	v, there := m[name]
	if !there || string(v) == "null" {
		return 0, nil
	}
	n, err := strconv.ParseUint(string(v), 10, 64)
	if err != nil {
		what := "type"
		if kind := kindOf(v); strings.HasPrefix(kind, "integer") {
			what = "value"
		}
		return 0, invalid("%s: invalid %s: %s, expected usize", name, what, kindOf(v))
	}
	if n < 1 || n > uint64(most) {
		return 0, invalid("Invalid statement: %s must be between 1 and %d", name, most)
	}
	return int(n), nil
}

// value reads a parameter.
func value(v json.RawMessage) (any, error) {
	switch v[0] {
	case 'n':
		return nil, nil
	case 't':
		return int64(1), nil
	case 'f':
		return int64(0), nil
	case '"':
		return asText("text", v)
	case '[':
		return blob(v)
	case '{':
		return blobOfMembers(v)
	}
	return number(string(v))
}

// number reads a number: INTEGER if it is written as one and within 64 bits, REAL otherwise.
func number(s string) (any, error) {
	if !strings.ContainsAny(s, ".eE") && s != "-0" {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return n, nil
		}
		if _, err := strconv.ParseUint(s, 10, 64); err == nil {
			return nil, fmt.Errorf("SQLite integers must fit in signed 64 bits")
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return nil, fmt.Errorf("number out of range")
	}
	return f, nil
}

func blob(v json.RawMessage) (any, error) {
	var list []json.RawMessage
	if err := json.Unmarshal(v, &list); err != nil {
		return nil, err
	}
	b := make([]byte, len(list))
	for i, v := range list {
		n, err := octet(v)
		if err != nil {
			return nil, err
		}
		b[i] = n
	}
	return b, nil
}

func octet(v json.RawMessage) (byte, error) {
	switch n, err := strconv.ParseUint(string(v), 10, 8); {
	case err == nil:
		return byte(n), nil
	case v[0] == '-' || v[0] >= '0' && v[0] <= '9':
		return 0, fmt.Errorf("invalid value: %s, expected u8", kindOf(v))
	case v[0] == '"':
		return 0, fmt.Errorf("invalid type: string %s, expected u8", v)
	}
	return 0, fmt.Errorf("invalid type: %s, expected u8", kindOf(v))
}

// blobOfMembers reads what JSON.stringify makes of a Uint8Array: its bytes under their indexes.
func blobOfMembers(v json.RawMessage) (any, error) {
	none := fmt.Errorf("invalid type: map, expected a SQL value (null, integer, real, string, or byte array)")
	m, err := membersOf(v)
	if err != nil {
		return nil, none
	}
	b := make([]byte, len(m))
	for i := range b {
		v, there := m[strconv.Itoa(i)]
		if !there {
			return nil, none
		}
		if b[i], err = octet(v); err != nil {
			return nil, none
		}
	}
	return b, nil
}

// ParseValue reads a parameter from compact JSON.
func ParseValue(v []byte) (any, error) {
	if len(v) == 0 || !json.Valid(v) {
		return nil, invalid("value is not JSON")
	}
	return value(v)
}
