package db_test

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

func TestInsert(t *testing.T) {
	plain := db.Insert{Into: "kv", Columns: "sid key live"}
	keep, replace, numbered := plain, plain, plain
	keep.Key, replace.Key, replace.Replace, numbered.ID = "sid key", "sid key", true, "eid"
	wide := replace
	wide.Columns = "sid key live size"
	for _, tt := range []struct {
		d    db.Dialect
		i    db.Insert
		want string
	}{
		{db.SQLite(), plain, "INSERT INTO `kv` (`sid`, `key`, `live`) VALUES (?, ?, ?)"},
		{db.SQLite(), keep, "INSERT INTO `kv` (`sid`, `key`, `live`) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"},
		{db.SQLite(), replace, "INSERT INTO `kv` (`sid`, `key`, `live`) VALUES (?, ?, ?) ON CONFLICT (sid, key) DO UPDATE SET `live`=`excluded`.`live`"},
		{db.SQLite(), numbered, "INSERT INTO `kv` (`sid`, `key`, `live`) VALUES (?, ?, ?)"},
		{db.Postgres(), keep, `INSERT INTO "kv" ("sid", "key", "live") VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`},
		{db.Postgres(), replace, `INSERT INTO "kv" ("sid", "key", "live") VALUES ($1, $2, $3) ON CONFLICT (sid, key) DO UPDATE SET "live"="excluded"."live"`},
		{db.Postgres(), numbered, `INSERT INTO "kv" ("sid", "key", "live") VALUES ($1, $2, $3) RETURNING "eid"`},
		{db.MySQL(), keep, "INSERT INTO `kv` (`sid`, `key`, `live`) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE `sid`=`sid`"},
		{db.MySQL(), replace, "INSERT INTO `kv` (`sid`, `key`, `live`) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE `live`=VALUES(`live`)"},
		{db.SQLite(), wide, "INSERT INTO `kv` (`sid`, `key`, `live`, `size`) VALUES (?, ?, ?, ?) ON CONFLICT (sid, key) DO UPDATE SET `live`=`excluded`.`live`, `size`=`excluded`.`size`"},
		{db.MySQL(), wide, "INSERT INTO `kv` (`sid`, `key`, `live`, `size`) VALUES (?, ?, ?, ?) ON DUPLICATE KEY UPDATE `live`=VALUES(`live`), `size`=VALUES(`size`)"},
		{db.MySQL(), numbered, "INSERT INTO `kv` (`sid`, `key`, `live`) VALUES (?, ?, ?)"},
	} {
		if diff := cmp.Diff(tt.want, strings.Join(strings.Fields(tt.d.SQL(tt.i)), " ")); diff != "" {
			t.Errorf("%s: %s", tt.d.Name, diff)
		}
	}
}

func TestText(t *testing.T) {
	const query = "SELECT a FROM t WHERE b = ? AND (c > ? OR d IN (?,?))"
	for _, tt := range []struct {
		d           db.Dialect
		query, want string
	}{
		{db.SQLite(), query, query},
		{db.MySQL(), query, query},
		{db.Postgres(), query, "SELECT a FROM t WHERE b = $1 AND (c > $2 OR d IN ($3,$4))"},
		{db.Postgres(), strings.Repeat("?", 11), "$1$2$3$4$5$6$7$8$9$10$11"},
		{db.Postgres(), "SELECT 1", "SELECT 1"},
	} {
		if diff := cmp.Diff(tt.want, tt.d.Text(tt.query)); diff != "" {
			t.Errorf("%s: %s", tt.d.Name, diff)
		}
	}
}

