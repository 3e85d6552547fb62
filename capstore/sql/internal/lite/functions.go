package lite

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"modernc.org/libc"
	sq "modernc.org/sqlite/lib"
)

func sizeof[T any]() uintptr {
	var t T
	return unsafe.Sizeof(t)
}

type (
	scalar   = func(tls *libc.TLS, ctx uintptr, argc int32, argv uintptr)
	finisher = func(tls *libc.TLS, ctx uintptr)
)

// builtin is a function of the engine as it defines it.
type builtin struct {
	name string
	def  sq.TFuncDef
}

// builtins are the functions of the engine that work on values.
var builtins = sync.OnceValues(readBuiltins)

// CountBytes has the meter count what functions of the engine do: each is covered by one of the connection that counts,
// and then calls it. It keeps what the engine knows of the function, so that nothing else changes, but for local time, which
// is an error.
func (c *Conn) CountBytes() error {
	all, err := builtins()
	if err != nil {
		return err
	}
	for _, f := range all {
		if err := c.cover(f); err != nil {
			return err
		}
	}
	return c.coverTables()
}

func (c *Conn) cover(f builtin) error {
	ours := &struct {
		call, inverse scalar
		final, value  finisher
	}{}
	c.keep = append(c.keep, ours)
	of := costOf(f.name)
	dated := slices.Contains(dates, f.name)
	charged := func(call scalar) scalar {
		return func(tls *libc.TLS, ctx uintptr, argc int32, argv uintptr) {
			if !c.Meter.charge(of(argc, argv)) {
				c.fail(ctx, "too many bytes in functions")
				return
			}
			if dated && local(argc, argv) {
				c.fail(ctx, "local time is not the same on every host")
				return
			}
			call(tls, ctx, argc, argv)
			c.Meter.charge(int64(size(at[sq.Tsqlite3_context](ctx).FpOut)))
		}
	}
	ended := func(call finisher) finisher {
		return func(tls *libc.TLS, ctx uintptr) {
			call(tls, ctx)
			c.Meter.charge(int64(size(at[sq.Tsqlite3_context](ctx).FpOut)))
		}
	}
	ours.call = charged(function[scalar](f.def.FxSFunc))
	call, step := pointer(&ours.call), uintptr(0)
	var final, value, inverse uintptr
	if f.def.FxFinalize != 0 {
		ours.final = ended(function[finisher](f.def.FxFinalize))
		call, step, final = 0, call, pointer(&ours.final)
	}
	if f.def.FxValue != 0 {
		ours.value = ended(function[finisher](f.def.FxValue))
		value = pointer(&ours.value)
	}
	if f.def.FxInverse != 0 {
		ours.inverse = charged(function[scalar](f.def.FxInverse))
		inverse = pointer(&ours.inverse)
	}
	name, args := cstring(c.tls, f.name), max(-1, f.def.FnArg) // below it the engine means "so many at least", and lets nobody say so
	defer libc.Xfree(c.tls, name)
	rc := sq.Xsqlite3_create_function_v2(c.tls, c.db, name, int32(args), sq.SQLITE_UTF8, 0, call, step, final, 0)
	if rc != sq.SQLITE_OK {
		return fmt.Errorf("function %s: %w", f.name, c.failure(rc))
	}
	def := c.functionDef(f.name, args)
	if def == nil {
		return fmt.Errorf("function %s of %d arguments is not where it was made", f.name, args)
	}
	def.FnArg, def.FfuncFlags, def.FpUserData = f.def.FnArg, f.def.FfuncFlags, f.def.FpUserData
	def.FxValue, def.FxInverse = value, inverse
	return nil
}

// dates are the functions that know the modifiers of local time.
var dates = []string{"date", "time", "datetime", "julianday", "unixepoch", "strftime"}

// local reports whether an argument is a modifier that asks for the time zone of the machine.
func local(argc int32, argv uintptr) bool {
	for i := range uintptr(argc) {
		v := at[sq.Tsqlite3_value](*at[uintptr](argv + i*8))
		if v.Fflags&(sq.MEM_Str|sq.MEM_Blob) == 0 || v.Fflags&sq.MEM_Zero != 0 {
			continue
		}
		word, _, _ := strings.Cut(string(view(v.Fz, min(10, int(v.Fn)))), "\x00")
		if strings.EqualFold(word, "localtime") || strings.EqualFold(word, "utc") {
			return true
		}
	}
	return false
}

