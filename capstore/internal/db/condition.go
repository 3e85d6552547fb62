package db

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Condition is what a transaction that is sent whole fails without.
type Condition struct {
	Holds string
	Args  []any
}

// checkAtOnce is how many rows one condition is about, where there are no lists.
const checkAtOnce = 16

// listed is an argument: a column of several rows.
type listed struct{ of any }

// checked are queries that fail where one of some conditions does not hold.
func (d Dialect) checked(all ...Condition) (queries []Query) {
	atOnce := 1
	if d.Lists {
		atOnce = max(1, len(all))
	}
	for some := range slices.Chunk(all, atOnce) {
		var holds []string
		var args []any
		for _, c := range some {
			holds, args = append(holds, c.Holds), append(args, c.Args...)
		}
		text := "SELECT CASE WHEN " + strings.Join(holds, " AND ") + " THEN 1 ELSE (SELECT 1 UNION ALL SELECT 2) END" // two rows are no value
		queries = append(queries, Query{Text: text, Args: args, Row: func(scan Scan) error {
			var one int
			return scan(&one)
		}})
	}
	return queries
}

// None is that no row t of a table is as a condition says with one of some rows of arguments.
func (d Dialect) None(table, where string, rows [][]any) []Condition {
	none := "NOT EXISTS (SELECT 1 FROM " + table + " t WHERE "
	if d.Lists {
		return d.Each(none+where+d.Apart+")", rows)
	}
	return chunked(rows, func(n int) string { return none + repeated(where, " OR ", n) + ")" })
}

// Each is that a condition holds for each of some rows of arguments, whose types are those of the first. A subquery of the
// condition ends with [Dialect.Apart].
func (d Dialect) Each(holds string, rows [][]any) []Condition {
	if d.Lists && len(rows) > 0 {
		return []Condition{d.eachListed(holds, rows)}
	}
	return chunked(rows, func(n int) string { return repeated(holds, " AND ", n) })
}

// chunked are conditions of so many rows at once.
func chunked(rows [][]any, holds func(n int) string) (all []Condition) {
	for some := range slices.Chunk(rows, checkAtOnce) {
		all = append(all, Condition{Holds: holds(len(some)), Args: slices.Concat(some...)})
	}
	return all
}

// repeated is a text so many times, with another between.
func repeated(text, between string, n int) string {
	return text + strings.Repeat(between+text, n-1)
}

// eachListed has the server go through lists of the columns: it sets out for one condition, not for each row, and the text is
// the same for any number of them.
func (d Dialect) eachListed(holds string, rows [][]any) Condition {
	rows = slices.Clone(rows)
	for i, row := range rows {
		rows[i] = d.args(slices.Clone(row))
	}
	var args []any
	var lists, names []string
	var text strings.Builder
	parts := strings.Split(holds, "?")
	for n, part := range parts[:len(parts)-1] {
		of, kind := column(rows, n)
		name := fmt.Sprint("c", n)
		args, lists, names = append(args, listed{of}), append(lists, "CAST(? AS "+kind+"[])"), append(names, name)
		text.WriteString(part + "l." + name)
	}
	text.WriteString(parts[len(parts)-1])
	return Condition{
		Holds: "NOT EXISTS (SELECT 1 FROM unnest(" + strings.Join(lists, ", ") + ") AS l(" + strings.Join(names, ", ") + ") WHERE (" + text.String() + ") IS NOT TRUE)",
		Args:  args,
	}
}

// column is the n-th column of some rows, and its type.
func column(rows [][]any, n int) (of any, kind string) {
	switch kind = typeOf(rows[0][n]); kind {
	case "BYTEA":
		return columnOf[[]byte](rows, n), kind
	case "TEXT":
		return columnOf[string](rows, n), kind
	}
	return columnOf[int64](rows, n), kind
}

// typeOf is the type of an argument on PostgreSQL, if it is no null.
func typeOf(a any) string {
	switch reflect.TypeOf(a).Kind() {
	case reflect.Slice:
		return "BYTEA"
	case reflect.String:
		return "TEXT"
	}
	return "BIGINT"
}

func columnOf[T any](rows [][]any, n int) []T {
	of := make([]T, len(rows))
	for i, row := range rows {
		of[i] = row[n].(T)
	}
	return of
}
