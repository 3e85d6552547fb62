package config

import (
	"strconv"
	"strings"
)

// maxEnvDepth bounds the nesting of a variable's value; no setting needs more than three.
const maxEnvDepth = 16

// parseEnvValue reads the value of a variable: true and false, integers, numbers with a point, [a, b], {k=v},
// "quoted" and 'c'. What is none of these as a whole is a string as it stands.
func parseEnvValue(raw string) value {
	p := envParser{rest: strings.TrimSpace(raw)}
	v, ok := p.value(0)
	if !ok || p.rest != "" {
		return value{kind: kindString, text: strings.TrimSpace(raw), loose: true}
	}
	return v
}

type envParser struct{ rest string }

// value reads one value and the blanks after it.
func (p *envParser) value(depth int) (value, bool) {
	if depth > maxEnvDepth {
		return value{}, false
	}
	defer p.blanks()
	switch {
	case p.skip("["):
		return p.list(depth)
	case p.skip("{"):
		return p.table(depth)
	case p.skip(`"`):
		text, ok := p.quoted()
		return value{kind: kindString, text: text}, ok
	}
	text := p.bare()
	if c := []rune(text); len(c) == 3 && c[0] == '\'' && c[2] == '\'' {
		return value{kind: kindString, text: string(c[1])}, true
	}
	return value{kind: scalarKind(text), text: text, loose: true}, true
}

func (p *envParser) list(depth int) (value, bool) {
	v := value{kind: kindList, loose: true}
	for p.blanks(); !p.skip("]"); p.blanks() {
		if len(v.list) > 0 && !p.skip(",") {
			return value{}, false
		}
		if p.blanks(); len(v.list) > 0 && p.skip("]") {
			return v, true
		}
		before := len(p.rest)
		item, ok := p.value(depth + 1)
		if !ok || len(p.rest) == before {
			return value{}, false
		}
		v.list = append(v.list, item)
	}
	return v, true
}

func (p *envParser) table(depth int) (value, bool) {
	v := value{kind: kindTable, table: map[string]value{}, loose: true}
	for p.blanks(); !p.skip("}"); p.blanks() {
		if len(v.table) > 0 && !p.skip(",") {
			return value{}, false
		}
		if p.blanks(); len(v.table) > 0 && p.skip("}") {
			return v, true
		}
		name, rest, ok := strings.Cut(p.rest, "=")
		name = strings.ToLower(strings.Trim(strings.TrimSpace(name), `"`))
		if _, twice := v.table[name]; !ok || twice || !isKey(name) {
			return value{}, false
		}
		p.rest = rest
		p.blanks()
		item, ok := p.value(depth + 1)
		if !ok {
			return value{}, false
		}
		v.table[name] = item
	}
	return v, true
}

// quoted reads up to the closing quote.
func (p *envParser) quoted() (string, bool) {
	var b strings.Builder
	for i := 0; i < len(p.rest); i++ {
		c := p.rest[i]
		switch {
		case c == '"':
			p.rest = p.rest[i+1:]
			return b.String(), true
		case c == '\\' && i+1 < len(p.rest):
			i++
			escaped, ok := unescape(p.rest[i])
			if !ok {
				return "", false
			}
			b.WriteByte(escaped)
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

// bare reads up to what may end a value inside brackets.
func (p *envParser) bare() string {
	i := strings.IndexAny(p.rest, ",[]{}")
	if i < 0 {
		i = len(p.rest)
	}
	text := strings.TrimSpace(p.rest[:i])
	p.rest = p.rest[i:]
	return text
}

func (p *envParser) blanks() { p.rest = strings.TrimLeft(p.rest, " \t\r\n") }

func (p *envParser) skip(prefix string) bool {
	rest, ok := strings.CutPrefix(p.rest, prefix)
	p.rest = rest
	return ok
}

func scalarKind(text string) kind {
	if text == "true" || text == "false" {
		return kindBool
	}
	digits, rest := cutDigits(strings.TrimLeft(text, "+-"))
	if digits != "" && rest == "" && len(text) <= len(digits)+1 {
		return kindInteger
	}
	if _, err := strconv.ParseFloat(text, 64); err == nil && strings.Contains(text, ".") {
		return kindFloat
	}
	return kindString
}

func unescape(c byte) (byte, bool) {
	switch c {
	case '"', '\\':
		return c, true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	}
	return 0, false
}

func isKey(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return s != ""
}
