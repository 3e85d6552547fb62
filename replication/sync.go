package replication

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// hashTips is what two hosts compare first: equal iff they hold the same entries.
func hashTips(tips []hostlog.Tip) tinycloud.Hash {
	tips = slices.Clone(tips)
	slices.SortFunc(tips, compareTips)
	b := make([]byte, 0, 72*len(tips))
	for _, t := range tips {
		b = append(b, t.Host[:]...)
		b = binary.BigEndian.AppendUint64(b, t.N)
		b = append(b, t.Digest[:]...)
	}
	return tinycloud.Sum(b)
}

func compareTips(a, b hostlog.Tip) int {
	return cmp.Or(bytes.Compare(a.Host[:], b.Host[:]), cmp.Compare(a.N, b.N), bytes.Compare(a.Digest[:], b.Digest[:]))
}

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

func packTips(tips []hostlog.Tip) []wireTip {
	out := make([]wireTip, len(tips))
	for i, t := range tips {
		out[i] = wireTip{Host: t.Host, N: t.N, Digest: t.Digest}
	}
	return out
}

func unpackTips(to []hostlog.Tip, page []wireTip) ([]hostlog.Tip, error) {
	if len(to)+len(page) > maxTips {
		return nil, fmt.Errorf("more than %d tips: %w", maxTips, tinycloud.ErrInvalid)
	}
	for _, t := range page {
		to = append(to, hostlog.Tip{Host: t.Host, N: t.N, Digest: t.Digest})
	}
	return to, nil
}

// mostTips leaves as many tips as a host takes: of a log that somebody forked without end not all, and every other log
// that is long. What has no tip may be sent again in vain, but nothing is missed for it for ever.
func mostTips(tips []hostlog.Tip, most int) []hostlog.Tip {
	if len(tips) <= most {
		return tips
	}
	tips = slices.Clone(tips)
	slices.SortFunc(tips, func(a, b hostlog.Tip) int { return compareTips(b, a) })
	rank := make(map[hostlog.Tip]int, len(tips)) // within the log
	of := map[hostlog.Key]int{}
	for _, t := range tips {
		rank[t] = of[t.Host]
		of[t.Host]++
	}
	slices.SortStableFunc(tips, func(a, b hostlog.Tip) int { return cmp.Or(cmp.Compare(rank[a], rank[b]), cmp.Compare(b.N, a.N)) })
	return tips[:most]
}

// pages calls f for every page of tips, at least once.
func pages(tips []hostlog.Tip, f func(page []wireTip, more bool) error) error {
	tips = mostTips(tips, maxTips)
	for {
		n := min(len(tips), tipsPerPage)
		page := packTips(tips[:n])
		tips = tips[n:]
		if err := f(page, len(tips) > 0); err != nil || len(tips) == 0 {
			return err
		}
	}
}

// batcher collects bundles until they fill a batch. Batches grow with what went before them: the other side has
// something to do while the way to it is still opening, and loses no more than a part of what it got when it stops.
type batcher struct {
	bundles []hostlog.Bundle
	size    int
	before  int // bytes of the batches before
	most    int // bytes that no batch exceeds; 0: maxBatch
}

// add returns the batch that is full without b, nil while there is room.
func (c *batcher) add(b hostlog.Bundle) []hostlog.Bundle {
	n := sizeOf(&b)
	var full []hostlog.Bundle
	if len(c.bundles) == maxBatchCount || len(c.bundles) > 0 && c.size+n > c.limit() {
		full = c.take()
	}
	c.bundles = append(c.bundles, b)
	c.size += n
	return full
}

// limit is how long the batch may be.
func (c *batcher) limit() int {
	const part = 8
	return min(max(c.before/part, firstBatch), cmp.Or(c.most, maxBatch))
}

func (c *batcher) take() []hostlog.Bundle {
	full := c.bundles
	c.before += c.size
	c.bundles, c.size = nil, 0
	return full
}

// frames encodes a batch: one frame, or several parts when a single bundle is longer than that.
func frames(bundles []hostlog.Bundle) ([][]byte, error) {
	m, err := packBundles(bundles)
	if err != nil {
		return nil, err
	}
	b, err := wire.encode(message{Batch: m})
	if err != nil {
		return nil, err
	}
	if len(b) <= maxFrame {
		return [][]byte{b}, nil
	}
	if len(b) > maxJoined {
		return nil, fmt.Errorf("batch of %d bytes: %w", len(b), tinycloud.ErrTooLarge)
	}
	var out [][]byte
	for piece := range slices.Chunk(b, maxPart) {
		part, err := wire.encode(message{Part: &partMessage{Data: piece, Last: len(out) == (len(b)-1)/maxPart}})
		if err != nil {
			return nil, err
		}
		out = append(out, part)
	}
	return out, nil
}

// joiner puts the parts of a batch together.
type joiner struct{ b []byte }

// add returns the batch's message with its last part, nil before.
func (j *joiner) add(p *partMessage) (*message, error) {
	if len(p.Data) == 0 || len(j.b)+len(p.Data) > maxJoined {
		return nil, fmt.Errorf("part of %d bytes after %d: %w", len(p.Data), len(j.b), tinycloud.ErrInvalid)
	}
	j.b = append(j.b, p.Data...)
	if !p.Last {
		return nil, nil
	}
	b := j.b
	j.b = nil
	m, err := decodeMessage(b)
	if err != nil {
		return nil, err
	}
	if m.Batch == nil {
		return nil, fmt.Errorf("parts of something else than a batch: %w", tinycloud.ErrInvalid)
	}
	return m, nil
}
