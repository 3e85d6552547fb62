// Package memory bounds what a process has in memory beside what is live: strangers decide how much of a node is.
// It knows nothing of the node.
package memory

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// What may lie in memory beside what is live: garbage, and pages that were garbage and are not given back yet.
const (
	share = 4 // of what is live, one in so many bytes

	// And what is made in so long, so that the collector has a part of the processors that does not grow with the work, but at
	// least and at most so many bytes.
	pace      = time.Second / 5
	leastRoom = 16 << 20
	mostRoom  = 48 << 20
)

// Bound has the garbage collector keep to that from now on, unless GOGC or GOMEMLIMIT say what the operator wants. It holds
// for the whole process.
func Bound() {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		adjust(read(), time.Now())
	}
}

// collected is garbage at once: its end tells that a collection is over.
type collected struct{ _ [16]byte }

// adjust sets the limit by what was live at the last collection and was made since another one, at a time, and does so after
// the next one.
func adjust(then state, at time.Time) {
	now, s := time.Now(), read()
	debug.SetMemoryLimit(limit(s, room(s.made-then.made, now.Sub(at))))
	runtime.SetFinalizer(&collected{}, func(*collected) { adjust(s, now) })
}

// state is what a process has of memory, in bytes.
type state struct {
	live  uint64 // objects that the last collection left
	total uint64 // mapped, whatever for
	heap  uint64 // of it objects, free pages of the heap, and those given back
	made  uint64 // objects since the process began
}

var names = []string{
	"/gc/heap/live:bytes", "/memory/classes/total:bytes", "/memory/classes/heap/objects:bytes", "/memory/classes/heap/free:bytes", "/memory/classes/heap/released:bytes",
	"/gc/heap/allocs:bytes",
}

func read() (s state) {
	samples := make([]metrics.Sample, len(names))
	for i, name := range names {
		samples[i].Name = name
	}
	metrics.Read(samples)
	s.live, s.total, s.made = samples[0].Value.Uint64(), samples[1].Value.Uint64(), samples[5].Value.Uint64()
	for _, x := range samples[2:5] {
		s.heap += x.Value.Uint64()
	}
	return s
}

// limit is the memory limit in a state with so much room: what is no heap, or is lost between objects, counts in it and can't
// be collected.
func limit(s state, room uint64) int64 {
	return int64(min(s.live+s.live/share+room+s.total-min(s.total, s.heap), math.MaxInt64))
}

// room is what may lie beside what is live of a process that made so many bytes in so long.
func room(made uint64, in time.Duration) uint64 {
	return uint64(min(max(float64(made)*float64(pace)/float64(max(in, 1)), leastRoom), mostRoom))
}
