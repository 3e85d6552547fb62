// Package memory bounds what a process has in memory beside what is live: strangers decide how much of a node is.
// It knows nothing of the node.
package memory

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

// What may lie in memory beside what is live: garbage, and pages that were garbage and are not given back yet.
const (
	share = 4        // of what is live, one in so many bytes
	room  = 16 << 20 // and so many bytes, so that a small process does not collect all the time
	more  = 48 << 20 // the same of one that has much to do for a while
)

// busy is whether this process has.
var busy atomic.Bool

// Busy says that this process makes much garbage for a while, so that it collects less often, or that it does no more.
func Busy(on bool) { busy.Store(on) }

// Bound has the garbage collector keep to that from now on, unless GOGC or GOMEMLIMIT say what the operator wants. It holds
// for the whole process.
func Bound() {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		adjust()
	}
}

// collected is garbage at once: its end tells that a collection is over.
type collected struct{ _ [16]byte }

// adjust sets the limit by what was live at the last collection, and does so after the next one.
func adjust() {
	beside := uint64(room)
	if busy.Load() {
		beside = more
	}
	debug.SetMemoryLimit(limit(read(), beside))
	runtime.SetFinalizer(&collected{}, func(*collected) { adjust() })
}

// state is what a process has of memory, in bytes.
type state struct {
	live  uint64 // objects that the last collection left
	total uint64 // mapped, whatever for
	heap  uint64 // of it objects, free pages of the heap, and those given back
}

var names = []string{
	"/gc/heap/live:bytes", "/memory/classes/total:bytes", "/memory/classes/heap/objects:bytes", "/memory/classes/heap/free:bytes", "/memory/classes/heap/released:bytes",
}

func read() (s state) {
	samples := make([]metrics.Sample, len(names))
	for i, name := range names {
		samples[i].Name = name
	}
	metrics.Read(samples)
	s.live, s.total = samples[0].Value.Uint64(), samples[1].Value.Uint64()
	for _, x := range samples[2:] {
		s.heap += x.Value.Uint64()
	}
	return s
}

// limit is the memory limit in a state, with so many bytes beside a share of what is live: what is no heap, or is lost between
// objects, counts in it and can't be collected.
func limit(s state, beside uint64) int64 {
	return int64(min(s.live+s.live/share+beside+s.total-min(s.total, s.heap), math.MaxInt64))
}
