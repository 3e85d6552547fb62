package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// variable is one NAME=value pair of ours, without its prefix.
type variable struct {
	name string // as given, with prefix
	rest string // upper case, without prefix
	raw  string
}

type environ struct {
	configFile string
	tinycloud  []variable
	rocket     []variable
}

// splitEnviron picks TINYCLOUD_* and ROCKET_* in any case. Where names differ in case alone the one in capitals is
// last and wins.
func splitEnviron(pairs []string) environ {
	var env environ
	pairs = slices.Clone(pairs)
	slices.SortStableFunc(pairs, func(a, b string) int {
		left, _, _ := strings.Cut(a, "=")
		right, _, _ := strings.Cut(b, "=")
		return strings.Compare(right, left)
	})
	for _, pair := range pairs {
		name, raw, ok := strings.Cut(pair, "=")
		if !ok {
			continue
		}
		prefix, rest, _ := strings.Cut(strings.ToUpper(name), "_")
		v := variable{name, rest, raw}
		switch {
		case rest == "":
		case prefix == "TINYCLOUD" && rest == "CONFIG_FILE":
			env.configFile = raw
		case prefix == "TINYCLOUD":
			env.tinycloud = append(env.tinycloud, v)
		case prefix == "ROCKET":
			env.rocket = append(env.rocket, v)
		}
	}
	return env
}

// spellings maps the variable names of all keys and tables, "_" or "__" for ".", to their keys.
func (l *loader) spellings() (single, double map[string]string) {
	single, double = map[string]string{}, map[string]string{}
	enter := func(name string) {
		upper := strings.ToUpper(name)
		single[strings.ReplaceAll(upper, ".", "_")] = name
		double[strings.ReplaceAll(upper, ".", "__")] = name
	}
	for name := range l.settings {
		enter(name)
	}
	for name := range l.tables {
		enter(name)
	}
	return single, double
}

// addTinycloud takes variables that name a table first, then keys by their own name, then keys by "__" nesting.
func (l *loader) addTinycloud(vars []variable) {
	type match struct {
		variable
		key  string
		rank int
	}
	single, double := l.spellings()
	var matches []match
	for _, v := range vars {
		key, ok := single[v.rest]
		m := match{v, key, 1}
		if !ok {
			m.key, ok = double[v.rest]
			m.rank = 2
		}
		if !ok {
			l.addUnknown(v)
			continue
		}
		if l.tables[m.key] {
			m.rank = 0
		}
		matches = append(matches, m)
	}
	slices.SortStableFunc(matches, func(a, b match) int {
		if a.rank == 0 && b.rank == 0 {
			return len(a.key) - len(b.key)
		}
		return a.rank - b.rank
	})
	before := map[string]variable{}
	for _, m := range matches {
		if other, ok := before[m.key]; ok && other.raw != m.raw {
			l.warn(m.key, origin{env: other.name}, fmt.Sprintf("%s says otherwise and wins", m.name))
		}
		before[m.key] = m.variable
		l.addVariable(m.key, m.variable)
	}
}

func (l *loader) addVariable(key string, v variable) {
	parsed := parseEnvValue(v.raw)
	if key == "admin.secret" {
		// Clients send it as the variable has it.
		parsed = value{kind: kindString, text: v.raw}
	}
	l.add(strings.Split(key, "."), parsed, origin{env: v.name})
}

// addUnknown warns about a variable that names no setting of ours.
func (l *loader) addUnknown(v variable) {
	from := origin{env: v.name}
	key := strings.ToLower(v.rest)
	for _, name := range []string{key, strings.ReplaceAll(key, "__", "."), strings.ReplaceAll(key, "_", ".")} {
		if unserved(name) {
			l.warnUnserved(v.name, from)
			return
		}
	}
	switch {
	case strings.HasPrefix(key, "share_email_"): // a group with "_" in its own name
		l.warnUnserved(v.name, from)
	case strings.HasPrefix(key, "tls_"):
		l.fail(from, v.name, errors.New("unknown setting")) // a node that was to speak TLS is not to start without
	default:
		l.warn(v.name, from, "unknown setting, ignored")
	}
}

// addRocket takes ROCKET_* variables: a top-level key or table each, "_" is part of its name.
func (l *loader) addRocket(vars []variable) {
	for _, v := range vars {
		key := strings.ToLower(v.rest)
		_, known := l.settings[key]
		switch {
		case known || l.tables[key]:
			l.addVariable(key, v)
		case unserved(key):
			l.warnUnserved(v.name, origin{env: v.name})
		case key == "config":
			l.warn(v.name, origin{env: v.name}, "has no effect")
		default:
			l.warn(v.name, origin{env: v.name}, "unknown setting, ignored")
		}
	}
}
