package lite_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/internal/lite"
)

func open(t *testing.T, clock *lite.Clock) *lite.Conn {
	t.Helper()
	c, err := lite.Open(filepath.Join(t.TempDir(), "a.db"), lite.Create, clock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// rows are the rows of a statement, as what the meter counts.
func rows(t *testing.T, c *lite.Conn, sql string, params ...any) (all [][]any, err error) {
	t.Helper()
	s, err := c.Prepare(sql)
	if err != nil {
		return nil, err
	}
	defer s.Finalize()
	defer s.Count()
	if err := s.Bind(params); err != nil {
		return nil, err
	}
	for {
		more, err := s.Step()
		if err != nil || !more {
			return all, err
		}
		row := make([]any, s.Columns)
		for i := range row {
			row[i] = s.Column(i)
		}
		all = append(all, row)
	}
}

func run(t *testing.T, c *lite.Conn, sql string, params ...any) [][]any {
	t.Helper()
	all, err := rows(t, c, sql, params...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return all
}

func TestValues(t *testing.T) {
	c := open(t, nil)
	in := []any{nil, int64(-1 << 63), 2.0, "a\x00b", []byte{}, []byte{0, 255}, ""}
	if got := run(t, c, "SELECT ?,?,?,?,?,?,?", in...)[0]; !cmp.Equal(got, in) {
		t.Errorf("values came back as %#v", got)
	}
}

// Functions that are counted do what they do otherwise, and statements are planned as they are otherwise.
func TestCountingChangesNothing(t *testing.T) {
	plain, counted := open(t, nil), open(t, nil)
	if err := counted.CountBytes(); err != nil {
		t.Fatal(err)
	}
	const schema = `CREATE TABLE t(a TEXT COLLATE NOCASE, n INT, b BLOB); CREATE INDEX i ON t(a); CREATE INDEX j ON t(n);
		INSERT INTO t VALUES('abc', 3, x'0102'), ('abd', 1, NULL), ('xyz', 2, zeroblob(5000)), (NULL, NULL, 'text')`
	for _, c := range []*lite.Conn{plain, counted} {
		if err := c.Script(schema); err != nil {
			t.Fatal(err)
		}
	}
	for _, sql := range []string{
		"SELECT upper(a), lower(a), length(a), hex(b), quote(a), substr(a, 2), instr(a, 'b'), replace(a, 'b', 'cc'), trim(a, 'a'), typeof(b), length(b) FROM t",
		"SELECT max(n), min(n), sum(n), avg(n), total(n), count(n), count(*), group_concat(a, '-'), string_agg(a, '+') FROM t",
		"SELECT group_concat(a) OVER (ORDER BY n ROWS 1 PRECEDING), sum(n) OVER (ORDER BY n), max(n) OVER (ORDER BY n ROWS 1 PRECEDING), row_number() OVER () FROM t",
		"SELECT a FROM t WHERE a LIKE 'ab%'", "SELECT a FROM t WHERE a GLOB 'ab*'", "SELECT a LIKE 'A%' ESCAPE '\\' FROM t",
		"SELECT max(1, n, 2), min(1, n), max('a', 'b', a), coalesce(a, 'x'), ifnull(a, 'x'), iif(n, 1, 2), nullif(n, 1) FROM t",
		"SELECT json('[1, 2]'), json_object('a', n), json_array(a, n), '{\"a\":{\"b\":3}}' -> '$.a', '{\"a\":3}' ->> 'a', json_group_array(n), json_group_object(a, n), json_set('{}', '$.a', n) FROM t",
		"SELECT key, value, path FROM json_tree('{\"a\":[1,2]}')", "SELECT value FROM t, json_each(json_array(n, a))", "SELECT json_extract('[1,{\"x\":2}]', '$[1].x'), json_insert('[1]', '$[#]', json('[2]'))",
		"SELECT printf('%05d %s', n, a), format('%.2f', n), char(65, 66), unicode(a), concat(a, n), concat_ws('-', a, n), soundex(a), unhex('4142'), octet_length(b) FROM t",
		"SELECT date('2024-02-29', '+1 year'), strftime('%Y', 0, 'unixepoch'), abs(-n), round(n / 3.0, 2), sign(n), zeroblob(3), timediff('2024-01-01', '2023-01-01') FROM t",
		"SELECT DISTINCT upper(a) FROM t ORDER BY lower(a) DESC", "SELECT a FROM t WHERE length(b) > 100", "EXPLAIN QUERY PLAN SELECT a FROM t WHERE a LIKE 'ab%'", "EXPLAIN QUERY PLAN SELECT max(n) FROM t", "EXPLAIN QUERY PLAN SELECT count(*) FROM t",
		"SELECT json('{')", "SELECT abs(-9223372036854775808)", "SELECT substr('é€', 2), length('é€'), upper('é')", "SELECT json_valid('x'), json_type('1'), json_pretty('[1]'), jsonb('[1]')",
	} {
		want, err1 := rows(t, plain, sql)
		got, err2 := rows(t, counted, sql)
		if !cmp.Equal(got, want) || (err1 == nil) != (err2 == nil) || err1 != nil && err1.Error() != err2.Error() {
			t.Errorf("%s\n gives %v %v, not\n %v %v", sql, got, err2, want, err1)
		}
	}
	if got := run(t, counted, "EXPLAIN QUERY PLAN SELECT a FROM t WHERE a LIKE 'ab%'")[0][3].(string); !strings.Contains(got, "INDEX i") {
		t.Errorf("plan of LIKE: %s", got)
	}
}

func TestMeter(t *testing.T) {
	c := open(t, nil)
	if err := c.CountBytes(); err != nil {
		t.Fatal(err)
	}
	c.CountRows()
	if err := c.Script("CREATE TABLE t(a)"); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("x", 10_000)
	for sql, least := range map[string]int64{
		"SELECT upper(?)": 20_000, "SELECT ? LIKE 'xx'": 20_000, "SELECT instr(?, 'xx')": 20_000, "SELECT count(*) FROM json_each(json_array(?))": 160_000,
		"SELECT group_concat(?)": 20_000, "SELECT json_quote(?)": 80_000, "SELECT max(?, 'a')": 10_000,
	} {
		c.Meter.Reset()
		run(t, c, sql, big)
		if got := c.Meter.Bytes; got < least || got > 3*least {
			t.Errorf("%s: counted %d bytes, expected %d at least", sql, got, least)
		}
		if c.Meter.Steps == 0 || c.Meter.Over() != "" {
			t.Errorf("%s: %d steps, over %q", sql, c.Meter.Steps, c.Meter.Over())
		}
	}
	c.Meter.Reset()
	c.Meter.ByteLimit = 1000
	if _, err := rows(t, c, "SELECT upper(?)", big); err == nil || c.Meter.Over() != "bytes in functions" {
		t.Errorf("too many bytes: %v, over %q", err, c.Meter.Over())
	}
	c.Meter.ByteLimit = 0
	c.Meter.Reset()
	run(t, c, "INSERT INTO t VALUES(?), (NULL)", big)
	if got := c.Meter.Rows; got < 10_000 || got > 10_100 {
		t.Errorf("rows of %d bytes", got)
	}
	c.Meter.Reset()
	c.Meter.StepLimit = 10_000
	if _, err := rows(t, c, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT max(i) FROM n"); !lite.Interrupted(err) || c.Meter.Over() != "steps" {
		t.Errorf("endless statement: %v, over %q", err, c.Meter.Over())
	}
}

func TestClock(t *testing.T) {
	k := lite.NewClock()
	c := open(t, k)
	k.Set(time.UnixMilli(1_000_123), 0)
	if got := run(t, c, "SELECT strftime('%s', 'now'), CURRENT_TIMESTAMP, unixepoch('subsec')")[0]; !cmp.Equal(got, []any{"1000", "1970-01-01 00:16:40", 1000.123}) {
		t.Errorf("time of the clock: %v", got)
	}
	const spill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<2000) SELECT count(*) FROM (SELECT zeroblob(4000) || i x FROM n ORDER BY x)"
	run(t, c, spill)
	if n := k.Temporary(); n < 7<<20 || n > 40<<20 {
		t.Errorf("%d bytes in temporary files", n)
	}
	k.Set(time.UnixMilli(0), 1<<20)
	if _, err := rows(t, c, spill); err == nil || !k.Over() || k.Failed() {
		t.Errorf("too many bytes in temporary files: %v, over %v, failed %v", err, k.Over(), k.Failed())
	}
}

func TestRandom(t *testing.T) {
	c := open(t, nil)
	if err := c.PinRandom(); err != nil {
		t.Fatal(err)
	}
	c.Random = func(b []byte) {
		for i := range b {
			b[i] = byte(i + 1)
		}
	}
	want := []any{int64(0x0807060504030201), []byte{1, 2, 3}, []byte{1}}
	if got := run(t, c, "SELECT random(), randomblob(3), randomblob(0)")[0]; !cmp.Equal(got, want) {
		t.Errorf("random values: %v", got)
	}
	if err := c.Script("CREATE TABLE t(a DEFAULT (random())); INSERT INTO t DEFAULT VALUES"); err != nil {
		t.Error(err)
	}
	if _, err := rows(t, c, "SELECT randomblob(2000000000)"); !lite.TooBig(err) {
		t.Error(err)
	}
}

// TestColumnsOfAnotherSchema steps a statement that was compiled before its table got a column.
func TestColumnsOfAnotherSchema(t *testing.T) {
	c := open(t, nil)
	run(t, c, "CREATE TABLE t(a)")
	run(t, c, "INSERT INTO t VALUES(1)")
	s, err := c.Prepare("SELECT * FROM t")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Finalize()
	for columns := 1; columns <= 2; columns++ {
		if more, err := s.Step(); err != nil || !more || s.Columns != columns {
			t.Errorf("%d columns, want %d; %t, %v", s.Columns, columns, more, err)
		}
		s.Reset()
		if columns == 1 {
			run(t, c, "ALTER TABLE t ADD COLUMN b DEFAULT 2")
		}
	}
}
