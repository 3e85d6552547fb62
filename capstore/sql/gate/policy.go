package gate

import (
	"slices"
	"strings"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/internal/lite"
)

// Policy judges what one statement does, while the engine compiles it. Its method Allow is the engine's authorizer.
type Policy struct {
	held   Held
	facts  *Facts
	logged bool // the statement is one that all hosts run

	kind    Kind
	defines bool   // an action on the schema was allowed, which lets read what it needs
	alters  bool   // it is an ALTER TABLE
	drops   string // the table or view that is dropped
	touched []string
}

// NewPolicy returns a policy for statements of a request, by abilities and facts; facts may be nil. logged says that they
// write: then they may use only what gives the same on every host.
func NewPolicy(held Held, facts *Facts, logged bool) *Policy {
	return &Policy{held: held, facts: facts, logged: logged}
}

// Begin begins a statement of a kind.
func (p *Policy) Begin(k Kind) {
	p.kind, p.defines, p.alters, p.drops, p.touched = k, false, false, "", nil
}

// Defines reports whether the statement changes the schema.
func (p *Policy) Defines() bool { return p.defines || p.kind == Define }

// Touched are the tables, views and indexes that the statement changes, in the order of their first mention.
func (p *Policy) Touched() []string { return p.touched }

// Allow judges an action of the statement: its arguments are those of SQLite's authorizer.
func (p *Policy) Allow(action int, a, b, db, _ string) bool {
	switch action {
	case lite.Select:
		return p.held.reads() || p.defines
	case lite.Read:
		return p.read(a, b)
	case lite.Function:
		return p.function(strings.ToLower(b))
	case lite.Pragma:
		return p.pragma(strings.ToLower(a), b)
	case lite.Insert, lite.Update, lite.Delete:
		return (db != "temp" || schemaTable(a)) && p.change(action, a, b)
	case lite.CreateTable:
		return db != "temp" && p.define(a, false)
	case lite.CreateView, lite.CreateIndex, lite.DropIndex:
		return db != "temp" && p.define(a, true)
	case lite.DropTable, lite.DropView:
		p.drops = a
		return db != "temp" && p.define(a, true)
	case lite.AlterTable:
		p.alters = true
		return p.define(b, true)
	case lite.Reindex:
		return p.defines
	}
	return false
}

// define judges a change of the schema. One that unlocks lets the statement read what it needs; CREATE TABLE AS does not.
func (p *Policy) define(name string, unlocks bool) bool {
	if !p.held.defines() || p.kind != Define || p.facts != nil && p.facts.ReadOnly {
		return false
	}
	p.defines = p.defines || unlocks
	p.touch(name)
	return true
}

func (p *Policy) touch(name string) {
	if !system(name) && !slices.Contains(p.touched, name) {
		p.touched = append(p.touched, name)
	}
}

func system(table string) bool { return strings.HasPrefix(strings.ToLower(table), "sqlite_") }

// schemaTable reports whether a table holds the schema.
func schemaTable(table string) bool {
	switch strings.ToLower(table) {
	case "sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema":
		return true
	}
	return false
}

func (p *Policy) read(table, column string) bool {
	if !p.held.reads() && !p.defines && !schemaTable(table) {
		return false
	}
	if !p.visible(strings.ToLower(table)) {
		return false
	}
	return p.facts == nil || p.facts.table(table) && p.facts.column(column)
}

// visible reports whether statements may read a table: those of the schema, and of others what is the same everywhere.
func (p *Policy) visible(table string) bool {
	if table == "json_each" || table == "json_tree" {
		return true
	}
	if name, is := strings.CutPrefix(table, "pragma_"); is {
		return !p.logged && slices.Contains(informative, name)
	}
	if table == "dbstat" {
		return !p.logged
	}
	virtual, err := lite.Virtual()
	return err == nil && !virtual[table] && !strings.HasPrefix(table, "sqlite_stat")
}

