package db

import (
	"slices"
	"strings"
)

// Update is an UPDATE of one row. Its arguments are those of Set, of Add, and the key.
type Update struct {
	Table string
	Set   string // columns separated by blanks
	Add   string // likewise: the arguments are added to what is there
	Key   string // the column that names the row
}

// Of is the text of an update of the first n of some rows, with their arguments: on a server of several, as many as it takes at
// once.
func (u Update) Of(d Dialect, rows [][]any) (text string, args []any, n int) {
	if d.Shared {
		n = d.rowsOfOne(len(rows), maxRows)
	}
	switch {
	case n <= 1:
		return "UPDATE " + u.Table + " SET " + u.sets("", func(string) string { return "?" }) + " WHERE " + u.Key + " = ?", rows[0], 1
	case d.Name == "postgres":
		text = u.fromValues(rows[0], n)
	default:
		text = u.joined(n)
	}
	return text, slices.Concat(rows[:n]...), n
}

func (u Update) columns() []string { return strings.Fields(u.Set + " " + u.Add + " " + u.Key) }

// sets is what is between SET and WHERE: the name of a column stands behind a prefix.
func (u Update) sets(prefix string, value func(column string) string) string {
	set := list(strings.Fields(u.Set), func(c string) string { return prefix + c + " = " + value(c) })
	if u.Add == "" {
		return set
	}
	return set + ", " + list(strings.Fields(u.Add), func(c string) string { return prefix + c + " = " + u.Table + "." + c + " + " + value(c) })
}

func ofRow(column string) string { return "v." + column }

// fromValues is the text for PostgreSQL, which has to be told the types once.
func (u Update) fromValues(row []any, n int) string {
	columns := u.columns()
	typed := make([]string, len(columns))
	for i, a := range row {
		typed[i] = "CAST(? AS " + typeOf(a) + ")"
	}
	more := ", (" + repeated("?", ", ", len(columns)) + ")"
	return "UPDATE " + u.Table + " SET " + u.sets("", ofRow) + " FROM (VALUES (" + strings.Join(typed, ", ") + ")" + strings.Repeat(more, n-1) +
		") AS v(" + strings.Join(columns, ", ") + ") WHERE " + u.Table + "." + u.Key + " = v." + u.Key
}

// joined is the text for MySQL: it goes through the rows that are named, and through no others.
func (u Update) joined(n int) string {
	columns := u.columns()
	more := " UNION ALL SELECT " + repeated("?", ", ", len(columns))
	return "UPDATE (SELECT " + list(columns, func(c string) string { return "? AS " + c }) + strings.Repeat(more, n-1) + ") v STRAIGHT_JOIN " + u.Table +
		" ON " + u.Table + "." + u.Key + " = v." + u.Key + " SET " + u.sets(u.Table+".", ofRow)
}
