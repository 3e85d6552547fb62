package engine

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/gate"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/internal/lite"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// A SQLite file of somebody else is read as what has to be asked of a database to come to the same rows: it is never made a
// database itself. It is opened defensively, by a connection of its own, and what it says of itself is not believed.

// Bounds of what is made of a file.
const (
	dumpBytes     = 600_000 // of the statements of a chunk, as they are sent
	dumpRows      = 1000    // of them
	dumpStatement = 900_000 // bytes of one, above which its row is left out
	dumpOdd       = 1000    // things left out that are named
)

// Chunk are statements to carry out together.
type Chunk struct {
	Schema     bool // they make the schema
	Statements []request.Statement
	Rows       int64
}

// Dumped is what was made of a file.
type Dumped struct {
	Tables int
	Rows   int64
	Odd    []string // what was left out, and why; at most 1,000 of More
	More   int64
}

func (d *Dumped) odd(format string, args ...any) {
	if d.More++; len(d.Odd) < dumpOdd {
		d.Odd = append(d.Odd, fmt.Sprintf(format, args...))
	}
}

// ErrNotSQLite is the error for a file that is no SQLite database, or a damaged one.
var ErrNotSQLite = errors.New("no sound SQLite database")

// Dump reads a SQLite file, with a write-ahead log beside it if there is one, and calls each with what makes its tables, rows
// with their rowids, indexes and views, in this order; tables that others refer to come first. SQLite may write to the file:
// it is for a copy.
func Dump(ctx context.Context, path string, each func(Chunk) error) (out Dumped, err error) {
	if info, err := os.Stat(path); err != nil {
		return out, err
	} else if info.Size() == 0 {
		return out, fmt.Errorf("%w: it is empty", ErrNotSQLite)
	}
	c, err := lite.Open(path, lite.ReadWrite, lite.NewClock())
	if err != nil {
		return out, fmt.Errorf("%w: %w", ErrNotSQLite, err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	c.Clock.Set(time.UnixMilli(0), 0)
	err = errors.Join(c.Switch(lite.Defensive, true), c.Switch(lite.TrustedSchema, false), c.Switch(lite.TriggersEnabled, false), c.Switch(lite.Views, false))
	c.Limit(lite.LimitAttached, 0)
	c.Limit(lite.LimitLength, 1<<30) // longer values are told of, not read
	err = within(ctx, c, func(c *lite.Conn) error {
		if err != nil {
			return err
		}
		d := &dumper{c: c, each: each, out: &out}
		return d.all()
	})
	if err != nil && !errors.Is(err, errEach) && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", ErrNotSQLite, err)
	}
	return out, err
}

// errEach marks errors of who takes the chunks.
var errEach = errors.New("not carried out")

type dumper struct {
	c     *lite.Conn
	each  func(Chunk) error
	out   *Dumped
	chunk Chunk

	// Of chunk: its size in bytes, its longest value, and about how many steps it takes.
	size, longest int
	steps         int64
}

// dumped is a table of the file.
type dumped struct {
	name    string
	sql     string
	without bool     // it has no rowid
	columns []string // that are stored, quoted
	keys    []string // of the primary key, quoted
	rowid   string   // by what name the rowid is found; "" for none that is free
	refers  []string // to which tables, in small letters
}

func (d *dumper) all() error {
	if err := d.check(); err != nil {
		return err
	}
	tables, later, err := d.schema()
	if err != nil {
		return err
	}
	d.chunk.Schema = true
	for _, t := range tables {
		if err := d.add(request.Statement{SQL: t.sql}, 0); err != nil {
			return err
		}
	}
	if err := d.flush(); err != nil {
		return err
	}
	d.out.Tables = len(tables)
	for _, t := range tables {
		if err := d.rows(t); err != nil {
			return fmt.Errorf("table %q: %w", t.name, err)
		}
	}
	if err := d.flush(); err != nil {
		return err
	}
	if err := d.sequences(); err != nil {
		return err
	}
	d.chunk.Schema = true
	for _, sql := range later {
		if err := d.add(request.Statement{SQL: sql}, 0); err != nil {
			return err
		}
	}
	return d.flush()
}

// check has SQLite look through the file, and tells what of it has no place here.
func (d *dumper) check() error {
	if err := d.c.Run("PRAGMA cell_size_check=ON"); err != nil {
		return err
	}
	if found, err := d.c.Value("PRAGMA quick_check(1)"); err != nil || found != "ok" {
		return errors.Join(err, fmt.Errorf("it is damaged: %v", found))
	}
	if e, err := d.c.Value("PRAGMA encoding"); err != nil || e != "UTF-8" {
		return errors.Join(err, fmt.Errorf("its texts are in %v", e))
	}
	for _, name := range []string{"user_version", "application_id"} {
		if v, err := d.c.Value("PRAGMA " + name); err != nil {
			return err
		} else if v != int64(0) {
			d.out.odd("PRAGMA %s = %v: who may do all has to set it", name, v)
		}
	}
	return nil
}

// schema reads the tables, in the order in which they can be filled, and what comes behind the rows.
func (d *dumper) schema() (tables []dumped, later []string, err error) {
	type entry struct{ kind, name, sql string }
	var all []entry
	err = d.c.Each("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type = 'table' DESC, type = 'index' DESC, rowid", nil, func(s *lite.Stmt) error {
		kind, ok1 := s.Column(0).(string)
		name, ok2 := s.Column(1).(string)
		sql, ok3 := s.Column(2).(string)
		if !ok1 || !ok2 || !ok3 || !utf8.ValidString(name+sql) {
			return errors.New("its schema is damaged")
		}
		all = append(all, entry{kind, name, sql})
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	for _, e := range all {
		if strings.HasPrefix(strings.ToLower(e.name), "sqlite_") {
			continue
		}
		s, err := gate.Inspect(e.sql)
		if err != nil || s.Kind != gate.Define {
			d.out.odd("%s %q: there is no such thing here", e.kind, e.name)
			continue
		}
		if e.kind != "table" {
			later = append(later, e.sql)
			continue
		}
		t, err := d.table(e.name, e.sql)
		if err != nil {
			return nil, nil, err
		}
		tables = append(tables, t)
	}
	return parentsFirst(tables), later, nil
}

func (d *dumper) table(name, sql string) (t dumped, err error) {
	t.name, t.sql = name, sql
	wr, err := d.c.Value("SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?", name)
	if err != nil {
		return t, err
	}
	t.without = wr == int64(1)
	taken := map[string]bool{}
	keys := map[int64]string{}
	err = d.c.Each("SELECT name, hidden, pk FROM pragma_table_xinfo(?) ORDER BY cid", []any{name}, func(s *lite.Stmt) error {
		column, _ := s.Column(0).(string)
		taken[strings.ToLower(column)] = true
		if s.Column(1) == int64(0) {
			t.columns = append(t.columns, quoted(column))
		}
		if pk, _ := s.Column(2).(int64); pk > 0 {
			keys[pk] = quoted(column)
		}
		return nil
	})
	for i := int64(1); i <= int64(len(keys)); i++ {
		t.keys = append(t.keys, keys[i])
	}
	for _, x := range []string{"rowid", "_rowid_", "oid"} {
		if !t.without && t.rowid == "" && !taken[x] {
			t.rowid = x
		}
	}
	if err == nil {
		err = d.c.Each(`SELECT DISTINCT "table" FROM pragma_foreign_key_list(?)`, []any{name}, func(s *lite.Stmt) error {
			other, _ := s.Column(0).(string)
			t.refers = append(t.refers, strings.ToLower(other))
			return nil
		})
	}
	return t, err
}

// parentsFirst orders tables so that each comes behind those that it refers to, as far as they don't refer to each other.
func parentsFirst(tables []dumped) (out []dumped) {
	byName, state := map[string]int{}, make([]int, len(tables))
	for i, t := range tables {
		byName[strings.ToLower(t.name)] = i
	}
	var visit func(i int)
	visit = func(i int) {
		if state[i] != 0 {
			return
		}
		state[i] = 1
		for _, x := range tables[i].refers {
			if k, ok := byName[x]; ok {
				visit(k)
			}
		}
		out = append(out, tables[i])
	}
	for i := range tables {
		visit(i)
	}
	return out
}

// rows makes the rows of a table.
func (d *dumper) rows(t dumped) error {
	if len(t.columns) == 0 {
		d.out.odd("table %q: it has no columns that are stored", t.name)
		return nil
	}
	fits, long := make([]string, len(t.columns)), make([]string, len(t.columns))
	for i, c := range t.columns {
		fits[i] = fmt.Sprintf("coalesce(octet_length(%s), 0) <= %d", c, maxLength)
		long[i] = fmt.Sprintf("octet_length(%s)", c)
	}
	into, from, order := t.columns, t.columns, t.rowid
	switch {
	case t.without:
		order = strings.Join(t.keys, ", ")
	case t.rowid != "":
		into, from = append([]string{t.rowid}, into...), append([]string{t.rowid}, from...)
	default:
		order = "1"
		d.out.odd("table %q: its rows get other rowids, for its columns have all names of them", t.name)
	}
	insert := fmt.Sprintf("INSERT INTO %s(%s) VALUES(", quoted(t.name), strings.Join(into, ", "))
	where := fmt.Sprintf(" FROM main.%s NOT INDEXED WHERE %s", quoted(t.name), strings.Join(fits, " AND "))
	if t.without {
		where = strings.Replace(where, " NOT INDEXED", "", 1)
	}
	number := int64(0)
	err := d.c.Each("SELECT "+strings.Join(from, ", ")+where+" ORDER BY "+order, nil, func(s *lite.Stmt) error {
		number++
		q := rowStatement(insert, s)
		if size := sentSize(q); size > dumpStatement {
			d.out.odd("table %q, %s: a row of %d bytes as it would be sent, of at most %d", t.name, rowName(t, s, number), size, dumpStatement)
			return nil
		}
		return d.add(q, 1)
	})
	if err != nil {
		return err
	}
	key := order
	if key == "1" {
		key = "NULL"
	} else if t.without {
		key = t.keys[0]
	}
	sum := "max(" + strings.Join(append([]string{"0"}, coalesced(long)...), ", ") + ")"
	return d.c.Each(fmt.Sprintf("SELECT %s, %s FROM main.%s WHERE NOT (%s)", short(key), sum, quoted(t.name), strings.Join(fits, " AND ")), nil, func(s *lite.Stmt) error {
		d.out.odd("table %q, row %v: a cell of %v bytes, of at most %d", t.name, s.Column(0), s.Column(1), maxLength)
		return nil
	})
}

func coalesced(list []string) []string {
	out := make([]string, len(list))
	for i, x := range list {
		out[i] = "coalesce(" + x + ", 0)"
	}
	return out
}

// short is an expression for a key as it is shown.
func short(key string) string { return "substr(CAST(" + key + " AS TEXT), 1, 64)" }

func rowName(t dumped, s *lite.Stmt, number int64) string {
	if t.rowid != "" {
		return fmt.Sprintf("row %v", s.Column(0))
	}
	return fmt.Sprintf("row number %d", number)
}

// rowStatement is the statement that makes a row: what JSON has no form for stands in its text.
func rowStatement(insert string, s *lite.Stmt) (q request.Statement) {
	var b strings.Builder
	b.WriteString(insert)
	for i := range s.Columns {
		if i > 0 {
			b.WriteString(",")
		}
		literal := ""
		cell := s.Column(i)
		switch v := cell.(type) {
		case []byte:
			literal = "x'" + hex.EncodeToString(v) + "'"
		case string:
			if !utf8.ValidString(v) {
				literal = "CAST(x'" + hex.EncodeToString([]byte(v)) + "' AS TEXT)"
			}
		case float64:
			if math.IsInf(v, 0) {
				if literal = "9e999"; v < 0 {
					literal = "-9e999"
				}
			}
		}
		if literal != "" {
			b.WriteString(literal)
			continue
		}
		b.WriteString("?")
		q.Params = append(q.Params, cell)
	}
	b.WriteString(")")
	q.SQL = b.String()
	return q
}

// sentSize is how long a statement is as it is sent, in bytes, or a little less than that.
func sentSize(q request.Statement) int {
	n := len(q.SQL) + 24
	for _, p := range q.Params {
		if text, ok := p.(string); ok {
			n += len(text)*2 + 3 // with quotes and line ends, that are escaped
		} else {
			n += 24
		}
	}
	return n
}

// sequences sets how far AUTOINCREMENT has counted.
func (d *dumper) sequences() error {
	some, err := d.c.Value("SELECT count(*) FROM sqlite_schema WHERE name = 'sqlite_sequence'")
	if err != nil || some == int64(0) {
		return err
	}
	err = d.c.Each("SELECT name, seq FROM sqlite_sequence", nil, func(s *lite.Stmt) error {
		name, ok1 := s.Column(0).(string)
		seq, ok2 := s.Column(1).(int64)
		if !ok1 || !ok2 || !utf8.ValidString(name) {
			return nil
		}
		if err := d.add(request.Statement{SQL: "UPDATE sqlite_sequence SET seq = ? WHERE name = ?", Params: []any{seq, name}}, 0); err != nil {
			return err
		}
		return d.add(request.Statement{
			SQL: "INSERT INTO sqlite_sequence(name, seq) SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = ?)", Params: []any{name, seq, name},
		}, 0)
	})
	if err != nil {
		return err
	}
	return d.flush()
}

// roomy is a part of the steps that a request may take when it is admitted, that is left for what is not known: a row takes
// more by the keys that it has.
const roomy = 3

// stepsWithin is how many steps a chunk may take whose longest value has a length.
func stepsWithin(longest int) int64 {
	admitted := rules[Newest].admission()
	for _, t := range admitted.Tiers {
		if longest <= t.Length {
			return t.Steps / roomy
		}
	}
	return admitted.Tiers[len(admitted.Tiers)-1].Steps / roomy
}

func (d *dumper) add(q request.Statement, rows int64) error {
	size, longest := sentSize(q), gate.Longest(q.SQL)
	for _, p := range q.Params {
		if text, ok := p.(string); ok {
			longest = max(longest, len(text))
		}
	}
	steps := int64(60 + 6*strings.Count(q.SQL, ","))
	full := d.size+size > dumpBytes || len(d.chunk.Statements) == dumpRows || d.steps+steps > stepsWithin(max(d.longest, longest))
	if len(d.chunk.Statements) > 0 && full {
		schema := d.chunk.Schema
		if err := d.flush(); err != nil {
			return err
		}
		d.chunk.Schema = schema
	}
	d.chunk.Statements, d.chunk.Rows = append(d.chunk.Statements, q), d.chunk.Rows+rows
	d.size, d.longest, d.steps = d.size+size, max(d.longest, longest), d.steps+steps
	return nil
}

func (d *dumper) flush() error {
	chunk := d.chunk
	d.chunk, d.size, d.longest, d.steps = Chunk{}, 0, 0, 0
	if len(chunk.Statements) == 0 {
		return nil
	}
	if err := d.each(chunk); err != nil {
		return fmt.Errorf("%w: %w", errEach, err)
	}
	d.out.Rows += chunk.Rows
	return nil
}
