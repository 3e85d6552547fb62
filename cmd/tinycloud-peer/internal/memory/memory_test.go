package memory

import (
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestLimit(t *testing.T) {
	const mb = 1 << 20
	for name, c := range map[string]struct {
		state
		want int64
	}{
		"nothing is live yet":                   {state{total: 8 * mb, heap: 4 * mb}, room + 4*mb},
		"a quarter of what is live":             {state{live: 400 * mb, total: 600 * mb, heap: 550 * mb}, 500*mb + room + 50*mb},
		"parts read a moment after the whole":   {state{live: 4 * mb, total: 8 * mb, heap: 9 * mb}, 5*mb + room},
		"what is no heap counts as it is taken": {state{live: 4 * mb, total: 108 * mb, heap: 8 * mb}, 5*mb + room + 100*mb},
	} {
		if got := limit(c.state, room); got != c.want {
			t.Errorf("%s: %d, not %d", name, got, c.want)
		}
	}
}

// TestBound has a process of its own make garbage beside what is live, and look at what it has.
func TestBound(t *testing.T) {
	if os.Getenv("MEMORY_TEST") != "" {
		makeGarbage()
		return
	}
	for _, c := range []struct {
		env  string
		want string
	}{
		{"", "bounded, with room"},
		{"MEMORY_TEST=busy", "bounded, with more room"},
		{"GOGC=400", "unbounded, as the operator set it"},
		{"GOMEMLIMIT=4GiB", "unbounded, as the operator set it"},
	} {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestBound$", "-test.v")
		child.Env = append(os.Environ(), "MEMORY_TEST=1")
		if c.env != "" {
			child.Env = append(child.Env, c.env)
		}
		out, err := child.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "it is "+c.want) {
			t.Errorf("with %q: %v, %s", c.env, err, out)
		}
	}
}

// sink keeps garbage from being optimised away.
var sink []byte

func makeGarbage() {
	Bound()
	has, named := uint64(room), "with room"
	if os.Getenv("MEMORY_TEST") == "busy" {
		Busy(true)
		has, named = more, "with more room"
	}
	live := make([][]byte, 200)
	for i := range live {
		live[i] = make([]byte, 1<<20)
	}
	runtime.GC()
	most := uint64(0)
	for i := range 4000 {
		if sink = make([]byte, 256<<10); i%16 == 0 {
			most = max(most, held())
		}
	}
	// 200 MiB are live, so garbage may be 66 MiB, or 98 while there is much to do, and as much as is made while it is collected,
	// which is the machine's to say. Without a bound it is as much as is live.
	bounded := "bounded"
	if most >= 350<<20 {
		bounded = "unbounded"
	}
	switch {
	case debug.SetMemoryLimit(-1) > 1<<31:
		println("it is " + bounded + ", as the operator set it")
	case leaves(has):
		println("it is " + bounded + ", " + named)
	default:
		println("it is " + bounded + ", with another room")
	}
	runtime.KeepAlive(live)
}

// leaves is whether the limit comes to leave so many bytes beside a share of what is live: it is set some time after a collection.
func leaves(beside uint64) bool {
	const near = 4 << 20
	for range 1000 {
		runtime.GC()
		if d := debug.SetMemoryLimit(-1) - limit(read(), beside); -near < d && d < near {
			return true
		}
	}
	return false
}

// held is what the process has that was not given back, in bytes.
func held() uint64 {
	s := read()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return s.total - m.HeapReleased
}

func TestOperatorsLimitStays(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "1GiB")
	before := debug.SetMemoryLimit(-1)
	Bound()
	if debug.SetMemoryLimit(-1) != before {
		t.Error("what the operator set was changed")
	}
}
