package tinycloud_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/TinyCloudLabs/tinycloud-peer"

// allowed is the dependency graph: which packages of ours a package may import. Data flows down;
// packages do not know their callers.
var allowed = map[string][]string{
	"":                                    {},
	"config":                              {"internal/private"},
	"internal/private":                    {},
	"internal/wait":                       {},
	"p2p":                                 {"internal/wait"},
	"hostkeys":                            {""},
	"blockstore":                          {"", "internal/private", "internal/wait"},
	"internal/testservers":                {},
	"capstore/internal/did":               {""},
	"capstore/internal/siwe":              {""},
	"capstore/internal/recap":             {""},
	"capstore/internal/dag":               {""},
	"capstore/internal/cacao":             {"", "capstore/internal/siwe", "capstore/internal/recap", "capstore/internal/did"},
	"capstore/internal/ucan":              {"", "capstore/internal/did", "capstore/internal/recap"},
	"capstore/internal/parallel":          {},
	"capstore/internal/token":             {"", "capstore/internal/cacao", "capstore/internal/ucan", "capstore/internal/did", "capstore/internal/recap"},
	"capstore/hostlog":                    {"", "capstore/internal/token", "capstore/internal/dag", "capstore/internal/did", "capstore/internal/parallel"},
	"capstore/internal/judge":             {"", "capstore/hostlog", "capstore/internal/token", "capstore/internal/did", "capstore/internal/recap", "capstore/internal/dag"},
	"capstore/internal/db":                {""},
	"capstore":                            {"", "capstore/service", "capstore/hostlog", "capstore/internal/db", "capstore/internal/judge", "capstore/internal/token", "capstore/internal/dag", "capstore/internal/did", "capstore/internal/recap", "capstore/internal/siwe", "capstore/internal/cacao", "capstore/internal/parallel", "internal/private", "internal/wait"},
	"capstore/service":                    {"", "capstore/internal/token"},
	"replication":                         {"", "capstore/hostlog", "internal/wait", "replication/wire", "replication/locate"},
	"replication/locate":                  {"", "capstore/hostlog", "internal/wait", "replication/wire"},
	"replication/wire":                    {"", "capstore/hostlog"},
	"cmd/tinycloud-peer/internal/hooks":   {"", "capstore", "internal/wait"},
	"cmd/tinycloud-peer/internal/httpapi": {"", "capstore", "capstore/service", "capstore/hostlog", "cmd/tinycloud-peer/internal/callers", "cmd/tinycloud-peer/internal/hooks"},
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

func short(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
}
