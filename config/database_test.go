package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

func database(t *testing.T, text string) config.Database {
	t.Helper()
	d, err := config.ParseDatabase(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestParseDatabase(t *testing.T) {
	for _, tt := range []struct {
		text   string
		scheme config.Scheme
		path   string
		dsn    string
	}{
		{"sqlite:./data/caps.db", config.SQLite, "./data/caps.db", "sqlite:./data/caps.db"},
		{"sqlite:///var/caps.db", config.SQLite, "/var/caps.db", "sqlite:/var/caps.db"},
		{"sqlite://caps.db?mode=rwc", config.SQLite, "caps.db", "sqlite:caps.db"},
		{"sqlite:a%20b%3F.db", config.SQLite, "a b?.db", "sqlite:a b%3F.db"},
		{"SQLite:x", config.SQLite, "x", "sqlite:x"},
		{"./caps.db", config.SQLite, "./caps.db", "sqlite:./caps.db"},
		{"a%20b", config.SQLite, "a%20b", "sqlite:a%2520b"},
		{`C:\data\caps.db`, config.SQLite, `C:\data\caps.db`, `sqlite:C:\data\caps.db`},
		{"sqlite::memory:", config.SQLite, "", "sqlite::memory:"},
		{"sqlite://:memory:", config.SQLite, "", "sqlite::memory:"},
		{":memory:", config.SQLite, "", "sqlite::memory:"},
		{"sqlite:x?mode=memory", config.SQLite, "", "sqlite::memory:"},
		{"postgres://u:p@h:5432/db?sslmode=disable", config.Postgres, "", "postgres://u:p@h:5432/db?sslmode=disable"},
		{"postgresql:///db?host=/run/pg", config.Postgres, "", "postgresql:///db?host=/run/pg"},
		{"mysql://h/db", config.MySQL, "", "mysql://h/db"},
		{"mariadb://h", config.MySQL, "", "mariadb://h"},
	} {
		t.Run(tt.text, func(t *testing.T) {
			d := database(t, tt.text)
			if d.Scheme() != tt.scheme || d.Path() != tt.path || d.DSN() != tt.dsn || d.IsZero() {
				t.Errorf("%q: %s, path %q, DSN %q", tt.text, d.Scheme(), d.Path(), d.DSN())
			}
			if d.InMemory() != (tt.scheme == config.SQLite && tt.path == "") {
				t.Errorf("InMemory() = %v", d.InMemory())
			}
		})
	}
}

func TestParseDatabaseRefuses(t *testing.T) {
	for _, text := range []string{
		"", "sqlite:", "sqlite://", "sqlite:%zz", "sqlite:x?mode=ro", "sqlite:x?cache=shared", "sqlite:x?mode=rw&mode=rw", "sqlite:a%00b", "a\x00b",
		"mssql://h/db", "oracle:x", "postgres:", "postgres:h/db", "postgres:///db", "postgres://hunter2@:x/db", "postgres://u:hunter2#x@h/db", "postgres://h:0/db",
		"postgres://h:70000/", "mysql://u:hunter2/3@h/db", "postgres//u:hunter2@h/db", "mysql:/u:hunter2@h/db", "mysql://h/?%zz",
	} {
		d, err := config.ParseDatabase(text)
		if err == nil {
			t.Errorf("ParseDatabase(%q) = %v", text, d)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error shows the password: %v", err)
		}
	}
}

func TestDatabasePrintsNoPassword(t *testing.T) {
	d := database(t, "postgres://user:hunter2@h/db?password=hunter2")
	text, err := d.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range append(spellings(d), string(text), spellings(config.Config{Storage: config.Storage{Database: d}})[0]) {
		if strings.Contains(s, "hunter2") {
			t.Errorf("shows the password: %s", s)
		}
	}
	if got, want := d.String(), "postgres://user:REDACTED@h/db?REDACTED"; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
}

// spellings prints v in every way a log or a panic might.
func spellings[T any](v T) []string {
	var out []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
		out = append(out, fmt.Sprintf(verb, v), fmt.Sprintf(verb, &v), fmt.Sprintf(verb, []T{v}))
	}
	return out
}
