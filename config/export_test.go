package config

import (
	"errors"
	"maps"
	"slices"
)

// Default returns what an empty file and an empty environment give.
func Default() Config {
	c := defaults()
	c.derive()
	return c
}

// SettingNames lists the keys a file may hold.
func SettingNames() []string {
	var names []string
	for _, s := range settings() {
		names = append(names, s.name)
	}
	return names
}

// EnvValue describes how the value of a variable is read, for tests of its grammar.
func EnvValue(raw string) string { return describe(parseEnvValue(raw)) }

func describe(v value) string {
	switch v.kind {
	case kindList:
		s := "["
		for _, item := range v.list {
			s += describe(item) + ";"
		}
		return s + "]"
	case kindTable:
		s := "{"
		for _, name := range sortedKeys(v.table) {
			s += name + "=" + describe(v.table[name]) + ";"
		}
		return s + "}"
	}
	return v.kind.String() + ":" + v.text
}

func sortedKeys(m map[string]value) []string { return slices.Sorted(maps.Keys(m)) }

// LoadText loads a document that is in no file.
func LoadText(text string) (Config, []Warning, error) {
	doc, err := parseDocument("tinycloud.toml", text)
	if err != nil {
		return Config{}, nil, err
	}
	l := newLoader()
	l.addDocument(doc)
	c := l.build(func(*Config) {})
	return c, l.warnings, errors.Join(l.errs...)
}

// UserDatadir is where a user's data are on a system.
func UserDatadir(system string, getenv func(string) string) string {
	return userDatadir(system, getenv)
}
