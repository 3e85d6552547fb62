package memory

import (
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

func TestLimit(t *testing.T) {
	const mb = 1 << 20
	for name, c := range map[string]struct {
		state
		want int64
	}{
		"nothing is live yet":                   {state{total: 8 * mb, heap: 4 * mb}, 20 * mb},
		"a quarter of what is live":             {state{live: 400 * mb, total: 600 * mb, heap: 550 * mb}, 566 * mb},
		"parts read a moment after the whole":   {state{live: 4 * mb, total: 8 * mb, heap: 9 * mb}, 21 * mb},
		"what is no heap counts as it is taken": {state{live: 4 * mb, total: 108 * mb, heap: 8 * mb}, 121 * mb},
	} {
		if got := limit(c.state, 16*mb); got != c.want {
			t.Errorf("%s: %d, not %d", name, got, c.want)
		}
	}
}

func TestRoom(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		made uint64
		in   time.Duration
		want uint64
	}{
		{0, 0, 16 * mb},
		{mb, time.Minute, 16 * mb},
		{40 * mb, 400 * time.Millisecond, 20 * mb},
		{40 * mb, 0, 48 * mb},
		{1 << 40, time.Second, 48 * mb},
	} {
		if got := room(c.made, c.in); got != c.want {
			t.Errorf("%d bytes in %v: %d, not %d", c.made, c.in, got, c.want)
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
	}{{"", "bounded"}, {"GOGC=400", "unbounded"}, {"GOMEMLIMIT=4GiB", "unbounded"}} {
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
	runtime.KeepAlive(live)
	// 200 MiB are live, so garbage may be 98 MiB, since it is made as fast as can be, and as much as is made while it is
	// collected. Without a bound it is as much as is live.
	if most < 350<<20 {
		println("it is bounded")
	} else {
		println("it is unbounded")
	}
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
