package recap

import (
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// MaxDepth bounds how deep JSON values may nest.
const MaxDepth = 32

// Kind is the kind of a JSON value.
type Kind byte

// The kinds of JSON value.
const (
	Null Kind = iota
	Bool
	Number
	String
	Array
	Object
)

// Value is a JSON value. Raw is its text as received.
type Value struct {
	Kind    Kind
	Raw     string
	Text    string // of a String, unescaped
	Items   []Value
	Members []Member // of an Object, as received; names are unique
}

// Member is a named value of an object.
type Member struct {
	Name  string
	Value Value
}

// Get returns a member of an object.
func (v Value) Get(name string) (Value, bool) {
	for i := range v.Members {
		if v.Members[i].Name == name {
			return v.Members[i].Value, true
		}
	}
	return Value{}, false
}

// ParseJSON reads one JSON value of RFC 8259 that fills the text. Beyond the grammar it refuses a
// member named twice, a lone surrogate, invalid UTF-8 and nesting over [MaxDepth]. The caller bounds
// the size. The error is of class [tinycloud.ErrUndecodable].
func ParseJSON(text string) (Value, error) {
	p := &parser{s: text}
	if !utf8.ValidString(text) {
		return Value{}, fmt.Errorf("JSON: not UTF-8: %w", tinycloud.ErrUndecodable)
	}
	p.space()
	v, ok := p.value(0)
	p.space()
	if !ok || p.i != len(text) {
		if p.why == "" {
			p.why = "syntax"
		}
		return Value{}, fmt.Errorf("JSON: %s at byte %d: %w", p.why, p.i, tinycloud.ErrUndecodable)
	}
	return v, nil
}

type parser struct {
	s   string
	i   int
	why string
}

func (p *parser) space() {
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case ' ', '\t', '\n', '\r':
			p.i++
		default:
			return
		}
	}
}

// eat consumes c, after white space, if it is next.
func (p *parser) eat(c byte) bool {
	p.space()
	if p.i < len(p.s) && p.s[p.i] == c {
		p.i++
		return true
	}
	return false
}

func (p *parser) fail(why string) bool {
	if p.why == "" {
		p.why = why
	}
	return false
}

func (p *parser) value(depth int) (v Value, ok bool) {
	if depth > MaxDepth {
		return v, p.fail("nesting")
	}
	p.space()
	if p.i == len(p.s) {
		return v, p.fail("text ends early")
	}
	start := p.i
	switch c := p.s[p.i]; {
	case c == '{':
		v.Kind = Object
		ok = p.object(&v, depth)
	case c == '[':
		v.Kind = Array
		ok = p.array(&v, depth)
	case c == '"':
		v.Kind = String
		v.Text, ok = p.text()
	case c == 't':
		v.Kind, ok = Bool, p.word("true")
	case c == 'f':
		v.Kind, ok = Bool, p.word("false")
	case c == 'n':
		v.Kind, ok = Null, p.word("null")
	default:
		v.Kind, ok = Number, p.number()
	}
	v.Raw = p.s[start:p.i]
	return v, ok
}

func (p *parser) word(w string) bool {
	if len(p.s)-p.i < len(w) || p.s[p.i:p.i+len(w)] != w {
		return p.fail("syntax")
	}
	p.i += len(w)
	return true
}

func (p *parser) array(v *Value, depth int) bool {
	p.i++
	if p.eat(']') {
		return true
	}
	for {
		item, ok := p.value(depth + 1)
		if !ok {
			return false
		}
		v.Items = append(v.Items, item)
		if p.eat(']') {
			return true
		}
		if !p.eat(',') {
			return p.fail("expected , or ]")
		}
	}
}

// outerMembers is how many members there is room for in the outermost object before it grows: a token has as many.
const outerMembers = 8

// manyMembers is where looking a name up in a map beats looking through the list.
const manyMembers = 16

// usualMembers is how many a token has at most, as a rule.
const usualMembers = 8

