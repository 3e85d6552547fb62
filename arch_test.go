package tinycloud_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/TinyCloudLabs/tinycloud-peer"

// allowed is the dependency graph: which packages of ours a package may import. Data flows down;
// packages do not know their callers.
var allowed = map[string][]string{
	"":                                    {"internal/recent"},
	"config":                              {"internal/private"},
	"internal/private":                    {},
	"internal/recent":                     {},
	"internal/cbor":                       {},
	"internal/wait":                       {},
	"p2p":                                 {"internal/wait"},
	"hostkeys":                            {""},
	"client":                              {"", "hostkeys", "internal/cacao", "internal/recap", "internal/siwe", "internal/wait"},
	"blockstore":                          {"", "internal/cbor", "internal/private", "internal/wait"},
	"internal/testservers":                {},
	"internal/testservers/relay":          {},
	"capstore/internal/did":               {"", "internal/recent"},
	"internal/siwe":                       {""},
	"internal/recap":                      {""},
	"capstore/internal/dag":               {"", "internal/cbor"},
	"capstore/internal/caveat":            {""},
	"internal/cacao":                      {"", "internal/siwe", "internal/recap"},
	"capstore/internal/ucan":              {"", "capstore/internal/did", "internal/recap", "internal/recent"},
	"capstore/internal/parallel":          {},
	"capstore/internal/token":             {"", "internal/cacao", "capstore/internal/ucan", "capstore/internal/did", "internal/recap"},
	"capstore/hostlog":                    {"", "internal/cbor", "capstore/internal/token", "capstore/internal/dag", "capstore/internal/did", "capstore/internal/parallel"},
	"capstore/internal/judge":             {"", "capstore/hostlog", "capstore/internal/caveat", "capstore/internal/token", "capstore/internal/did", "internal/recap", "capstore/internal/dag"},
	"capstore/internal/db":                {""},
	"capstore/service":                    {"", "capstore/internal/token", "capstore/internal/db"},
	"capstore/kv":                         {"", "internal/cbor", "capstore/service", "capstore/hostlog", "capstore/internal/db", "capstore/internal/token", "capstore/internal/dag"},
	"capstore/sql":                        {"", "capstore/service", "capstore/internal/token", "capstore/sql/request", "capstore/sql/gate", "capstore/sql/engine", "internal/wait"},
	"capstore/sql/request":                {"", "internal/cbor", "capstore/internal/dag"},
	"capstore/sql/internal/lite":          {},
	"capstore/sql/internal/wal":           {},
	"capstore/sql/gate":                   {"", "capstore/internal/caveat", "capstore/sql/internal/lite", "capstore/sql/request"},
	"capstore/sql/engine":                 {"", "capstore/sql/internal/lite", "capstore/sql/internal/wal", "capstore/sql/gate", "capstore/sql/request"},
	"capstore":                            {"", "internal/cbor", "capstore/service", "capstore/internal/caveat", "capstore/hostlog", "capstore/internal/db", "capstore/internal/judge", "capstore/internal/token", "capstore/internal/dag", "capstore/internal/did", "internal/recap", "internal/siwe", "internal/cacao", "capstore/internal/parallel", "internal/private", "internal/wait"},
	"capstore/tickets":                    {"", "capstore", "capstore/kv", "capstore/internal/judge", "capstore/internal/token"},
	"capstore/encryption":                 {"", "internal/cbor", "capstore", "capstore/hostlog", "capstore/internal/dag", "capstore/internal/did", "capstore/internal/judge", "internal/recap", "capstore/internal/token"},
	"replication/wire":                    {"", "internal/cbor", "capstore/hostlog"},
	"replication/locate":                  {"", "capstore/hostlog", "internal/wait", "replication/wire"},
	"replication/keys":                    {"", "capstore/hostlog", "internal/wait", "replication/wire"},
	"replication":                         {"", "capstore/hostlog", "internal/wait", "replication/wire", "replication/locate"},
	"cmd/tinycloud-peer/internal/page":    {"cmd/tinycloud-peer/internal/callers", "internal/wait"},
	"cmd/tinycloud-peer/internal/hooks":   {"", "capstore", "internal/wait"},
	"cmd/tinycloud-peer/internal/httpapi": {"", "capstore", "capstore/kv", "capstore/tickets", "capstore/service", "capstore/hostlog", "capstore/encryption", "cmd/tinycloud-peer/internal/callers", "cmd/tinycloud-peer/internal/hooks"},
}

// The command, its wiring and the helpers of tests may import what they like.
func free(pkg string) bool {
	return pkg == "cmd/tinycloud-peer" || strings.HasPrefix(pkg, "cmd/tinycloud-peer/internal/") || strings.HasSuffix(pkg, "test")
}

func TestDependencies(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for n := 0; ; n++ {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			if n == 0 {
				t.Fatal("no packages")
			}
			return
		} else if err != nil {
			t.Fatal(err)
		}
		pkg := short(p.ImportPath)
		may, known := allowed[pkg]
		if !known {
			if !free(pkg) {
				t.Errorf("package %q is not in the graph", pkg)
			}
			continue
		}
		for _, imported := range p.Imports {
			if strings.HasPrefix(imported, module) && !slices.Contains(may, short(imported)) {
				t.Errorf("%q may not import %q", pkg, short(imported))
			}
		}
	}
}

