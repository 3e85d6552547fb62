package engine_test

import (
	"errors"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
)

// prefixes are logs by the digests of what lies before each position.
type prefixes map[tinycloud.Hash][]engine.Op

func (p prefixes) add(log []engine.Op) {
	var d tinycloud.Hash
	p[d] = nil
	for i := range log {
		d = engine.Next(d, log[i].Key)
		p[d] = log[:i+1]
	}
}

// check opens what was left behind and compares it with a fresh replay of what it says it holds. It returns how many
// operations that is, or -1 if it holds nothing.
func (p prefixes) check(t *testing.T, dir, what string) int {
	t.Helper()
	left := &host{t: t, dir: dir, verdicts: map[tinycloud.Hash]verdict{}}
	var err error
	left.DB, err = engine.Open(dir, engine.Options{})
	if errors.Is(err, engine.ErrLost) {
		return -1
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = left.Close() }()
	pos, digest := left.Position()
	log, known := p[digest]
	if !known || uint64(len(log)) != pos {
		t.Fatalf("%s: at %d with a digest of nothing", what, pos)
	}
	fresh := newHost(t, engine.Options{})
	fresh.follow(log, 0)
	if left.hash() != fresh.hash() {
		t.Fatalf("%s: at %d the content differs", what, pos)
	}
	return len(log)
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(to), os.CopyFS(to, os.DirFS(from))); err != nil {
		t.Fatal(err)
	}
}

// Whatever the process was doing when it was killed, what it left is a state that was, or is known to be none.
func TestKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "left")
	steps := map[string]int{}
	for seed := range scale(t, 4) {
		r := rand.New(rand.NewSource(int64(seed)))
		known := prefixes{}
		var h *host
		check := func(step string) {
			if h == nil || strings.HasSuffix(step, " mark") && r.Intn(20) > 0 || steps[step] >= 4 && r.Intn(8) > 0 {
				return
			}
			steps[step]++
			copyDir(t, h.dir, dir)
			if known.check(t, dir, step) < 0 {
				t.Fatalf("killed at %q: all is lost", step)
			}
		}
		o := engine.Options{Group: 1 + r.Intn(8), FoldAt: 8 + r.Intn(25), Keep: 1 + r.Intn(6)}
		o.OnStep(check)
		h = newHost(t, o)
		var log []engine.Op
		for round := range 14 {
			at := len(log)
			if round%3 == 2 {
				at = r.Intn(1 + len(log))
			}
			var late []engine.Op
			for i := range 25 {
				late = append(late, random(r, uint64(seed*10_000+round*100+i), round > 2))
			}
			log = append(append(append([]engine.Op{}, log[:at]...), late...), log[at:]...)
			known.add(log)
			h.follow(log, at)
		}
	}
	for _, step := range []string{"before mark", "after mark", "marks cut", "fold begun", "fold half", "next written", "log swapped", "folded", "undoing", "undone", "undo merged", "marks written"} {
		if steps[step] == 0 {
			t.Errorf("never killed at %q", step)
		}
	}
	t.Log(steps)
}

// When the machine loses power, any part of what was not synced may be missing: what is left is an earlier state.
func TestTorn(t *testing.T) {
	whole, shorter, lost := 0, 0, 0
	for seed := range scale(t, 12) {
		r := rand.New(rand.NewSource(int64(seed)))
		h := newHost(t, engine.Options{Group: 1 + r.Intn(20), FoldAt: 30 + r.Intn(100), Keep: 1 + r.Intn(30)})
		var log []engine.Op
		for i := range 150 {
			log = append(log, random(r, uint64(i), i > 40))
		}
		known := prefixes{}
		known.add(log)
		h.follow(log, 0)
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"base.db-wal", "marks"} {
			tear(t, r, filepath.Join(h.dir, name))
		}
		switch n := known.check(t, h.dir, "torn"); n {
		case -1:
			lost++
		case len(log):
			whole++
		default:
			shorter++
		}
	}
	t.Log("whole", whole, "shorter", shorter, "lost", lost)
	if shorter == 0 {
		t.Error("nothing was torn")
	}
}

// tear zeroes and cuts a file.
func tear(t *testing.T, r *rand.Rand, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for range r.Intn(3) {
		from := r.Intn(len(b))
		clear(b[from:min(len(b), from+1+r.Intn(9000))])
	}
	if r.Intn(2) == 0 {
		b = b[:r.Intn(len(b))]
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// What was damaged is found, or its directory is gone: then there is nothing, and it is made anew.
func TestDamaged(t *testing.T) {
	h := newHost(t, engine.Options{Group: 2, FoldAt: 20, Keep: 4})
	var log []engine.Op
	for i := range 40 {
		log = append(log, operation(uint64(i), stmt("CREATE TABLE IF NOT EXISTS t(a)"), stmt("INSERT INTO t VALUES(randomblob(2000))")))
	}
	h.follow(log, 0)
	dir := filepath.Join(t.TempDir(), "left")
	for name, damage := range map[string]func() error{
		"no base":      func() error { return os.Remove(filepath.Join(dir, "base.db")) },
		"no marks":     func() error { return os.Remove(filepath.Join(dir, "marks")) },
		"empty base":   func() error { return os.Truncate(filepath.Join(dir, "base.db"), 0) },
		"cut base":     func() error { return os.Truncate(filepath.Join(dir, "base.db"), 5000) },
		"other header": func() error { return os.WriteFile(filepath.Join(dir, "base.db"), make([]byte, 8192), 0o600) },
		"damaged sums": func() error { return os.Truncate(filepath.Join(dir, "sums"), 8) },
		"nothing":      func() error { return os.RemoveAll(dir) },
	} {
		copyDir(t, h.dir, dir)
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if db, err := engine.Open(dir, engine.Options{}); !errors.Is(err, engine.ErrLost) {
			t.Errorf("%s: %v", name, err)
			_ = db.Close()
		}
	}
}

// A bit that flips in the base, of a running or a stopped node, is found before anything is answered from its page.
func TestFlippedBit(t *testing.T) {
	h := newHost(t, engine.Options{Group: 2, FoldAt: 20, Keep: 1})
	log := []engine.Op{operation(0, stmt("CREATE TABLE t(a)"))}
	for i := range 40 {
		log = append(log, operation(uint64(1+i), stmt("INSERT INTO t VALUES(randomblob(9000))")))
	}
	h.follow(log, 0)
	path := filepath.Join(h.dir, "base.db")
	b, err := os.ReadFile(path)
	if err != nil || len(b) < 20*4096 {
		t.Fatalf("base of %d bytes, %v", len(b), err)
	}
	found := 0
	for page := 1; page < len(b)/4096; page++ {
		flipped := append([]byte{}, b...)
		flipped[page*4096+2000] ^= 4
		if err := os.WriteFile(path, flipped, 0o600); err != nil {
			t.Fatal(err)
		}
		h.reopen()
		switch _, err := h.Hash(t.Context()); {
		case errors.Is(err, engine.ErrLost):
			found++
		case err != nil:
			t.Fatalf("page %d: %v", page, err)
		}
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	h.reopen()
	fresh := newHost(t, engine.Options{})
	fresh.follow(log, 0)
	if h.hash() != fresh.hash() {
		t.Error("the content differs once the bits are back")
	}
	if found < len(b)/4096-5 { // the rest is in the log
		t.Errorf("%d of %d pages found", found, len(b)/4096)
	}
}
