package engine_test

import (
	"encoding/json"
	"flag"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
)

var update = flag.Bool("update", false, "write what hosts have to agree on anew: only for new rules")

// budgets are statements that try to take more than their share, in a database made for that.
type budgets struct {
	Setup   [][]string        `json:"setup"`
	Attacks map[string]string `json:"attacks"`
}

// outcome is what hosts agree on.
type outcome struct {
	Applied bool
	Cost    engine.Cost
	Why     string `json:",omitempty"`
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestBudgets holds that no statement takes long, and that what each takes is what it always took: it is part of the rules.
func TestBudgets(t *testing.T) {
	var corpus budgets
	readJSON(t, "testdata/budgets.json", &corpus)
	h := newHost(t, engine.Options{})
	var log []engine.Op
	for i, statements := range corpus.Setup {
		op := operation(uint64(i))
		for _, s := range statements {
			op.Request.Statements = append(op.Request.Statements, stmt(s))
		}
		log = append(log, op)
	}
	h.follow(log, 0)
	for _, op := range log {
		if !h.verdicts[op.Key].Applied {
			t.Fatalf("setup fails: %v", op.Request)
		}
	}
	got := map[string]outcome{}
	for i, name := range slices.Sorted(maps.Keys(corpus.Attacks)) {
		op := operation(uint64(1000+i), stmt(corpus.Attacks[name]))
		began := processor(t)
		var res engine.Result
		err := h.Apply(t.Context(), []engine.Op{op}, func(_ *engine.Op, r engine.Result) { res = r }, nil)
		took := processor(t) - began
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		o := outcome{Applied: res.Err == nil}
		if o.Applied {
			o.Cost = res.Cost
		} else {
			o.Why, _, _ = strings.Cut(res.Err.Error(), " in INSERT")
		}
		got[name] = o
		if took > 500*time.Millisecond {
			t.Logf("%-24s %5.2fs %+v %v", name, took.Seconds(), res.Cost, res.Err)
		}
		if took > longest {
			t.Errorf("%s took %v", name, took)
		}
		h.follow(log, len(log))
	}
	golden(t, "testdata/budgets.golden.json", got)
}

// longest is how long an operation may take of a processor; half of it is what the bounds aim at.
const longest = 10 * time.Second

// processor is how long the process has been on a processor.
func processor(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// golden compares what was computed with what is written down.
func golden[T any](t *testing.T, path string, got T) {
	t.Helper()
	b, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, '\n')
	if *update {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != string(b) {
		t.Errorf("%s is not what comes out now: hosts would not agree\n%s", path, firstDifference(string(want), string(b)))
	}
}

func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return "- " + x[i] + "\n+ " + y[i]
		}
	}
	return "one is longer"
}

// A database that has more pages than an operation's rules let it have may use those that are free, whichever operations were
// committed together with it.
func TestFreePagesBeyondTheRules(t *testing.T) {
	log := []engine.Op{operation(1, stmt("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")), operation(2, stmt("CREATE TABLE kept(v)"))}
	for i := range uint64(70) { // pages
		log = append(log, operation(10+i, stmt("INSERT INTO t VALUES(?, zeroblob(4000))", int64(i))))
	}
	log = append(log, operation(100, stmt("INSERT INTO kept VALUES('')")), operation(101, stmt("DELETE FROM t WHERE id > 66")))
	tight := operation(102, stmt("CREATE TABLE small(a)"))
	tight.Rules = engine.Tight
	log = append(log, tight)
	for _, group := range []int{1, 1000} {
		h := newHost(t, engine.Options{Group: group})
		h.follow(log, 0)
		if v := h.verdicts[tight.Key]; !v.Applied {
			t.Errorf("in groups of %d: it is refused", group)
		}
	}
}
