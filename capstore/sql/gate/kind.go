package gate

import (
	"slices"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Kind is what a statement is.
type Kind int

// Kinds.
const (
	Look   Kind = iota // SELECT, VALUES
	Change             // INSERT, REPLACE, UPDATE, DELETE
	Define             // CREATE, ALTER, DROP of tables, views and indexes
	Pragma
)

// Statement is what a look at its words says of a statement.
type Statement struct {
	Kind Kind
	// Adds says that it begins as an INSERT or REPLACE: its answer has a row's id.
	Adds bool
	// Sets says that it is a PRAGMA that changes the database.
	Sets bool
}

// Writes reports whether the statement may change the database.
func (s Statement) Writes() bool { return s.Kind == Change || s.Kind == Define || s.Sets }

// Inspect says what a text is, if it is one statement of a kind that is allowed to somebody. The error is a refusal.
func Inspect(sql string) (Statement, error) {
	words, more := split(sql)
	switch {
	case strings.IndexByte(sql, 0) >= 0: // SQLite would take it for the end
		return Statement{}, tinycloud.Refuse(tinycloud.ErrInvalid, `Parse error: unrecognized token: "\x00"`)
	case len(words) == 0 && !more:
		return Statement{}, tinycloud.Refuse(tinycloud.ErrInvalid, "Parse error: Empty SQL statement")
	case more && trigger(words):
		return Statement{}, notAllowed(sql)
	case more:
		return Statement{}, tinycloud.Refuse(tinycloud.ErrInvalid, "Invalid statement: Exactly one SQL statement is required")
	}
	return kindOf(words, sql)
}

// trigger reports whether the words create a trigger, which has statements inside.
func trigger(words []string) bool {
	return words[0] == "CREATE" && slices.Contains(words[:min(3, len(words))], "TRIGGER")
}

func kindOf(words []string, sql string) (Statement, error) {
	at := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	first := at(0)
	if first == "WITH" {
		first = mainVerb(words)
	}
	switch first {
	case "SELECT", "VALUES":
		return Statement{Kind: Look}, nil
	case "INSERT", "REPLACE":
		return Statement{Kind: Change, Adds: at(0) != "WITH"}, nil
	case "UPDATE", "DELETE":
		return Statement{Kind: Change}, nil
	case "PRAGMA":
		return Statement{Kind: Pragma, Sets: setsState(words)}, nil
	case "ATTACH", "DETACH":
		return Statement{}, forbidden("%s is not allowed", first)
	case "CREATE", "DROP", "ALTER":
		what := at(1)
		if first == "CREATE" && what == "UNIQUE" {
			what = at(2)
		}
		if what == "TABLE" || first != "ALTER" && (what == "VIEW" || what == "INDEX") {
			return Statement{Kind: Define}, nil
		}
		return Statement{}, notAllowed(sql)
	case "BEGIN", "START", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "EXPLAIN", "VACUUM", "ANALYZE", "REINDEX",
		"TRUNCATE", "MERGE", "SET", "SHOW", "USE", "GRANT", "REVOKE", "COPY", "CALL", "EXECUTE", "PREPARE", "DEALLOCATE", "DECLARE", "FETCH", "CLOSE", "KILL", "COMMENT", "CACHE", "MSCK", "DESCRIBE", "LOCK", "UNLOCK":
		return Statement{}, notAllowed(sql)
	}
	word := first
	if word == "" {
		word = at(0)
	}
	return Statement{}, tinycloud.Refuse(tinycloud.ErrInvalid, "Parse error: near %q: syntax error", word)
}

func notAllowed(sql string) error {
	text := strings.TrimRight(strings.TrimSpace(sql), "; \t\r\n")
	if len(text) > maxShown {
		text = strings.ToValidUTF8(text[:maxShown], "") + "…"
	}
	return forbidden("Statement type not allowed: %s", text)
}

// maxShown is how many bytes of a refused statement are shown.
const maxShown = 200

// settable are the pragmas that change what a database holds.
var settable = []string{"USER_VERSION", "APPLICATION_ID"}

// setsState reports whether a PRAGMA gives one of the settable ones a value.
func setsState(words []string) bool {
	i := 1
	if i+1 < len(words) && words[i+1] == "." {
		i += 2
	}
	if i+1 >= len(words) || words[i+1] != "=" && words[i+1] != "(" {
		return false
	}
	for _, s := range settable {
		if words[i] == s {
			return true
		}
	}
	return false
}

// mainVerb is the word after common table expressions.
func mainVerb(words []string) string {
	depth := 0
	for _, w := range words {
		switch w {
		case "(":
			depth++
		case ")":
			depth--
		case "SELECT", "VALUES", "INSERT", "REPLACE", "UPDATE", "DELETE":
			if depth == 0 {
				return w
			}
		}
	}
	return "SELECT" // it is none: the engine says what is wrong
}

// split takes the words of the first statement of a text, in capitals, quoted ones as "\x00" and their text; signs stand
// alone. more says that another statement follows.
func split(sql string) (words []string, more bool) {
	ended := false
	for i := 0; i < len(sql); {
		n, blank := token(sql[i:])
		w := sql[i : i+n]
		i += n
		switch {
		case blank:
		case w == ";":
			ended = ended || len(words) > 0
		case ended:
			return words, true
		case strings.ContainsAny(w[:1], "'\"`["):
			words = append(words, "\x00"+w)
		default:
			words = append(words, strings.ToUpper(w))
		}
	}
	return words, false
}

// Longest is how long the longest literal of a text is at most, in bytes.
func Longest(sql string) (longest int) {
	if len(sql) < shortest {
		return len(sql)
	}
	for i := 0; i < len(sql); {
		n, blank := token(sql[i:])
		if !blank {
			longest = max(longest, n)
		}
		i += n
	}
	return longest
}

// shortest is how long a text is not worth looking into, in bytes.
const shortest = 4096

// token is the length of the first token of a text, and whether it is white space or a comment.
func token(s string) (n int, blank bool) {
	switch c := s[0]; {
	case strings.IndexByte(" \t\n\f\r", c) >= 0:
		return 1, true
	case strings.HasPrefix(s, "--"):
		if n := strings.IndexByte(s, '\n'); n >= 0 {
			return n + 1, true
		}
		return len(s), true
	case strings.HasPrefix(s, "/*"):
		if n := strings.Index(s[2:], "*/"); n >= 0 {
			return n + 4, true
		}
		return len(s), true
	case c == '[':
		if n := strings.IndexByte(s, ']'); n >= 0 {
			return n + 1, false
		}
		return len(s), false
	case c == '\'' || c == '"' || c == '`':
		return quoted(s), false
	case wordByte(c):
		for n = 1; n < len(s) && wordByte(s[n]); n++ {
		}
		return n, false
	}
	return 1, false
}

// quoted is the length of a quoted text, whose quote is doubled inside.
func quoted(s string) int {
	for i := 1; i < len(s); i++ {
		if s[i] != s[0] {
			continue
		}
		if i+1 == len(s) || s[i+1] != s[0] {
			return i + 1
		}
		i++
	}
	return len(s)
}

func wordByte(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}