func (p *parser) object(v *Value, depth int) bool {
	p.i++
	if p.eat('}') {
		return true
	}
	if depth == 0 {
		v.Members = make([]Member, 0, usualMembers)
	} else {
		v.Members = make([]Member, 0, 1)
	}
	var seen map[string]bool
	for {
		p.space()
		if p.i == len(p.s) || p.s[p.i] != '"' {
			return p.fail("expected a name")
		}
		name, ok := p.text()
		if !ok || !p.eat(':') {
			return p.fail("expected :")
		}
		if _, twice := v.Get(name); twice && seen == nil || seen[name] {
			return p.fail("member " + strconv.Quote(clip(name)) + " twice")
		}
		value, ok := p.value(depth + 1)
		if !ok {
			return false
		}
		if v.Members == nil && depth == 0 {
			v.Members = make([]Member, 0, outerMembers)
		}
		v.Members = append(v.Members, Member{name, value})
		switch {
		case seen != nil:
			seen[name] = true
		case len(v.Members) >= manyMembers:
			seen = make(map[string]bool)
			for _, m := range v.Members {
				seen[m.Name] = true
			}
		}
		if p.eat('}') {
			return true
		}
		if !p.eat(',') {
			return p.fail("expected , or }")
		}
	}
}

func (p *parser) number() bool {
	digits := func() bool {
		from := p.i
		for p.i < len(p.s) && p.s[p.i] >= '0' && p.s[p.i] <= '9' {
			p.i++
		}
		return p.i > from
	}
	at := func(set string) bool {
		for _, c := range []byte(set) {
			if p.i < len(p.s) && p.s[p.i] == c {
				p.i++
				return true
			}
		}
		return false
	}
	at("-")
	if !at("0") && !digits() {
		return p.fail("syntax")
	}
	if at(".") && !digits() {
		return p.fail("number")
	}
	if at("eE") {
		at("+-")
		if !digits() {
			return p.fail("number")
		}
	}
	return true
}

// text reads a string literal.
func (p *parser) text() (string, bool) {
	p.i++
	from := p.i
	for p.i < len(p.s) {
		switch c := p.s[p.i]; {
		case c == '"':
			p.i++
			return p.s[from : p.i-1], true
		case c < ' ':
			return "", p.fail("control character")
		case c == '\\':
			return p.escaped(from)
		}
		p.i++
	}
	return "", p.fail("text ends early")
}

// escaped reads on from the first escape of the literal that began at from.
func (p *parser) escaped(from int) (string, bool) {
	out := []byte(p.s[from:p.i])
	for p.i < len(p.s) {
		c := p.s[p.i]
		p.i++
		switch {
		case c == '"':
			return string(out), true
		case c < ' ':
			return "", p.fail("control character")
		case c != '\\':
			out = append(out, c)
		default:
			r, ok := p.escape()
			if !ok {
				return "", p.fail("escape")
			}
			out = utf8.AppendRune(out, r)
		}
	}
	return "", p.fail("text ends early")
}

func (p *parser) escape() (rune, bool) {
	if p.i == len(p.s) {
		return 0, false
	}
	c := p.s[p.i]
	p.i++
	switch c {
	case '"', '\\', '/':
		return rune(c), true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	case 'u':
		r, ok := p.hex4()
		if !ok || !utf16.IsSurrogate(r) {
			return r, ok
		}
		if len(p.s)-p.i < 2 || p.s[p.i:p.i+2] != `\u` {
			return 0, false
		}
		p.i += 2
		low, ok := p.hex4()
		r = utf16.DecodeRune(r, low)
		return r, ok && r != utf8.RuneError
	}
	return 0, false
}

func (p *parser) hex4() (rune, bool) {
	if len(p.s)-p.i < 4 {
		return 0, false
	}
	var r rune
	for _, c := range []byte(p.s[p.i : p.i+4]) {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	p.i += 4
	return r, true
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
