package db

import (
	"fmt"
	"strings"
	"sync"

	"github.com/doug-martin/goqu/v9"
	"github.com/doug-martin/goqu/v9/dialect/mysql"
	"github.com/doug-martin/goqu/v9/dialect/postgres"
	"github.com/doug-martin/goqu/v9/dialect/sqlite3"
	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"
	"github.com/zeebo/blake3"
)

// Dialect is what differs between the databases.
type Dialect struct {
	Name  string // of the directory of its migrations: sqlite, postgres, mysql
	goose goose.Dialect
	bind  int
	goqu  string

	// Shared says that several processes may have the database open.
	Shared bool
	// ForUpdate ends a SELECT whose rows the transaction is going to change.
	ForUpdate string
	// Clock is the server's time as an expression, in unix milliseconds.
	Clock string
	// proposed names the value that a conflicting insert wanted for a column.
	proposed func(column string) any
}

// SQLite is the dialect of a file that one process has open.
func SQLite() Dialect {
	register()
	return Dialect{Name: "sqlite", goose: goose.DialectSQLite3, bind: sqlx.QUESTION, goqu: "tinycloud/sqlite", proposed: excluded}
}

// Postgres is the dialect of PostgreSQL.
func Postgres() Dialect {
	register()
	return Dialect{
		Name: "postgres", goose: goose.DialectPostgres, bind: sqlx.DOLLAR, goqu: "tinycloud/postgres", proposed: excluded,
		Shared: true, ForUpdate: " FOR UPDATE", Clock: "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
	}
}

// MySQL is the dialect of MySQL and MariaDB.
func MySQL() Dialect {
	register()
	return Dialect{
		Name: "mysql", goose: goose.DialectMySQL, bind: sqlx.QUESTION, goqu: "tinycloud/mysql",
		proposed: func(column string) any { return goqu.Func("VALUES", goqu.C(column)) },
		Shared:   true, ForUpdate: " FOR UPDATE", Clock: "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000)",
	}
}

func excluded(column string) any { return goqu.I("excluded." + column) }

// register makes goqu's dialects known under names of our own, without the IGNORE that they add to every
// insert with a conflict clause: it hides other errors too, and cuts values that are too long.
var register = sync.OnceFunc(func() {
	for name, options := range map[string]*goqu.SQLDialectOptions{
		"sqlite": sqlite3.DialectOptions(), "postgres": postgres.DialectOptions(), "mysql": mysql.DialectOptions(),
	} {
		options.SupportsInsertIgnoreSyntax = false
		goqu.RegisterDialect("tinycloud/"+name, options)
	}
})

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
}

// sql returns the text of an insert.
func (d Dialect) sql(i Insert) (string, error) {
	columns, key := strings.Fields(i.Columns), strings.Fields(i.Key)
	names, values := make([]any, len(columns)), make(goqu.Vals, len(columns))
	for k, c := range columns {
		names[k], values[k] = c, 0
	}
	q := goqu.Dialect(d.goqu).Insert(i.Into).Prepared(true).Cols(names...).Vals(values)
	switch {
	case i.Replace:
		set := goqu.Record{}
		for _, c := range columns {
			set[c] = d.proposed(c)
		}
		for _, c := range key {
			delete(set, c)
		}
		q = q.OnConflict(goqu.DoUpdate(strings.Join(key, ", "), set))
	case i.Key != "" && d.Name == "mysql": // it has no DO NOTHING
		q = q.OnConflict(goqu.DoUpdate("", goqu.Record{key[0]: goqu.C(key[0])}))
	case i.Key != "":
		q = q.OnConflict(goqu.DoNothing())
	}
	if i.ID != "" && d.Name == "postgres" {
		q = q.Returning(i.ID)
	}
	text, _, err := q.ToSQL()
	if err != nil {
		return "", fmt.Errorf("insert into %s: %w", i.Into, err)
	}
	return text, nil
}

func (d Dialect) text(query string) string {
	if d.bind == sqlx.QUESTION {
		return query
	}
	return sqlx.Rebind(d.bind, query)
}

// Servers index entries of a few kilobytes at most; keys are longer.
const (
	// KeyHead is how much of every key is indexed as it is, in bytes.
	KeyHead   = 900
	wholeKey  = KeyHead + 32 // longest key that is indexed as it is
	standsFor = wholeKey + 1 // length of what stands for a longer one: no whole key has it
)

// Key returns how a key is stored: in the indexed column as far as that can hold it, and whole in another,
// nil when that says no more. Two keys are equal iff their indexed forms are. Indexed forms are in the order
// of their keys, byte by byte, except among those that are equal in their first [KeyHead] bytes.
func (d Dialect) Key(key string) (indexed, whole any) {
	if !d.Shared {
		return key, nil
	}
	if len(key) <= wholeKey {
		return []byte(key), nil
	}
	out := make([]byte, 0, standsFor)
	sum := blake3.Sum256([]byte(key))
	out = append(append(out, key[:KeyHead]...), sum[:]...)
	return append(out, 0), []byte(key)
}

// Bytes returns a key as it is: for a column that is not searched, or as the limit of a range of the indexed
// one, where it is exact for keys of up to [KeyHead] bytes.
func (d Dialect) Bytes(key string) any {
	if !d.Shared {
		return key
	}
	return []byte(key)
}

// args makes arguments fit the columns. Servers take no bool for a number and no text that is not UTF-8
// or holds a NUL; what is arbitrary bytes comes as bytes.
func (d Dialect) args(args []any) []any {
	if !d.Shared {
		return args
	}
	for i, a := range args {
		switch v := a.(type) {
		case bool:
			args[i] = int64(0)
			if v {
				args[i] = int64(1)
			}
		case string:
			args[i] = strings.ReplaceAll(strings.ToValidUTF8(v, "\uFFFD"), "\x00", "\uFFFD")
		}
	}
	return args
}
