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

// None is that a table has no row whose columns, separated by blanks, have the values of one of some rows.
func (d Dialect) None(table, by string, rows [][]any) (all []Condition) {
	one := "t." + strings.Join(strings.Fields(by), " = ? AND t.") + " = ?"
	const none = "NOT EXISTS (SELECT 1 FROM "
	if d.Lists {
		return d.Each(none+table+" t WHERE "+one+d.Apart+")", rows)
	}
	for some := range slices.Chunk(rows, checkAtOnce) {
		where := strings.Join(slices.Repeat([]string{one}, len(some)), " OR ")
		all = append(all, Condition{Holds: none + table + " t WHERE " + where + ")", Args: slices.Concat(some...)})
	}
	return all
}

// Each is that a condition holds for each of some rows of arguments, whose types are those of the first. A subquery of the
// condition ends with [Dialect.Apart].
func (d Dialect) Each(holds string, rows [][]any) (all []Condition) {
	if d.Lists && len(rows) > 0 {
		return []Condition{d.eachListed(holds, rows)}
	}
	for some := range slices.Chunk(rows, checkAtOnce) {
		all = append(all, Condition{Holds: strings.Join(slices.Repeat([]string{holds}, len(some)), " AND "), Args: slices.Concat(some...)})
	}
	return all
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