func (p *Policy) change(action int, table, column string) bool {
	if p.facts != nil && (p.facts.ReadOnly || !p.facts.table(table) || action == lite.Update && !p.facts.column(column)) {
		return false
	}
	lower := strings.ToLower(table)
	if strings.HasPrefix(lower, "sqlite_stat") && !p.defines {
		return false
	}
	if p.held.writes() {
		if p.kind != Change && p.kind != Define {
			return false
		}
		p.touch(table)
		return true
	}
	if !p.held.defines() || p.kind != Define {
		return false
	}
	own := strings.HasPrefix(lower, "sqlite_stat") || lower == "sqlite_sequence"
	switch {
	case schemaTable(table):
		return true
	case action == lite.Update:
		return own && p.alters
	case action == lite.Delete:
		return p.drops != "" && (own || strings.EqualFold(table, p.drops))
	}
	return false
}

// informative are pragmas that tell of the schema. The tables of theirs may be read by all who may read.
var informative = []string{"table_info", "table_list", "table_xinfo", "database_list", "index_list", "index_info", "foreign_key_list"}

// telling are pragmas that an admin may ask beside them.
var telling = []string{
	"user_version", "application_id", "foreign_keys", "index_xinfo", "integrity_check", "quick_check", "page_count", "page_size",
	"freelist_count", "foreign_key_check", "compile_options", "encoding", "schema_version", "journal_mode", "collation_list",
}

// withArguments are those of them whose argument is no value to set.
var withArguments = []string{"index_xinfo", "integrity_check", "quick_check", "foreign_key_check"}

func (p *Policy) pragma(name, argument string) bool {
	if p.kind != Pragma {
		return !p.logged && slices.Contains(informative, name)
	}
	if !p.held.admin() {
		return false
	}
	if name == "user_version" || name == "application_id" {
		return argument == "" || p.logged
	}
	if p.logged {
		return false
	}
	return slices.Contains(informative, name) || slices.Contains(telling, name) && (argument == "" || slices.Contains(withArguments, name))
}

func (p *Policy) function(name string) bool {
	switch {
	case slices.Contains(alterFunctions, name):
		return p.alters
	case p.logged && slices.Contains(byLibrary, name):
		return false
	}
	return functions[name]
}

// alterFunctions are what ALTER TABLE calls itself.
var alterFunctions = []string{"sqlite_rename_column", "sqlite_rename_table", "sqlite_rename_test", "sqlite_drop_column", "sqlite_rename_quotefix", "sqlite_add_constraint", "sqlite_drop_constraint", "sqlite_find_constraint", "sqlite_fail"}

// byLibrary are functions whose last bit depends on the machine.
var byLibrary = strings.Fields("acos acosh asin asinh atan atan2 atanh cos cosh exp ln log log10 log2 pow power sin sinh sqrt tan tanh degrees radians pi mod")

var functions = set(`
	abs changes char coalesce concat concat_ws format glob hex if ifnull iif instr last_insert_rowid length like likelihood likely lower ltrim max min nullif
	octet_length printf quote random randomblob replace round rtrim sign soundex substr substring total_changes trim typeof unhex unicode unlikely upper zeroblob
	avg count group_concat string_agg sum total
	current_date current_time current_timestamp date time datetime julianday strftime unixepoch timediff
	-> ->> json jsonb json_array json_array_length json_each json_error_position json_extract json_group_array json_group_object json_insert json_object json_patch
	json_pretty json_quote json_remove json_replace json_set json_tree json_type json_valid
	jsonb_array jsonb_extract jsonb_group_array jsonb_group_object jsonb_insert jsonb_object jsonb_patch jsonb_remove jsonb_replace jsonb_set
	row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value
	ceil ceiling floor trunc acos acosh asin asinh atan atan2 atanh cos cosh degrees exp ln log log10 log2 mod pi pow power radians sin sinh sqrt tan tanh
`)

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}
