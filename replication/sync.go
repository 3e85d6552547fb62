package replication

import (
	"slices"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

// ahead reports whether one side's tips name something that the other side's don't seem to include. It may
// err towards true: the other side then asks in vain.
func ahead(ours, theirs []hostlog.Tip) bool {
	known := make(map[hostlog.Tip]struct{}, len(theirs))
	highest := make(map[hostlog.Key]uint64, len(theirs))
	tips := make(map[hostlog.Key]int, len(theirs))
	for _, t := range theirs {
		known[t] = struct{}{}
		highest[t.Host] = max(highest[t.Host], t.N)
		tips[t.Host]++
	}
	for _, t := range ours {
		tips[t.Host]++
		if _, ok := known[t]; ok {
			continue
		}
		// More than one tip on a side: the log is forked, and a greater number says nothing.
		if n, ok := highest[t.Host]; !ok || n <= t.N || tips[t.Host] > 2 {
			return true
		}
	}
	return false
}

// lacks reports whether a tip of theirs is not among what we have.
func lacks(theirs, have []hostlog.Tip) bool {
	held := make(map[hostlog.Tip]struct{}, len(have))
	for _, t := range have {
		held[t] = struct{}{}
	}
	return slices.ContainsFunc(theirs, func(t hostlog.Tip) bool {
		_, ok := held[t]
		return !ok
	})
}

// coveredBy tells entries that tips cover from those that came later. With a forked log it takes all for covered: numbers
// alone don't tell, and what builds on an entry must not go without it.
func coveredBy(tips []hostlog.Tip) func(*hostlog.Entry) bool {
	last := make(map[hostlog.Key]uint64, len(tips))
	for _, t := range tips {
		last[t.Host] = t.N
	}
	if len(last) < len(tips) {
		return func(*hostlog.Entry) bool { return true }
	}
	return func(e *hostlog.Entry) bool {
		n, ok := last[e.Host]
		return ok && e.N <= n
	}
}

const (
	firstBatch = 64 << 10 // bytes of bundles in the first batches of a stream
	readAhead  = 2        // batches read from the store before they can be sent
)

// batcher collects bundles until they fill a batch. Batches grow with what went before them: the other side has
// something to do while the way to it is still opening, and loses no more than a part of what it got when it stops.
type batcher struct {
	bundles []hostlog.Bundle
	size    int
	before  int // bytes of the batches before
	last    int // bundles of the last one
}

// add returns the batch that is full without b, nil while there is room.
func (c *batcher) add(b hostlog.Bundle) []hostlog.Bundle {
	n := wire.SizeOf(&b)
	var full []hostlog.Bundle
	if len(c.bundles) == wire.MaxBatchCount || len(c.bundles) > 0 && c.size+n > c.limit() {
		full = c.take()
	}
	if c.bundles == nil { // most batches have as many as the one before
		c.bundles = make([]hostlog.Bundle, 0, min(c.last+c.last/8+1, wire.MaxBatchCount))
	}
	c.bundles = append(c.bundles, b)
	c.size += n
	return full
}

// limit is how long the batch may be.
func (c *batcher) limit() int {
	const part = 8
	return min(max(c.before/part, firstBatch), wire.MaxBatch)
}

func (c *batcher) take() []hostlog.Bundle {
	full := c.bundles
	c.before += c.size
	c.last = len(full)
	c.bundles, c.size = nil, 0
	return full
}
