package db

import (
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
	"github.com/zeebo/blake3"
)

// Dialect is what differs between the databases.
type Dialect struct {
	Name  string // of the directory of its migrations: sqlite, postgres, mysql
	goose goose.Dialect
	quote string // what stands around names

	// Shared says that several processes may have the database open.
	Shared bool
	// ForUpdate ends a SELECT whose rows the transaction is going to change.
	ForUpdate string
	// Clock is the server's time as an expression, in unix milliseconds.
	Clock string
	// Numbers gives so many numbers to rows of epochs, greater than all before, one after the other, and answers with the last;
	// "" where it has to be counted.
	Numbers string
	// Lists says that an argument may be a list, see [Dialect.Each].
	Lists bool
	// Apart ends a subquery that is carried out as it stands, and not planned with what it is part of, by what the tables once
	// had in them.
	Apart string
	// Alone is asked at the begin of a transaction that asks, so that none that is sent whole is under way beside it, see
	// [Dialect.beside]; "" where transactions come one after another.
	Alone string

	// Of transactions that are sent whole: what gives the number before those that they get, where Numbers doesn't; that one, or
	// the last of them; what keeps so many from being given again; and the transaction's own generation.
	beforeGiven, lastGiven, keepGiven, ownGeneration string
}

// SQLite is the dialect of a file that one process has open.
func SQLite() Dialect {
	return Dialect{Name: "sqlite", goose: goose.DialectSQLite3, quote: "`"}
}

// Postgres is the dialect of PostgreSQL.
func Postgres() Dialect {
	return Dialect{
		Name: "postgres", goose: goose.DialectPostgres, quote: `"`,
		Shared: true, ForUpdate: " FOR UPDATE", Clock: "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
		// Nobody else is given numbers meanwhile; and a query without rows is planned once.
		Numbers: "SELECT " + giveNumbers, Alone: takeFence, Lists: true, Apart: " OFFSET 0",
		lastGiven: "currval('epochs_eid_seq')", ownGeneration: "(SELECT generation FROM node WHERE id = 1)",
	}
}

// MySQL is the dialect of MySQL and MariaDB.
func MySQL() Dialect {
	return Dialect{
		Name: "mysql", goose: goose.DialectMySQL, quote: "`",
		Shared: true, ForUpdate: " FOR UPDATE", Clock: "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000)",
		// Other releases do not write node.eid; and the last epochs may be gone, whose numbers are not to come again.
		beforeGiven: "SELECT @given := greatest((SELECT eid FROM node WHERE id = 1), (SELECT coalesce(max(eid), 0) FROM epochs))",
		lastGiven:   "@given", keepGiven: "UPDATE node SET eid = @given + ? WHERE id = 1", ownGeneration: "@generation",
	}
}

// text returns a query as the driver takes it: PostgreSQL numbers the arguments. A question mark in a query
// is always one.
func (d Dialect) text(query string) string {
	if d.Name != "postgres" {
		return query
	}
	parts := strings.Split(query, "?")
	var out strings.Builder
	for k, part := range parts {
		if k > 0 {
			out.WriteString("$" + strconv.Itoa(k))
		}
		out.WriteString(part)
	}
	return out.String()
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
