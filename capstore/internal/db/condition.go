package db

import (
	"fmt"
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
	switch rows[0][n].(type) {
	case []byte:
		return columnOf[[]byte](rows, n), "BYTEA"
	case string:
		return columnOf[string](rows, n), "TEXT"
	}
	return columnOf[int64](rows, n), "BIGINT"
}

func columnOf[T any](rows [][]any, n int) []T {
	of := make([]T, len(rows))
	for i, row := range rows {
		of[i] = row[n].(T)
	}
	return of
}
