package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
)

// Scheme is a kind of database.
type Scheme string

// The kinds of database.
const (
	SQLite   Scheme = "sqlite"
	Postgres Scheme = "postgres"
	MySQL    Scheme = "mysql"
)

// Database says where the database is. It prints without its password. The zero Database is unset.
type Database struct {
	scheme Scheme
	path   string // sqlite: the file, "" in memory
	dsn    string // others: the URL as given
}

// ParseDatabase reads sqlite:PATH, sqlite://PATH, a bare path, sqlite::memory:, postgres://… (also postgresql://)
// or mysql://… (also mariadb://). The PATH of an sqlite URL is percent-decoded and may be followed by ?mode=rwc, rw
// or memory. Its errors do not repeat what may hold a password.
func ParseDatabase(text string) (Database, error) {
	if strings.ContainsRune(text, 0) {
		return Database{}, errors.New("holds a NUL")
	}
	scheme, rest, ok := strings.Cut(text, ":")
	if text == ":memory:" || !ok || !isScheme(scheme) {
		if text != ":memory:" && strings.ContainsRune(text[min(2, len(text)):], ':') {
			// More likely a misspelt URL than a file.
			return Database{}, errors.New("neither a URL nor a plain path (write sqlite:PATH for a path with a colon)")
		}
		return parseSQLite(text, func(s string) (string, error) { return s, nil })
	}
	switch strings.ToLower(scheme) {
	case "sqlite":
		return parseSQLite(strings.TrimPrefix(rest, "//"), url.PathUnescape)
	case "postgres", "postgresql":
		return parseServer(Postgres, text)
	case "mysql", "mariadb":
		return parseServer(MySQL, text)
	}
	return Database{}, fmt.Errorf("unknown scheme %q, expected sqlite, postgres or mysql", scheme)
}

// Scheme returns the kind of database.
func (d Database) Scheme() Scheme { return d.scheme }

// Path returns the file of an sqlite database, "" when it is in memory or on a server.
func (d Database) Path() string { return d.path }

// InMemory reports whether the database is forgotten at exit.
func (d Database) InMemory() bool { return d.scheme == SQLite && d.path == "" }

// IsZero reports whether no database is set.
func (d Database) IsZero() bool { return d.scheme == "" }

// DSN returns the URL of the database with its password.
func (d Database) DSN() string {
	switch {
	case d.scheme != SQLite:
		return d.dsn
	case d.path == "":
		return "sqlite::memory:"
	}
	return "sqlite:" + escapePath(d.path)
}

// Equal reports whether both say the same place in the same words.
func (d Database) Equal(e Database) bool { return d == e }

// String returns the URL with REDACTED for its password and for what its query may hide.
func (d Database) String() string {
	if d.scheme == SQLite || d.IsZero() {
		return d.DSN()
	}
	u, err := url.Parse(d.dsn)
	if err != nil {
		return string(d.scheme) + "://" + redacted // ParseDatabase lets none through
	}
	if _, ok := u.User.Password(); ok {
		u.User = url.UserPassword(u.User.Username(), redacted)
	}
	if u.RawQuery != "" {
		u.RawQuery = redacted
	}
	u.Fragment = ""
	return u.String()
}

// GoString hides the password from %#v.
func (d Database) GoString() string { return fmt.Sprintf("config.Database(%q)", d.String()) }

// Format hides the password from every verb.
func (d Database) Format(f fmt.State, verb rune) {
	text := d.String()
	switch {
	case verb == 'v' && f.Flag('#'):
		text = d.GoString()
	case verb == 'q':
		text = strconv.Quote(text)
	}
	_, _ = f.Write([]byte(text)) // fmt has no place for an error
}

// MarshalText hides the password from encoders.
func (d Database) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// LogValue hides the password from slog.
func (d Database) LogValue() slog.Value { return slog.StringValue(d.String()) }

// isScheme tells a scheme from the beginning of a path; one letter is a Windows drive.
func isScheme(s string) bool {
	if len(s) < 2 || !isLetter(s[0]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && (c < '0' || c > '9') && c != '+' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func parseSQLite(text string, unescape func(string) (string, error)) (Database, error) {
	raw, query, _ := strings.Cut(text, "?")
	path, err := unescape(raw)
	if err != nil {
		return Database{}, fmt.Errorf("path %q: wrong percent-encoding", raw)
	}
	if path == "" || strings.ContainsRune(path, 0) {
		return Database{}, fmt.Errorf("%q is not a path to a database", path)
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return Database{}, errors.New("wrong query after ?")
	}
	memory := path == ":memory:"
	for name, all := range values {
		if name != "mode" || len(all) != 1 {
			return Database{}, fmt.Errorf("sqlite parameter %q is not known, expected one mode", name)
		}
		switch all[0] {
		case "rwc", "rw":
		case "memory":
			memory = true
		default:
			return Database{}, fmt.Errorf("sqlite mode %q cannot serve, expected rwc, rw or memory", all[0])
		}
	}
	if memory {
		path = ""
	}
	return Database{scheme: SQLite, path: path}, nil
}

func parseServer(scheme Scheme, text string) (Database, error) {
	bad := func(why string) (Database, error) { return Database{}, fmt.Errorf("%s URL: %s", scheme, why) }
	u, err := url.Parse(text)
	if err != nil {
		return bad("not a URL (characters of a password such as / ? # need percent-encoding)")
	}
	query, err := url.ParseQuery(u.RawQuery)
	switch {
	case err != nil:
		return bad("wrong query")
	case u.Opaque != "" || !strings.Contains(text, "://"):
		return bad("no // after the scheme")
	case u.Fragment != "":
		return bad("has a fragment (# in a password is %23)")
	case u.Hostname() == "" && query.Get("host") == "" && query.Get("socket") == "":
		return bad("no host")
	case !validPort(u.Port()):
		return bad("port is not 1 to 65535")
	}
	return Database{scheme: scheme, dsn: text}, nil
}

// validPort accepts the port of a URL or its absence.
func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

// escapePath writes a path so that parseSQLite reads it back.
func escapePath(path string) string {
	path = strings.NewReplacer("%", "%25", "?", "%3F").Replace(path)
	if strings.HasPrefix(path, "//") {
		path = "//" + path
	}
	return path
}
