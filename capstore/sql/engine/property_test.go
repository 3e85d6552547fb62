package engine_test

import (
	"errors"
	"fmt"
	"math/rand"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
)

// verdict is what of a result may not depend on anything but the operations before.
type verdict struct {
	Applied bool
	Cost    engine.Cost
}

// host keeps a database and the verdicts of its operations.
type host struct {
	*engine.DB
	t        *testing.T
	dir      string
	options  engine.Options
	verdicts map[tinycloud.Hash]verdict
	bounds   map[tinycloud.Hash]string // of operations that came to one
}

func newHost(t *testing.T, o engine.Options) *host {
	t.Helper()
	h := &host{t: t, dir: filepath.Join(t.TempDir(), "db"), options: o, verdicts: map[tinycloud.Hash]verdict{}, bounds: map[tinycloud.Hash]string{}}
	var err error
	if h.DB, err = engine.Create(h.dir, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func (h *host) note(op *engine.Op, res engine.Result) {
	v := verdict{res.Err == nil, res.Cost}
	if res.Err != nil {
		v.Cost = engine.Cost{} // one that was stopped early took what it took
		for why, text := range map[string]string{"steps": "many steps", "functions": "bytes in functions", "rows": "bytes of rows", "length": "too big", "pages": "is full"} {
			if strings.Contains(res.Err.Error(), text) {
				h.bounds[op.Key] = why
			}
		}
	}
	h.verdicts[op.Key] = v
}

// follow brings the database to a log of which all before a position is as it was.
func (h *host) follow(log []engine.Op, dirty int) {
	h.t.Helper()
	if pos, _ := h.Position(); uint64(dirty) < pos {
		_, err := h.Rewind(uint64(dirty))
		if errors.Is(err, engine.ErrGone) {
			h.reset()
		} else if err != nil {
			h.t.Fatal(err)
		}
	}
	pos, _ := h.Position()
	if err := h.Apply(h.t.Context(), log[pos:], h.note, nil); err != nil {
		h.t.Fatal(err)
	}
	if pos, digest := h.Position(); pos != uint64(len(log)) || digest != digestOf(log) {
		h.t.Fatalf("at %d of %d", pos, len(log))
	}
}

func digestOf(log []engine.Op) (d tinycloud.Hash) {
	for _, op := range log {
		d = engine.Next(d, op.Key)
	}
	return d
}

func (h *host) reset() {
	h.t.Helper()
	err := h.Close()
	if err == nil {
		h.DB, err = engine.Create(h.dir, h.options)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) reopen() {
	h.t.Helper()
	err := h.Close()
	if err == nil {
		h.DB, err = engine.Open(h.dir, h.options)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) hash() tinycloud.Hash {
	h.t.Helper()
	x, err := h.Hash(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return x
}

// Whatever way a database came to a log, with late operations and restarts, folds and undone folds, operations that move and
// operations that go, it is what a fresh one makes of the log, and so are the verdicts and their costs, also of operations that
// come to the bounds of their rules. SQL_SEEDS says how many histories there are.
func TestAnyHistory(t *testing.T) {
	operations, failed, rewinds, moved, bounded := 0, 0, 0, 0, map[string]int{}
	for seed := range scale(t, 12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { // whose files are closed then
			r := rand.New(rand.NewSource(int64(seed)))
			h := newHost(t, engine.Options{Group: 1 + r.Intn(40), FoldAt: 15 + r.Intn(150), Keep: 1 + r.Intn(30)})
			var log []engine.Op
			for round := range 12 {
				at := len(log)
				if round > 0 && r.Intn(3) > 0 {
					at = r.Intn(len(log))
					if r.Intn(2) == 0 {
						at = max(0, len(log)-r.Intn(50))
					}
				}
				var late []engine.Op
				for range 1 + r.Intn(60) {
					operations++
					late = append(late, random(r, uint64(operations), round > 3 && seed%2 == 0))
				}
				if at < len(log) {
					rewinds++
				}
				rest := log[at:]
				if r.Intn(4) == 0 && len(rest) > 2 { // one moves back, and one is gone
					k := r.Intn(len(rest) - 1)
					moved++
					rest = append(append([]engine.Op{rest[k+1]}, rest[:k]...), rest[k+2:]...)
				}
				log = append(append(append([]engine.Op{}, log[:at]...), late...), rest...)
				h.follow(log, at)
				if r.Intn(6) == 0 {
					h.reopen()
					if pos, digest := h.Position(); pos != uint64(len(log)) || digest != digestOf(log) {
						t.Fatalf("seed %d: at %d of %d after a restart", seed, pos, len(log))
					}
				}
			}
			fresh := newHost(t, engine.Options{Group: 1 + r.Intn(256)})
			fresh.follow(log, 0)
			if h.hash() != fresh.hash() {
				t.Fatalf("seed %d: the content differs from that of a fresh replay", seed)
			}
			for _, op := range log {
				if !fresh.verdicts[op.Key].Applied {
					failed++
				}
				if why := fresh.bounds[op.Key]; why != "" {
					bounded[why]++
				}
				if got, want := h.verdicts[op.Key], fresh.verdicts[op.Key]; !cmp.Equal(got, want) {
					t.Fatalf("seed %d: verdict %+v, in a fresh replay %+v: %v", seed, got, want, op.Request)
				}
			}
		})
	}
	t.Logf("%d operations, %d in final histories failed, %d rewinds, %d moves; bounds: %v", operations, failed, rewinds, moved, bounded)
	if rewinds == 0 || failed == 0 || moved == 0 || len(bounded) < 4 {
		t.Error("the histories are too simple")
	}
}

// A database that comes to another log finds where it and its own part.
func TestSettle(t *testing.T) {
	h := newHost(t, engine.Options{Group: 3, FoldAt: 20, Keep: 5})
	r := rand.New(rand.NewSource(1))
	var log []engine.Op
	for i := range 90 {
		log = append(log, random(r, uint64(i), i > 20))
	}
	h.follow(log, 0)
	for _, at := range []int{88, 60, 41, 7} {
		other := append(append([]engine.Op{}, log[:at]...), operation(uint64(1000+at), stmt("CREATE TABLE IF NOT EXISTS extra(a)")))
		pos, err := h.Settle(func(pos uint64) (tinycloud.Hash, bool) {
			if pos > uint64(len(other)) {
				return tinycloud.Hash{}, false
			}
			return digestOf(other[:pos]), true
		})
		if err != nil || pos > uint64(at) {
			t.Fatalf("settled at %d of %d, %v", pos, at, err)
		}
		h.follow(other, at)
		fresh := newHost(t, engine.Options{})
		fresh.follow(other, 0)
		if h.hash() != fresh.hash() {
			t.Errorf("the content differs at %d", at)
		}
		log = other
	}
	if _, err := h.Settle(func(uint64) (tinycloud.Hash, bool) { return tinycloud.Hash{1}, true }); !errors.Is(err, engine.ErrGone) {
		t.Errorf("a log that begins otherwise: %v", err)
	}
}
