package capstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// Entries that are sent are read by pages: queries for each of them take longer than what they read. A page whose bundles
// turn out to be large is given up, and they are read one by one.
const (
	maxPage   = 64      // entries
	pageBytes = 1 << 20 // that bundles of a page have together
)

var errLargePage = errors.New("the bundles are large")

// place is where an entry is in the merged logs.
type place struct {
	branch int
	n      uint64
	seq    int64
	epoch  []byte
	eid    int64
	read   *readEntry // nil: not yet
}

// readEntry is the rest of an entry, read with its place.
type readEntry struct {
	at                 int64
	digest, sig, bytes []byte
}

// page is entries that are read together.
type page struct {
	r       *reader
	places  []place
	bundles []hostlog.Bundle
	digests []tinycloud.Hash // of the entries; zero: not found
	of      map[int64][]int  // indexes by the epoch's number: entries of several hosts may have one
	size    int              // bytes
}

// pages reads the bundles of entries and yields them in order.
func (r *reader) pages(ctx context.Context, places []place, yield func(hostlog.Bundle) error) error {
	if r.atOnce == 0 {
		r.atOnce = maxPage
	}
	for len(places) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(r.atOnce, len(places))
		bundles, err := r.page(ctx, places[:n])
		if errors.Is(err, errLargePage) {
			bundles, err = nil, r.singly(ctx, places[:n], yield)
		}
		if err != nil {
			return err
		}
		for _, b := range bundles {
			if err := yield(b); err != nil {
				return err
			}
		}
		places = places[n:]
		if bundles == nil {
			r.atOnce = max(n/2, 1)
		} else if n == r.atOnce {
			r.atOnce = min(2*n, maxPage)
		}
	}
	return nil
}