// Replication says what it needs of a store as interfaces; the wiring gives it one. So it compiles no driver of a
// database, and neither does hostlog, which both sides speak.
func TestReplicationHasNoDatabase(t *testing.T) {
	databases := []string{"database/sql", "modernc.org/sqlite", "github.com/jackc/pgx", "github.com/go-sql-driver/mysql"}
	behind := func(pkg string) (found []string) {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", pkg).Output()
		if err != nil {
			t.Fatal(err)
		}
		for path := range strings.FieldsSeq(string(out)) {
			if slices.ContainsFunc(databases, func(d string) bool { return path == d || strings.HasPrefix(path, d+"/") }) {
				found = append(found, path)
			}
		}
		return found
	}
	for _, pkg := range []string{"./replication", "./capstore/hostlog"} {
		if found := behind(pkg); len(found) > 0 {
			t.Errorf("%s compiles %q", pkg, found)
		}
	}
	all := strings.Join(behind("./capstore"), " ")
	for _, d := range databases {
		if !strings.Contains(all, d) {
			t.Errorf("%s is not what this test has to look for", d)
		}
	}
}

// What a service keeps, and what stands beside the history, is no concern of the history: none of its statements names
// such a table.
func TestHistoryKnowsNoService(t *testing.T) {
	tables := regexp.MustCompile(`\b(kv|conflicts|tickets|webhooks|deliveries)\b`)
	n := 0
	eachFile(t, func(path string, file *ast.File) {
		if filepath.Dir(path) != "capstore" {
			return
		}
		n++
		ast.Inspect(file, func(x ast.Node) bool {
			if text, ok := x.(*ast.BasicLit); ok && text.Kind == token.STRING && tables.MatchString(text.Value) && !strings.Contains(text.Value, module) && text.Value != `"webhooks"` {
				t.Errorf("%s names a table that is not the history's: %s", path, text.Value)
			}
			return true
		})
	})
	if n == 0 {
		t.Error("no files")
	}
}

func short(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
}

// keeps are the structs that may keep a context; all others get it as an argument.
var keeps = []string{
	"capstore.tx", // a transaction, as in database/sql
}

// TestContexts holds that contexts come from main, and go down as arguments. What outlives its caller takes
// context.WithoutCancel of the caller's.
func TestContexts(t *testing.T) {
	kept := 0
	eachFile(t, func(path string, file *ast.File) {
		ast.Inspect(file, func(n ast.Node) bool {
			switch x := n.(type) {
			case *ast.SelectorExpr:
				if isContext(x, "Background", "TODO") && path != filepath.Join("cmd", "tinycloud-peer", "main.go") {
					t.Errorf("%s: context.%s: it has to come from the caller", path, x.Sel.Name)
				}
			case *ast.TypeSpec:
				if s, ok := x.Type.(*ast.StructType); ok && hasContext(s) {
					if kept++; !slices.Contains(keeps, file.Name.Name+"."+x.Name.Name) {
						t.Errorf("%s: %s keeps a context", path, x.Name.Name)
					}
				}
			}
			return true
		})
	})
	if kept != len(keeps) {
		t.Errorf("%d structs keep a context, %d may", kept, len(keeps))
	}
}

func isContext(x *ast.SelectorExpr, names ...string) bool {
	pkg, ok := x.X.(*ast.Ident)
	return ok && pkg.Name == "context" && slices.Contains(names, x.Sel.Name)
}

func hasContext(s *ast.StructType) bool {
	return slices.ContainsFunc(s.Fields.List, func(f *ast.Field) bool {
		x, ok := f.Type.(*ast.SelectorExpr)
		return ok && isContext(x, "Context")
	})
}

// TestLogging holds that who has a context logs with it.
func TestLogging(t *testing.T) {
	eachFile(t, func(path string, file *ast.File) {
		ast.Inspect(file, func(n ast.Node) bool {
			var kind *ast.FuncType
			var body *ast.BlockStmt
			switch x := n.(type) {
			case *ast.FuncDecl:
				kind, body = x.Type, x.Body
			case *ast.FuncLit:
				kind, body = x.Type, x.Body
			}
			if kind == nil || body == nil || !slices.ContainsFunc(kind.Params.List, getsContext) {
				return true
			}
			ast.Inspect(body, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if f, ok := call.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"Debug", "Info", "Warn", "Error"}, f.Sel.Name) && isLogger(f.X) {
					t.Errorf("%s: %s has a context to log %s with", path, f.Sel.Name, call.Args[0].(*ast.BasicLit).Value)
				}
				return true
			})
			return true
		})
	})
}

func getsContext(f *ast.Field) bool {
	x, ok := f.Type.(*ast.SelectorExpr)
	return ok && isContext(x, "Context") && len(f.Names) > 0 && f.Names[0].Name != "_"
}

func isLogger(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return strings.EqualFold(x.Name, "log")
	case *ast.SelectorExpr:
		return strings.EqualFold(x.Sel.Name, "log")
	}
	return false
}

// eachFile calls f with every file that is no test.
func eachFile(t *testing.T, f func(path string, file *ast.File)) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err == nil {
			n++
			f(path, file)
		}
		return err
	})
	if err != nil || n == 0 {
		t.Fatalf("%d files: %v", n, err)
	}
}