// fail has a function fail.
func (c *Conn) fail(ctx uintptr, why string) {
	p := cstring(c.tls, why)
	defer libc.Xfree(c.tls, p)
	sq.Xsqlite3_result_error(c.tls, ctx, p, -1)
}

// functionDef finds a function of the connection itself.
func (c *Conn) functionDef(name string, args int16) *sq.TFuncDef {
	for e := at[sq.Tsqlite3](c.db).FaFunc.Ffirst; e != 0; e = at[sq.THashElem](e).Fnext {
		for p := at[sq.THashElem](e).Fdata; p != 0; p = at[sq.TFuncDef](p).FpNext {
			d := at[sq.TFuncDef](p)
			if d.FnArg == args && strings.EqualFold(libc.GoString(d.FzName), name) {
				return d
			}
		}
	}
	return nil
}

// readBuiltins finds the engine's functions in programs that call them.
func readBuiltins() ([]builtin, error) {
	c, err := Open(":memory:", Create, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	var all []builtin
	type signature struct {
		name string
		args int64
	}
	var names []signature
	err = c.Each("SELECT name, narg FROM pragma_function_list WHERE builtin AND type <> 'w' OR name IN ('group_concat', 'string_agg', 'sum', 'total', 'avg', 'count', 'min', 'max', 'json_group_array', 'json_group_object', 'jsonb_group_array', 'jsonb_group_object') ORDER BY name, narg", nil, func(s *Stmt) error {
		names = append(names, signature{s.Column(0).(string), s.Column(1).(int64)})
		return nil
	})
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, n := range names {
		for _, args := range []int64{n.args, 0, 1, 2, 3, 4} {
			if args < 0 || n.args >= 0 && args != n.args {
				continue
			}
			for _, f := range c.calls(n.name, int(args)) {
				key := fmt.Sprint(f.name, f.def.FnArg)
				if !seen[key] && f.def.FfuncFlags&(sq.SQLITE_FUNC_INLINE|sq.SQLITE_FUNC_INTERNAL) == 0 && f.def.FxSFunc != 0 && !slices.Contains(uncounted, f.name) {
					seen[key] = true
					all = append(all, f)
				}
			}
		}
	}
	if len(all) < 60 {
		return nil, fmt.Errorf("only %d functions of the engine were found", len(all))
	}
	return all, nil
}

// uncounted are functions that are others of the connection, or touch no values, or are never allowed.
var uncounted = []string{
	"random", "randomblob", "changes", "total_changes", "last_insert_rowid", "load_extension", "sqlite_log", "sqlite_offset", "count",
	"row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "lag", "lead", "first_value", "last_value", "nth_value", "match",
	"typeof",
}

// calls are the functions that a program calls which calls one by its name.
func (c *Conn) calls(name string, args int) (found []builtin) {
	params := strings.TrimSuffix(strings.Repeat("?,", args), ",")
	q := fmt.Sprintf(`SELECT "%s"(%s)`, name, params)
	if name == "->" || name == "->>" {
		q = "SELECT ? " + name + " ?"
	}
	if strings.HasPrefix(name, "current_") {
		q = "SELECT " + name
	}
	s, err := c.Prepare(q)
	if err != nil || s.Empty() {
		return nil // not with so many arguments
	}
	defer s.Finalize()
	v := at[sq.TVdbe](s.p)
	for i := range uintptr(v.FnOp) {
		op := at[sq.TVdbeOp](v.FaOp + i*sizeof[sq.TVdbeOp]())
		p := *(*uintptr)(unsafe.Pointer(&op.Fp4))
		switch op.Fp4type {
		case sq.P4_FUNCCTX:
			p = at[sq.Tsqlite3_context](p).FpFunc
		case sq.P4_FUNCDEF:
		default:
			continue
		}
		d := *at[sq.TFuncDef](p)
		found = append(found, builtin{libc.GoString(d.FzName), d})
	}
	return found
}

// costOf is how a function's cost follows from its arguments: their bytes, but for those whose time is a product.
func costOf(name string) func(argc int32, argv uintptr) int64 {
	sum := func(argc int32, argv uintptr) int64 {
		n := int64(16)
		for i := range uintptr(argc) {
			n += int64(size(*at[uintptr](argv + i*8)))
		}
		return n
	}
	switch {
	case slices.Contains([]string{"like", "glob", "instr", "replace", "trim", "ltrim", "rtrim"}, name):
		return func(argc int32, argv uintptr) int64 {
			n := sum(argc, argv)
			if argc >= 2 {
				n += int64(size(*at[uintptr](argv))) * int64(size(*at[uintptr](argv + 8)))
			}
			return n
		}
	case strings.HasPrefix(name, "json"), strings.HasPrefix(name, "->"):
		return func(argc int32, argv uintptr) int64 { return jsonCost * sum(argc, argv) * (1 + int64(argc)/2) }
	}
	return sum
}

// jsonCost is how much more than a copy it costs to read JSON.
const jsonCost = 8

// coverTables has json_each and json_tree count what they read.
func (c *Conn) coverTables() error {
	modules, err := tables()
	if err != nil {
		return err
	}
	for name, module := range modules {
		p := libc.Xmalloc(c.tls, libc.Tsize_t(sizeof[sq.Tsqlite3_module]()))
		c.modules = append(c.modules, p)
		m := at[sq.Tsqlite3_module](p)
		*m = *at[sq.Tsqlite3_module](module)
		filter := function[filterFunc](m.FxFilter)
		ours := new(filterFunc)
		*ours = func(tls *libc.TLS, cursor uintptr, index int32, text uintptr, argc int32, argv uintptr) int32 {
			n := int64(16)
			for i := range uintptr(argc) {
				n += int64(size(*at[uintptr](argv + i*8)))
			}
			if !c.Meter.charge(jsonCost * n) {
				return sq.SQLITE_FULL
			}
			return filter(tls, cursor, index, text, argc, argv)
		}
		c.keep = append(c.keep, ours)
		m.FxFilter = pointer(ours)
		z := cstring(c.tls, name)
		rc := sq.Xsqlite3_create_module_v2(c.tls, c.db, z, p, 0, 0)
		libc.Xfree(c.tls, z)
		if rc != sq.SQLITE_OK {
			return fmt.Errorf("table %s: %w", name, c.failure(rc))
		}
	}
	return nil
}

type filterFunc = func(tls *libc.TLS, cursor uintptr, index int32, text uintptr, argc int32, argv uintptr) int32

// tables finds the engine's modules of JSON.
var tables = sync.OnceValues(func() (map[string]uintptr, error) {
	c, err := Open(":memory:", Create, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	found := map[string]uintptr{}
	for _, name := range []string{"json_each", "json_tree"} {
		if err := c.Run("SELECT 1 FROM " + name + "('[]')"); err != nil {
			return nil, err
		}
		for e := at[sq.Tsqlite3](c.db).FaModule.Ffirst; e != 0; e = at[sq.THashElem](e).Fnext {
			if m := at[sq.TModule](at[sq.THashElem](e).Fdata); libc.GoString(m.FzName) == name {
				found[name] = m.FpModule
			}
		}
		if found[name] == 0 {
			return nil, fmt.Errorf("table %s of the engine was not found", name)
		}
	}
	return found, nil
})

// PinRandom has random() and randomblob() read [Conn.Random].
func (c *Conn) PinRandom() error {
	number := new(scalar)
	*number = func(tls *libc.TLS, ctx uintptr, _ int32, _ uintptr) {
		var b [8]byte
		c.Random(b[:])
		sq.Xsqlite3_result_int64(tls, ctx, int64(binary.LittleEndian.Uint64(b[:])))
	}
	blob := new(scalar)
	*blob = func(tls *libc.TLS, ctx uintptr, _ int32, argv uintptr) {
		n := max(1, sq.Xsqlite3_value_int64(tls, *at[uintptr](argv)))
		if n > int64(sq.Xsqlite3_limit(tls, c.db, LimitLength, -1)) {
			sq.Xsqlite3_result_error_toobig(tls, ctx)
			return
		}
		if !c.Meter.charge(n) {
			c.fail(ctx, "too many bytes in functions")
			return
		}
		p := libc.Xmalloc(tls, libc.Tsize_t(n))
		defer libc.Xfree(tls, p)
		c.Random(view(p, int(n)))
		sq.Xsqlite3_result_blob(tls, ctx, p, int32(n), ^uintptr(0))
	}
	c.keep = append(c.keep, number, blob)
	for _, f := range []struct {
		name string
		args int32
		call *scalar
	}{{"random", 0, number}, {"randomblob", 1, blob}} {
		name := cstring(c.tls, f.name)
		rc := sq.Xsqlite3_create_function_v2(c.tls, c.db, name, f.args, sq.SQLITE_UTF8|sq.SQLITE_INNOCUOUS, 0, pointer(f.call), 0, 0, 0)
		libc.Xfree(c.tls, name)
		if rc != sq.SQLITE_OK {
			return fmt.Errorf("function %s: %w", f.name, c.failure(rc))
		}
	}
	return nil
}
