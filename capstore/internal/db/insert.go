package db

import (
	"fmt"
	"slices"
	"strings"
)

// Insert is an INSERT of one row. It is comparable: statements are prepared once for each.
type Insert struct {
	Into    string
	Columns string // separated by blanks, in the order of the arguments
	// Key names, separated by blanks, the columns of the unique key that another row may have already;
	// "" makes that an error.
	Key string
	// Replace sets the other columns of that row. Otherwise it stays as it is.
	Replace bool
	// ID is the column that the database numbers, for [Conn.Insert].
	ID string
	// Alone says that on SQLite several rows in one statement take longer than each in its own.
	Alone bool
}

// together reports whether several rows may be in one statement on SQLite.
func (i Insert) together() bool { return i.Key == "" && !i.Alone }

// keyOf is a text that differs for rows of different keys.
func (i Insert) keyOf(args []any) string {
	if !i.Replace {
		return ""
	}
	var out []byte
	key := strings.Fields(i.Key)
	for n, c := range strings.Fields(i.Columns) {
		if slices.Contains(key, c) {
			out = fmt.Appendf(out, "%T %x;", args[n], args[n])
		}
	}
	return string(out)
}

// sql returns the text of an insert of some rows. There is no IGNORE in it: that hides other errors than the conflict too,
// and cuts values that are too long.
func (d Dialect) sql(i Insert, rows int) string {
	columns := strings.Fields(i.Columns)
	values := repeated("("+repeated("?", ", ", len(columns))+")", ", ", rows)
	// SQLite would note in a file how to undo several rows; but what fails of them undoes the transaction, see [Conn.run].
	into := "INSERT INTO "
	if rows > 1 && !d.Shared {
		into = "INSERT OR FAIL INTO "
	}
	text := into + d.name(i.Into) + " (" + list(columns, d.name) + ") VALUES " + values + d.conflict(i, columns)
	if i.ID != "" && d.returning() {
		text += " RETURNING " + d.name(i.ID)
	}
	return d.text(text)
}

// conflict returns what an insert does when another row has its key.
func (d Dialect) conflict(i Insert, columns []string) string {
	key := strings.Fields(i.Key)
	if len(key) == 0 {
		return ""
	}
	if d.Name == "mysql" {
		update := d.name(key[0]) + "=" + d.name(key[0]) // it has no DO NOTHING
		if i.Replace {
			update = list(without(columns, key), func(c string) string { return d.name(c) + "=VALUES(" + d.name(c) + ")" })
		}
		return " ON DUPLICATE KEY UPDATE " + update
	}
	if !i.Replace {
		return " ON CONFLICT DO NOTHING"
	}
	update := list(without(columns, key), func(c string) string { return d.name(c) + "=" + d.name("excluded") + "." + d.name(c) })
	return " ON CONFLICT (" + strings.Join(key, ", ") + ") DO UPDATE SET " + update
}

// returning reports whether the number that the database gives a row is asked for in the insert itself.
func (d Dialect) returning() bool { return d.Name == "postgres" }

func (d Dialect) name(n string) string { return d.quote + n + d.quote }

func list(columns []string, f func(string) string) string {
	out := make([]string, len(columns))
	for k, c := range columns {
		out[k] = f(c)
	}
	return strings.Join(out, ", ")
}

func without(columns, key []string) []string {
	return slices.DeleteFunc(slices.Clone(columns), func(c string) bool { return slices.Contains(key, c) })
}
