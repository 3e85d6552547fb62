package capstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

// Tip is the last entry of a branch of a host's log.
type Tip struct {
	Host   HostKey
	N      uint64
	Digest tinycloud.Hash
}

// Tips returns the tips of all logs of a Space, sorted by host, number and digest. Equal tips mean
// equal histories.
func (s *Store) Tips(ctx context.Context, id tinycloud.SpaceID) ([]Tip, error) {
	sid, err := s.sid(id)
	if err != nil {
		return nil, err
	}
	var tips []Tip
	err = eachRow(ctx, s.read, func(scan func(...any) error) error {
		var host, digest []byte
		var t Tip
		if err := scan(&host, &t.N, &digest); err != nil {
			return err
		}
		t.Host, t.Digest = HostKey(host), tinycloud.Hash(digest)
		tips = append(tips, t)
		return nil
	}, "SELECT host, n, digest FROM logs WHERE sid = ?", sid)
	slices.SortFunc(tips, func(a, b Tip) int {
		return cmp.Or(slices.Compare(a.Host[:], b.Host[:]), cmp.Compare(a.N, b.N), slices.Compare(a.Digest[:], b.Digest[:]))
	})
	return tips, err
}

// Missing calls yield with the entries of a Space that a peer with the given tips lacks, all logs
// merged so that parents come first. Values of up to maxValue bytes that are current come along. Tips that
// are not known here are ignored: the peer names what it has with [Store.Have].
func (s *Store) Missing(ctx context.Context, id tinycloud.SpaceID, have []Tip, maxValue int, yield func(Bundle) error) error {
	sid, err := s.sid(id)
	if err != nil {
		return err
	}
	from, hosts, err := s.lacking(ctx, sid, have)
	if err != nil {
		return err
	}
	return s.missing(ctx, id, sid, hosts, from, maxValue, yield)
}

// missing calls yield with the entries of branches from the given numbers on.
func (s *Store) missing(ctx context.Context, id tinycloud.SpaceID, sid int64, hosts []HostKey, from map[int]uint64, maxValue int, yield func(Bundle) error) error {
	cond, args := "", []any{sid}
	for br, n := range from {
		if cond != "" {
			cond += " OR "
		}
		cond += "(e.branch = ? AND e.n >= ?)"
		args = append(args, br, n)
	}
	if cond == "" {
		return nil
	}
	r := &reader{s: s, ctx: ctx, space: id, sid: sid, hosts: hosts, maxValue: maxValue}
	if err := r.imports(yield, from); err != nil {
		return err
	}
	return r.each(yield, `SELECT e.branch, e.n, e.at, e.sig, p.eid, p.id, p.bytes, e.digest FROM entries e JOIN epochs p ON p.eid = e.eid
		WHERE e.sid = ? AND (`+cond+`) ORDER BY p.seq, p.id, e.branch`, args...)
}

// lacking returns per branch the first entry number that a peer lacks.
func (s *Store) lacking(ctx context.Context, sid int64, have []Tip) (map[int]uint64, []HostKey, error) {
	type row struct {
		host  HostKey
		base  *int64
		baseN *int64
		n     uint64
	}
	var rows []row
	err := eachRow(ctx, s.read, func(scan func(...any) error) error {
		var r row
		var host []byte
		err := scan(&host, &r.base, &r.baseN, &r.n)
		if err == nil {
			r.host = HostKey(host)
			rows = append(rows, r)
		}
		return err
	}, "SELECT host, base, base_n, n FROM logs WHERE sid = ? ORDER BY branch", sid)
	if err != nil {
		return nil, nil, err
	}
	from, hosts := map[int]uint64{}, make([]HostKey, len(rows))
	for i, r := range rows {
		hosts[i] = r.host
		if r.base != nil {
			from[i] = uint64(*r.baseN) + 1
		} else {
			from[i] = 0
		}
	}
	for _, tip := range have {
		for i, r := range rows {
			if r.host != tip.Host {
				continue
			}
			digest, ok, err := s.digest(ctx, sid, i, tip.N)
			if err != nil {
				return nil, nil, err
			}
			if !ok || digest != tip.Digest {
				continue
			}
			// It holds what the branch forked from too, up to the fork.
			for b, n := i, tip.N; ; {
				from[b] = max(from[b], n+1)
				if rows[b].base == nil {
					break
				}
				b, n = int(*rows[b].base), uint64(*rows[b].baseN)
			}
		}
	}
	for i, r := range rows {
		if from[i] > r.n {
			delete(from, i)
		}
	}
	return from, hosts, nil
}

// reader makes bundles of stored entries.
type reader struct {
	s        *Store
	ctx      context.Context
	space    tinycloud.SpaceID
	sid      int64
	hosts    []HostKey
	maxValue int
}