// Indexed keys are equal iff the keys are, fit into an index, and are in the keys' order unless these are
// equal in their heads.
func FuzzKey(f *testing.F) {
	long := strings.Repeat("k", db.KeyHead)
	for _, pair := range [][2]string{
		{"", "a"},
		{"a", "a\x00"},
		{long, long + "\x00"},
		{long + strings.Repeat("x", 32), long + strings.Repeat("x", 33)},
		{long[1:], long},
		{long[1:] + "a" + long, long[1:] + "b" + long},
	} {
		f.Add(pair[0], pair[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		d := db.Postgres()
		ia, wa := d.Key(a)
		ib, _ := d.Key(b)
		x, y := ia.([]byte), ib.([]byte)
		if bytes.Equal(x, y) != (a == b) {
			t.Errorf("%q and %q: indexed %q and %q", a, b, x, y)
		}
		if len(x) > 933 {
			t.Errorf("indexed form of %d bytes", len(x))
		}
		if whole, ok := wa.([]byte); (ok && string(whole) != a) || (!ok && string(x) != a) {
			t.Errorf("%q is stored as %q and %q", a, x, wa)
		}
		if len(a) >= db.KeyHead && len(b) >= db.KeyHead && a[:db.KeyHead] == b[:db.KeyHead] {
			return
		}
		if got := bytes.Compare(x, y); got != strings.Compare(a, b) {
			t.Errorf("%q and %q: order %d", a, b, got)
		}
	})
}

// A condition of several rows: PostgreSQL gets lists of their columns, the others the condition for each row.
func TestEach(t *testing.T) {
	rows := [][]any{{int64(1), []byte{1}, "a"}, {int64(2), []byte{2}, "b\x00"}}
	const holds = "NOT EXISTS (SELECT 1 FROM x WHERE a = ? AND b = ? AND c = ?)"
	listed := db.Postgres().Each(holds, rows)
	const text = "NOT EXISTS (SELECT 1 FROM unnest(CAST(? AS BIGINT[]), CAST(? AS BYTEA[]), CAST(? AS TEXT[])) AS l(c0, c1, c2) " +
		"WHERE (NOT EXISTS (SELECT 1 FROM x WHERE a = l.c0 AND b = l.c1 AND c = l.c2)) IS NOT TRUE)"
	if len(listed) != 1 || listed[0].Holds != text || len(listed[0].Args) != 3 {
		t.Errorf("%+v", listed)
	}
	each := db.MySQL().Each(holds, rows)
	if len(each) != 1 || each[0].Holds != holds+" AND "+holds || !reflect.DeepEqual(each[0].Args, slices.Concat(rows...)) {
		t.Errorf("%+v", each)
	}
	if many := db.MySQL().Each(holds, slices.Repeat(rows, 10)); len(many) != 2 {
		t.Errorf("20 rows are in %d conditions", len(many))
	}
	if none := db.Postgres().Each(holds, nil); len(none) != 0 {
		t.Errorf("%+v", none)
	}
	if got := db.ListedTexts(listed[0].Args[2]); !slices.Equal(got, []string{"a", "b\ufffd"}) {
		t.Errorf("PostgreSQL gets %q", got)
	}
}

// That a table has none of some rows.
func TestNone(t *testing.T) {
	rows := [][]any{{int64(1), "a"}, {int64(2), "b"}}
	listed := db.Postgres().None("x", "t.a = ? AND t.b = ?", rows)
	const text = "NOT EXISTS (SELECT 1 FROM unnest(CAST(? AS BIGINT[]), CAST(? AS TEXT[])) AS l(c0, c1) " +
		"WHERE (NOT EXISTS (SELECT 1 FROM x t WHERE t.a = l.c0 AND t.b = l.c1 OFFSET 0)) IS NOT TRUE)"
	if len(listed) != 1 || listed[0].Holds != text {
		t.Errorf("%+v", listed)
	}
	either := db.MySQL().None("x", "t.a = ? AND t.b = ?", rows)
	if len(either) != 1 || either[0].Holds != "NOT EXISTS (SELECT 1 FROM x t WHERE t.a = ? AND t.b = ? OR t.a = ? AND t.b = ?)" || !reflect.DeepEqual(either[0].Args, slices.Concat(rows...)) {
		t.Errorf("%+v", either)
	}
}

func TestUpdate(t *testing.T) {
	u := db.Update{Table: "x", Set: "a b", Add: "n", Key: "id"}
	row := []any{"a", []byte{1}, int64(2), int64(7)}
	rows := slices.Repeat([][]any{row}, 3)
	const one = "UPDATE x SET a = ?, b = ?, n = x.n + ? WHERE id = ?"
	for _, c := range []struct {
		d    db.Dialect
		rows [][]any
		n    int
		want string
	}{
		{db.SQLite(), rows, 1, one},
		{db.Postgres(), rows[:1], 1, one},
		{db.Postgres(), rows, 2, "UPDATE x SET a = v.a, b = v.b, n = x.n + v.n FROM (VALUES (CAST(? AS TEXT), CAST(? AS BYTEA), CAST(? AS BIGINT), CAST(? AS BIGINT)), (?, ?, ?, ?)) AS v(a, b, n, id) WHERE x.id = v.id"},
		{db.MySQL(), rows[:1], 1, one},
		{db.MySQL(), rows[:2], 2, "UPDATE (SELECT ? AS a, ? AS b, ? AS n, ? AS id UNION ALL SELECT ?, ?, ?, ?) v STRAIGHT_JOIN x ON x.id = v.id SET x.a = v.a, x.b = v.b, x.n = x.n + v.n"},
	} {
		text, args, n := u.Of(c.d, c.rows)
		if text != c.want || n != c.n || !reflect.DeepEqual(args, slices.Concat(c.rows[:n]...)) {
			t.Errorf("%s: %d of %d rows by %v\n%s\n%s", c.d.Name, n, len(c.rows), args, text, c.want)
		}
	}
}

func TestMySQLConfig(t *testing.T) {
	for dsn, want := range map[string]string{
		"mysql://u:p%40ss%2Fword@h/db":                 "u:p@ss/word tcp(h:3306)/db tls=",
		"mysql://u@[::1]:3307/db?ssl-mode=REQUIRED":    "u: tcp([::1]:3307)/db tls=skip-verify",
		"mariadb://u@h/db?tls=preferred&timeout=1s":    "u: tcp(h:3306)/db tls=preferred",
		"mysql://u@localhost/db?socket=/run/my.sock":   "u: unix(/run/my.sock)/db tls=",
		"mysql://u@h/db?ssl-mode=verify_identity":      "u: tcp(h:3306)/db tls=own",
		"mysql://u@h/db?ssl-mode=disabled&charset=x":   "u: tcp(h:3306)/db tls=",
		"mysql://u@h/db?ssl-mode=sometimes":            "error",
		"mysql://u@h/db?ssl-ca=/does/not/exist":        "error",
		"mysql://u@h/db?timeout=soon":                  "error",
		"mysql://u@h/db?allowAllFiles=maybe":           "error",
		"mysql://u:p\x7f@h/db":                         "error",
		"mysql://u@h/db?collation=utf8mb4_bin&tls=nix": "error",
		"mysql://u@h/db?tls=true":                      "u: tcp(h:3306)/db tls=true",
	} {
		got := "error"
		if c, err := db.MySQLConfig(dsn); err == nil {
			mode := c.TLSConfig
			if c.TLS != nil {
				mode = "own"
			}
			got = fmt.Sprintf("%s:%s %s(%s)/%s tls=%s", c.User, c.Passwd, c.Net, c.Addr, c.DBName, mode)
			if !c.ParseTime || !c.ClientFoundRows || c.InterpolateParams || c.Timeout == 0 {
				t.Errorf("%s: %+v", dsn, c)
			}
		}
		if got != want {
			t.Errorf("%s: %s, want %s", dsn, got, want)
		}
	}
}

func FuzzMySQLConfig(f *testing.F) {
	f.Add("mysql://u:p%40ss@h:1/db?ssl-mode=REQUIRED&socket=/x")
	f.Add("mysql://?tls=custom")
	f.Fuzz(func(t *testing.T, dsn string) {
		c, err := db.MySQLConfig(dsn)
		if err == nil && (c.Timeout <= 0 || c.DialFunc == nil || c.InterpolateParams) {
			t.Errorf("%+v", c)
		}
	})
}

func TestRedact(t *testing.T) {
	for dsn, want := range map[string]string{
		"/data/caps.db":                         "/data/caps.db",
		"postgres://u:hunter2@h/db?sslkey=k":    "postgres://u:REDACTED@h/db?REDACTED",
		"mysql://u:hun%20ter2@h/db":             "mysql://u:REDACTED@h/db",
		"postgres://u:hun ter2@h:port/db":       "postgres://REDACTED",
		"mariadb://u@h/db?password=hunter2#hun": "mariadb://u@h/db?REDACTED#hun",
	} {
		if got := db.Redact(dsn); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		err                error
		retryable, refused bool
	}{
		{&pgconn.PgError{Code: "40001"}, true, true},
		{&pgconn.PgError{Code: "40P01"}, true, true},
		{&pgconn.PgError{Code: "23505"}, false, true},
		{&pgconn.PgError{Code: "57P01"}, false, false},
		{&pgconn.PgError{Code: "08006"}, false, false},
		{&mysql.MySQLError{Number: 1213}, true, true},
		{&mysql.MySQLError{Number: 1062}, false, true},
		{&mysql.MySQLError{Number: 1053}, false, false},
		{driver.ErrBadConn, false, false},
		{io.ErrUnexpectedEOF, false, false},
	} {
		err := db.Error(tt.err)
		if !errors.Is(err, tinycloud.ErrUnavailable) || db.Retryable(err) != tt.retryable || db.Refused(err) != tt.refused {
			t.Errorf("%v: retryable %v, refused %v", err, db.Retryable(err), db.Refused(err))
		}
	}
	if err := db.Error(context.Canceled); err != context.Canceled || db.Error(nil) != nil { //nolint:errorlint // unchanged
		t.Error(err)
	}
}
