package capstore

import (
	"context"
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// share is a [hostlog.Share] that is read from the database.
type share struct {
	first, last int64

	s        *Store
	space    tinycloud.SpaceID
	sid      int64
	rows     []logRow
	from, to map[int]uint64 // numbers by branch, both included
}

// Share returns what goal covers and have does not. If something of the goal is unknown here, it ends before the
// first entry that may be missing; if import entries belong to it, which come before all else, it is empty.
func (s *Store) Share(ctx context.Context, id tinycloud.SpaceID, have, goal []hostlog.Tip) (hostlog.Share, error) {
	sid, err := s.sid(ctx, id)
	if err != nil {
		return nil, err
	}
	p := &share{s: s, space: id, sid: sid, first: 0, last: -1, to: map[int]uint64{}}
	if p.from, p.rows, err = s.lacking(ctx, sid, have); err != nil {
		return nil, err
	}
	complete, err := p.upTo(ctx, goal)
	if err != nil || complete < 0 {
		return p, err
	}
	first, last := int64(-1), int64(-1)
	for branch, to := range p.to {
		from, ok := p.from[branch]
		if !ok || from > to {
			continue
		}
		imported, err := p.imports(ctx, branch, from, to)
		if err != nil || imported {
			return p, err
		}
		begin, err := p.seq(ctx, branch, from)
		if err != nil {
			return nil, err
		}
		end, err := p.seq(ctx, branch, to) // seq grows along a branch
		if err != nil {
			return nil, err
		}
		if first < 0 || begin < first {
			first = begin
		}
		last = max(last, end)
	}
	if first >= 0 {
		p.first, p.last = first, min(last, complete)
	}
	return p, nil
}

// Span implements [hostlog.Share].
func (p *share) Span() (first, last int64) { return p.first, p.last }

// upTo sets where branches end that lead to a goal, and returns the greatest seq below which nothing of it is missing.
func (p *share) upTo(ctx context.Context, goal []hostlog.Tip) (complete int64, err error) {
	complete = 1<<63 - 1
	f := p.s.finder(ctx, p.sid, p.rows)
	for _, tip := range goal {
		branch, known, err := f.find(tip)
		if err != nil {
			return -1, err
		}
		if known {
			p.reach(branch, tip.N)
			continue
		}
		// The log has not come to that place yet, unless it is forked, and then it is not known where.
		branches := f.logs[tip.Host]
		if len(branches) != 1 || tip.N <= p.rows[branches[0]].n {
			return -1, nil
		}
		last := branches[0]
		seq, err := p.seq(ctx, last, p.rows[last].n)
		if err != nil || seq < 0 {
			return -1, err
		}
		p.reach(last, p.rows[last].n)
		complete = min(complete, seq)
	}
	return complete, nil
}

// reach notes that a branch up to a number, and what it forked from, belongs to the share.
func (p *share) reach(branch int, n uint64) {
	for {
		if to, ok := p.to[branch]; ok && to >= n {
			return // and so does what it forked from
		}
		p.to[branch] = n
		r := p.rows[branch]
		if r.base == nil {
			return
		}
		branch, n = int(*r.base), uint64(*r.baseN)
	}
}

func (p *share) imports(ctx context.Context, branch int, from, to uint64) (found bool, err error) {
	var one int
	return p.s.db.Read.One(ctx, []any{&one}, "SELECT 1 FROM imports WHERE sid = ? AND branch = ? AND n >= ? AND n <= ? LIMIT 1",
		p.sid, branch, int64(from), int64(to))
}

// seq returns the place of an entry, -1 for an import entry.
func (p *share) seq(ctx context.Context, branch int, n uint64) (seq int64, err error) {
	ok, err := p.s.db.Read.One(ctx, []any{&seq}, "SELECT p.seq FROM entries e JOIN epochs p ON p.eid = e.eid WHERE e.sid = ? AND e.branch = ? AND e.n = ?",
		p.sid, branch, int64(n))
	if err == nil && !ok {
		seq = -1
	}
	return seq, err
}

// Read calls yield with the entries of a range, both ends included, and their seq, parents first. The error is of
// class [tinycloud.ErrTooLarge] when there are too many. Values come as with [Store.Missing].
func (p *share) Read(ctx context.Context, first, last int64, maxValue int, yield func(seq int64, b hostlog.Bundle) error) error {
	var places []sharePlace
	err := p.each(ctx, first, last, func(x sharePlace) error {
		if len(places) == entriesAtOnce {
			return fmt.Errorf("range of more than %d entries: %w", entriesAtOnce, tinycloud.ErrTooLarge)
		}
		places = append(places, x)
		return nil
	})
	if err != nil {
		return err
	}
	r := &reader{s: p.s, ctx: ctx, space: p.space, sid: p.sid, hosts: make([]hostlog.Key, len(p.rows)), maxValue: maxValue}
	for i, row := range p.rows {
		r.hosts[i] = row.host
	}
	for _, x := range places {
		b, err := r.bundle(x.branch, x.n)
		if err == nil {
			err = yield(x.seq, b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Places calls yield with the places in logs of the entries of a range, both ends included, but not those of forked
// logs.
func (p *share) Places(ctx context.Context, first, last int64, yield func(host hostlog.Key, n uint64)) error {
	branches := map[hostlog.Key]int{}
	for _, r := range p.rows {
		branches[r.host]++
	}
	return p.each(ctx, first, last, func(x sharePlace) error {
		if host := p.rows[x.branch].host; branches[host] == 1 {
			yield(host, x.n)
		}
		return nil
	})
}

// sharePlace is the place of an entry.
type sharePlace struct {
	branch int
	n      uint64
	seq    int64
}

// each calls f for the entries of a range, parents first.
func (p *share) each(ctx context.Context, first, last int64, f func(sharePlace) error) error {
	return p.s.db.Read.Each(ctx, func(scan db.Scan) error {
		var x sharePlace
		if err := scan(&x.branch, &x.n, &x.seq); err != nil {
			return err
		}
		from, wanted := p.from[x.branch]
		to, within := p.to[x.branch]
		if !wanted || !within || x.n < from || x.n > to {
			return nil
		}
		return f(x)
	}, "SELECT e.branch, e.n, p.seq FROM epochs p JOIN entries e ON e.eid = p.eid WHERE p.sid = ? AND p.seq >= ? AND p.seq <= ? ORDER BY p.seq, p.id, e.branch",
		p.sid, max(first, p.first), min(last, p.last))
}