func (r *reader) each(yield func(Bundle) error, query string, args ...any) error {
	return eachRow(r.ctx, r.s.read, func(scan func(...any) error) error {
		var b Bundle
		var branch int
		var eid int64
		var sig, id, digest []byte
		if err := scan(&branch, &b.Entry.N, &b.Entry.At, &sig, &eid, &id, &b.Epoch, &digest); err != nil {
			return err
		}
		b.Entry.Space, b.Entry.Host, b.Entry.Epoch, b.Sig = r.space, r.hosts[branch], tinycloud.Hash(id), Signature(sig)
		if b.Entry.N > 0 {
			prev, err := r.prev(branch, b.Entry.N)
			if err != nil {
				return err
			}
			b.Entry.Prev = prev
		}
		if err := r.fill(&b, eid); err != nil {
			return err
		}
		return yield(b)
	}, query, args...)
}

// prev returns the digest of the entry before one, following a fork to its base.
func (r *reader) prev(branch int, n uint64) (tinycloud.Hash, error) {
	for range 64 {
		var digest []byte
		err := r.s.read.QueryRowContext(r.ctx, "SELECT digest FROM entries WHERE sid = ? AND branch = ? AND n = ?", r.sid, branch, n-1).Scan(&digest)
		if err == nil {
			return tinycloud.Hash(digest), nil
		}
		var base *int64
		if err := r.s.read.QueryRowContext(r.ctx, "SELECT base FROM logs WHERE sid = ? AND branch = ?", r.sid, branch).Scan(&base); err != nil {
			return tinycloud.Hash{}, dbErr(err)
		}
		if base == nil {
			break
		}
		branch = int(*base)
	}
	return tinycloud.Hash{}, fmt.Errorf("entry %d of branch %d is lost: %w", n-1, branch, tinycloud.ErrUnavailable)
}

// fill adds events, operations and small current values.
func (r *reader) fill(b *Bundle, eid int64) error {
	err := eachRow(r.ctx, r.s.read, func(scan func(...any) error) error {
		var e []byte
		err := scan(&e)
		b.Events = append(b.Events, e)
		return err
	}, "SELECT bytes FROM events WHERE eid = ? ORDER BY idx", eid)
	if err != nil {
		return err
	}
	err = eachRow(r.ctx, r.s.read, func(scan func(...any) error) error {
		var op []byte
		err := scan(&op)
		b.Ops = append(b.Ops, op)
		return err
	}, "SELECT bytes FROM ops WHERE eid = ? ORDER BY idx, n", eid)
	if err != nil || len(b.Ops) == 0 {
		return err
	}
	return eachRow(r.ctx, r.s.read, func(scan func(...any) error) error {
		var v Value
		var hash []byte
		var size int64
		if err := scan(&hash, &v.Bytes, &size); err != nil {
			return err
		}
		v.Hash = tinycloud.Hash(hash)
		if v.Bytes != nil || size == 0 {
			b.Values = append(b.Values, v)
		} else {
			b.Large = append(b.Large, Large{Hash: v.Hash, Size: size})
		}
		return nil
	}, `SELECT v.hash, CASE WHEN v.size <= ? THEN v.inline END, v.size FROM ops o JOIN kv k ON k.sid = o.sid AND k.key = o.key AND k.live = 1
		JOIN epochs p ON p.eid = o.eid AND p.id = k.epoch JOIN vals v ON v.sid = k.sid AND v.hash = k.value WHERE o.eid = ? AND o.removes = 0`, r.maxValue, eid)
}