// singly is pages with one bundle in memory.
func (r *reader) singly(ctx context.Context, places []place, yield func(hostlog.Bundle) error) error {
	for _, p := range places {
		b, err := r.bundle(ctx, p.branch, p.n)
		if err == nil {
			err = yield(b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// page reads the bundles of entries. The error is [errLargePage] when they are too large to be in memory together. It reads
// few rows, and does not stop in between: on SQLite each step of a query that may be stopped costs more.
func (r *reader) page(ctx context.Context, places []place) ([]hostlog.Bundle, error) {
	if !r.s.db.Shared {
		ctx = context.WithoutCancel(ctx)
	}
	p := &page{
		r: r, places: places, bundles: make([]hostlog.Bundle, len(places)), digests: make([]tinycloud.Hash, len(places)), of: map[int64][]int{},
	}
	var branches []int
	byBranch := map[int]map[uint64]int{}
	eids := make([]int64, 0, len(places))
	for i, at := range places {
		if at.read != nil {
			if err := p.entry(i, at); err != nil {
				return nil, err
			}
		} else {
			if byBranch[at.branch] == nil {
				branches, byBranch[at.branch] = append(branches, at.branch), map[uint64]int{}
			}
			byBranch[at.branch][at.n] = i
		}
		if p.of[at.eid] == nil {
			eids = append(eids, at.eid)
		}
		p.of[at.eid] = append(p.of[at.eid], i)
	}
	for _, b := range branches {
		if err := p.entries(ctx, b, byBranch[b]); err != nil {
			return nil, err
		}
	}
	if err := p.chain(ctx); err != nil {
		return nil, err
	}
	return p.bundles, p.fill(ctx, eids)
}

func lost(branch int, n uint64) error {
	return fmt.Errorf("entry %d of branch %d is lost: %w", n, branch, tinycloud.ErrUnavailable)
}

// padded repeats the last of a list until there are a power of two of them, so that there are few texts to prepare.
func padded[T any](list []T) []T {
	for n := len(list); n&(n-1) != 0; n++ {
		list = append(list, list[len(list)-1])
	}
	return list
}

// in is the condition that a column has one of some values, and these, [padded].
func in(column string, values []any) (cond string, args []any) {
	values = padded(values)
	return column + " IN (?" + strings.Repeat(", ?", len(values)-1) + ")", values
}

// rowsOf is the condition that a column has the numbers of some epochs. Those of a history that was written, or caught up
// with, alone follow each other, and SQLite reads a range of them in less than half of the time.
func (r *reader) rowsOf(column string, eids []int64) (cond string, args []any) {
	least, most := slices.Min(eids), slices.Max(eids)
	if !r.s.db.Shared && most-least == int64(len(eids))-1 {
		return column + " BETWEEN ? AND ?", []any{least, most}
	}
	all := make([]any, 0, maxPage)
	for _, eid := range eids {
		all = append(all, eid)
	}
	return in(column, all)
}

// grow counts bytes that were read. One bundle may be as large as it is.
func (p *page) grow(bytes int) error {
	if p.size += bytes; p.size > pageBytes && len(p.bundles) > 1 {
		return errLargePage
	}
	return nil
}

// entry takes one that was read with its place.
func (p *page) entry(i int, at place) error {
	p.digests[i] = tinycloud.Hash(at.read.digest)
	p.bundles[i] = hostlog.Bundle{
		Entry: hostlog.Entry{Space: p.r.space, Host: p.r.hosts[at.branch], N: at.n, Epoch: tinycloud.Hash(at.epoch), At: at.read.at},
		Sig:   hostlog.Signature(at.read.sig), Epoch: at.read.bytes,
	}
	return p.grow(len(at.read.bytes))
}

// entries reads those of a branch with the given numbers, and their epochs.
func (p *page) entries(ctx context.Context, branch int, numbers map[uint64]int) error {
	all := make([]any, 0, maxPage)
	for n := range numbers {
		all = append(all, int64(n))
	}
	cond, args := in("e.n", all)
	return p.r.s.db.Read.Each(ctx, func(scan db.Scan) error {
		var e hostlog.Entry
		var digest, sig, id, epoch []byte
		if err := scan(&e.N, &e.At, &digest, &sig, &id, &epoch); err != nil {
			return err
		}
		i := numbers[e.N]
		e.Space, e.Host, e.Epoch = p.r.space, p.r.hosts[branch], tinycloud.Hash(id)
		b := &p.bundles[i]
		b.Entry, b.Sig, b.Epoch, p.digests[i] = e, hostlog.Signature(sig), epoch, tinycloud.Hash(digest)
		return p.grow(len(epoch))
	}, "SELECT e.n, e.at, e.digest, e.sig, p.id, p.bytes FROM entries e JOIN epochs p ON p.eid = e.eid WHERE e.sid = ? AND e.branch = ? AND "+cond,
		append([]any{p.r.sid, branch}, args...)...)
}

// chain fills in the digest of the entry before each.
func (p *page) chain(ctx context.Context) (err error) {
	for i, at := range p.places {
		if p.digests[i].IsZero() {
			return lost(at.branch, at.n)
		}
		prev := &p.bundles[i].Entry.Prev
		if last, ok := p.r.last[at.branch]; ok && last.n+1 == at.n {
			*prev = last.digest
		} else if at.n > 0 {
			if *prev, err = p.r.prev(ctx, at.branch, at.n); err != nil {
				return err
			}
		}
		p.r.last[at.branch] = passed{at.n, p.digests[i]}
	}
	return nil
}

// passed is an entry that a reader came by.
type passed struct {
	n      uint64
	digest tinycloud.Hash
}

// add hands a part of an epoch to its bundles.
func (p *page) add(eid int64, bytes int, f func(*hostlog.Bundle)) error {
	for _, i := range p.of[eid] {
		f(&p.bundles[i])
	}
	return p.grow(bytes)
}

// fill adds events, operations and small current values.
func (p *page) fill(ctx context.Context, epochs []int64) error {
	cond, args := p.r.rowsOf("eid", epochs)
	some := false
	err := p.r.s.db.Read.Each(ctx, func(scan db.Scan) error {
		var eid int64
		var event []byte
		if err := scan(&eid, &event); err != nil {
			return err
		}
		return p.add(eid, len(event), func(b *hostlog.Bundle) { b.Events = append(b.Events, event) })
	}, "SELECT eid, bytes FROM events WHERE "+cond+" ORDER BY eid, idx", args...)
	if err != nil {
		return err
	}
	err = p.r.s.db.Read.Each(ctx, func(scan db.Scan) error {
		var eid int64
		var op []byte
		if err := scan(&eid, &op); err != nil {
			return err
		}
		some = true
		return p.add(eid, len(op), func(b *hostlog.Bundle) { b.Ops = append(b.Ops, op) })
	}, "SELECT eid, bytes FROM ops WHERE "+cond+" ORDER BY eid, idx, n", args...)
	if err != nil || !some {
		return err
	}
	cond, args = p.r.rowsOf("o.eid", epochs)
	for _, x := range p.r.s.held.holding(true) {
		if err := p.values(ctx, x, cond, args); err != nil {
			return err
		}
	}
	return nil
}

// values adds the values that rows of a table hold by operations of the epochs.
func (p *page) values(ctx context.Context, x heldTable, cond string, args []any) error {
	return p.r.s.db.Read.Each(ctx, func(scan db.Scan) error {
		var eid int64
		v, err := scanValue(func(dest ...any) error { return scan(append([]any{&eid}, dest...)...) })
		if err != nil {
			return err
		}
		return p.add(eid, len(v.Bytes), v.addTo)
	}, "SELECT o.eid, "+valuesOf(x)+cond, append([]any{p.r.maxValue, x.service}, args...)...)
}