// Have returns what to tell a peer whose tips are theirs, so that it sends what is missing here: each of
// them that is stored here and, for a log with one that is not, our own tips of that log and entries
// before them at growing distances, so that a fork costs no more than a part of what follows it.
func (s *Store) Have(ctx context.Context, id tinycloud.SpaceID, theirs []Tip) ([]Tip, error) {
	sid, err := s.sid(id)
	if err != nil {
		return nil, err
	}
	branches := map[HostKey][]int{}
	tips := map[int]uint64{}
	err = eachRow(ctx, s.read, func(scan func(...any) error) error {
		var branch int
		var host []byte
		var n uint64
		err := scan(&branch, &host, &n)
		if err == nil {
			branches[HostKey(host)] = append(branches[HostKey(host)], branch)
			tips[branch] = n
		}
		return err
	}, "SELECT branch, host, n FROM logs WHERE sid = ?", sid)
	if err != nil {
		return nil, err
	}
	var out []Tip
	told := map[HostKey]bool{}
	for _, tip := range theirs {
		known := false
		for _, br := range branches[tip.Host] {
			digest, ok, err := s.digest(ctx, sid, br, tip.N)
			if err != nil {
				return nil, err
			}
			known = known || (ok && digest == tip.Digest)
		}
		if known {
			out = append(out, tip)
			continue
		}
		if told[tip.Host] {
			continue
		}
		told[tip.Host] = true
		for _, br := range branches[tip.Host] {
			if out, err = s.ladder(ctx, sid, br, tip.Host, tips[br], out); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// ladder appends entries of a branch from its tip down, at distances that double.
func (s *Store) ladder(ctx context.Context, sid int64, branch int, host HostKey, n uint64, out []Tip) ([]Tip, error) {
	for step := uint64(1); ; step *= 2 {
		digest, ok, err := s.digest(ctx, sid, branch, n)
		if err != nil || !ok {
			return out, err
		}
		out = append(out, Tip{Host: host, N: n, Digest: digest})
		if n < step {
			return out, nil
		}
		n -= step
	}
}

func (s *Store) digest(ctx context.Context, sid int64, branch int, n uint64) (tinycloud.Hash, bool, error) {
	var digest []byte
	err := s.read.QueryRowContext(ctx, "SELECT digest FROM entries WHERE sid = ? AND branch = ? AND n = ?", sid, branch, int64(n)).Scan(&digest)
	if errors.Is(err, sql.ErrNoRows) || n > 1<<62 {
		return tinycloud.Hash{}, false, nil
	}
	if err != nil {
		return tinycloud.Hash{}, false, dbErr(err)
	}
	return tinycloud.Hash(digest), true, nil
}

// HostChain returns the tokens that make this node a host of a Space: its host delegation and those
// it rests on, leaf first. The error is of class [tinycloud.ErrNotFound] when there is none in force.
func (s *Store) HostChain(ctx context.Context, id tinycloud.SpaceID) ([][]byte, error) {
	host := newSpace(s, 0, id, "").host
	best, err := s.hostDelegation(ctx, id, host)
	if err != nil {
		return nil, err
	}
	if best == nil {
		return nil, fmt.Errorf("no host delegation to %s in force: %w", host, tinycloud.ErrNotFound)
	}
	var out [][]byte
	todo, seen := []*Token{best}, map[tinycloud.Hash]bool{}
	for len(todo) > 0 && len(out) < judge.MaxChain {
		t := todo[0]
		todo, out = todo[1:], append(out, t.Bytes)
		for _, p := range t.Proofs {
			parent, err := s.token(ctx, s.read, p)
			if err != nil {
				return nil, err
			}
			if parent != nil && !seen[p] {
				seen[p] = true
				todo = append(todo, parent)
			}
		}
	}
	return out, nil
}

// hostDelegation returns the host delegation to a key that lasts longest, nil when none is in force.
func (s *Store) hostDelegation(ctx context.Context, id tinycloud.SpaceID, host HostKey) (best *Token, err error) {
	var ids []tinycloud.Hash
	err = eachRow(ctx, s.read, func(scan func(...any) error) error {
		var b []byte
		err := scan(&b)
		if err == nil {
			ids = append(ids, tinycloud.Hash(b))
		}
		return err
	}, "SELECT id FROM mentions WHERE space = ?", id.String())
	now := s.o.Now()
	for _, h := range ids {
		t, err := s.token(ctx, s.read, h)
		if err != nil {
			return nil, err
		}
		key, ok := judge.HostOf(t.Audience)
		if !ok || key != host || !t.HostsSpace(id) || !t.ValidAt(now, 0) || s.isRevoked(h) {
			continue
		}
		if best == nil || t.Expires.IsZero() || (!best.Expires.IsZero() && t.Expires.After(best.Expires)) {
			best = t
		}
	}
	return best, err
}

// maxHostChain bounds the tokens a peer may prove itself with.
const maxHostChain = 16

// VerifyHost checks that a chain of tokens, leaf first, makes a key a host of a Space now. It needs
// nothing but the Space's id and the revocations known here. It returns when that ends, zero for never.
func (s *Store) VerifyHost(_ context.Context, id tinycloud.SpaceID, host HostKey, tokens [][]byte) (time.Time, error) {
	if len(tokens) == 0 || len(tokens) > maxHostChain {
		return time.Time{}, fmt.Errorf("host chain of %d tokens: %w", len(tokens), tinycloud.ErrInvalid)
	}
	facts, now := judge.NewFacts(id), s.o.Now()
	var leaf *Token
	for i, b := range tokens {
		t, err := judge.Decode(b, false)
		if err != nil {
			return time.Time{}, err
		}
		if err := t.VerifySignature(); err != nil {
			return time.Time{}, err
		}
		if !t.ValidAt(now, 0) || s.isRevoked(t.ID) {
			return time.Time{}, fmt.Errorf("host chain: %s is not in force: %w", t.ID.EventID(), tinycloud.ErrUnauthorized)
		}
		if i == 0 {
			leaf = t
		}
		facts.Add(t, judge.Place{Spot: judge.Spot{Branch: 1}})
	}
	if key, ok := judge.HostOf(leaf.Audience); !ok || key != host || !leaf.HostsSpace(id) {
		return time.Time{}, fmt.Errorf("host chain: %s names another host or space: %w", leaf.ID.EventID(), tinycloud.ErrUnauthorized)
	}
	_, err := facts.Host(host, now, judge.Here{Past: judge.Clock{1: 0}})
	return leaf.Expires, err
}
