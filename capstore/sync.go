package capstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// Tips returns the tips of all logs of a Space, sorted by host, number and digest. Equal tips mean
// equal histories.
func (s *Store) Tips(ctx context.Context, id tinycloud.SpaceID) ([]hostlog.Tip, error) {
	sid, err := s.sid(ctx, id)
	if err != nil {
		return nil, err
	}
	var tips []hostlog.Tip
	err = s.db.Read.Each(ctx, func(scan db.Scan) error {
		var host, digest []byte
		var t hostlog.Tip
		if err := scan(&host, &t.N, &digest); err != nil {
			return err
		}
		t.Host, t.Digest = hostlog.Key(host), tinycloud.Hash(digest)
		tips = append(tips, t)
		return nil
	}, "SELECT host, n, digest FROM logs WHERE sid = ?", sid)
	sortTips(tips)
	return tips, err
}

// Missing calls yield with the entries of a Space that a peer with the given tips lacks, all logs
// merged so that parents come first. Values of up to maxValue bytes that are current come along. Tips that
// are not known here are ignored: the peer names what it has with [Store.Have].
func (s *Store) Missing(ctx context.Context, id tinycloud.SpaceID, have []hostlog.Tip, maxValue int, yield func(hostlog.Bundle) error) error {
	sid, err := s.sid(ctx, id)
	if err != nil {
		return err
	}
	from, rows, err := s.lacking(ctx, sid, have)
	if err != nil || len(from) == 0 {
		return err
	}
	return s.missing(ctx, id, sid, rows, from, maxValue, yield)
}

// missing calls yield with the entries of branches from the given numbers on.
func (s *Store) missing(ctx context.Context, id tinycloud.SpaceID, sid int64, rows []logRow, from map[int]uint64, maxValue int, yield func(hostlog.Bundle) error) error {
	r := &reader{s: s, space: id, sid: sid, hosts: make([]hostlog.Key, len(rows)), maxValue: maxValue}
	some := false
	for i, row := range rows {
		r.hosts[i] = row.host
		_, ok := from[i]
		some = some || ok
	}
	if !some {
		return nil
	}
	if err := r.imports(ctx, yield, from); err != nil {
		return err
	}
	// What comes while we read is for another time: its parents may lie behind us.
	if len(from) <= maxBranchesAsked {
		return r.merged(ctx, yield, rows, from)
	}
	return r.sorted(ctx, yield, func(branch int, n uint64) bool {
		first, ok := from[branch]
		return ok && n >= first && n <= rows[branch].n
	})
}

// maxBranchesAsked bounds the branches that are read one by one. Of a log that was forked more often, and of all others
// then, the whole history is read and what is not wanted left out.
const maxBranchesAsked = 128

// logRow is a branch of a log.
type logRow struct {
	host   hostlog.Key
	base   *int64
	baseN  *int64
	n      uint64 // of its tip
	digest tinycloud.Hash
}

// holds reports whether an entry of a number belongs to the branch, and not to what it forked from.
func (r *logRow) holds(n uint64) bool { return n <= r.n && (r.base == nil || n > uint64(*r.baseN)) }

// logRows returns the branches of all logs by their number.
func (s *Store) logRows(ctx context.Context, sid int64) (rows []logRow, err error) {
	err = s.db.Read.Each(ctx, func(scan db.Scan) error {
		var r logRow
		var host, digest []byte
		err := scan(&host, &r.base, &r.baseN, &r.n, &digest)
		if err == nil {
			r.host, r.digest = hostlog.Key(host), tinycloud.Hash(digest)
			rows = append(rows, r)
		}
		return err
	}, "SELECT host, base, base_n, n, digest FROM logs WHERE sid = ? ORDER BY branch", sid)
	return rows, err
}

// finder finds entries by host, number and digest. A lying host may have forked its log thousands of times: what is a
// tip needs no query, and what the branches of a host have at one number is read once.
type finder struct {
	s    *Store
	sid  int64
	rows []logRow
	logs map[hostlog.Key][]int // branches
	tips map[hostlog.Tip]int   // likewise
	read map[numbered]map[tinycloud.Hash]int
}

type numbered struct {
	host hostlog.Key
	n    uint64
}

func (s *Store) finder(sid int64, rows []logRow) *finder {
	f := &finder{
		s: s, sid: sid, rows: rows,
		logs: map[hostlog.Key][]int{}, tips: make(map[hostlog.Tip]int, len(rows)), read: map[numbered]map[tinycloud.Hash]int{},
	}
	for i, r := range rows {
		f.logs[r.host] = append(f.logs[r.host], i)
		f.tips[hostlog.Tip{Host: r.host, N: r.n, Digest: r.digest}] = i
	}
	return f
}

// find returns the branch that an entry belongs to; ok is false when it is not stored.
func (f *finder) find(ctx context.Context, t hostlog.Tip) (branch int, ok bool, err error) {
	if branch, ok = f.tips[t]; ok {
		return branch, true, nil
	}
	at := numbered{t.Host, t.N}
	there, ok := f.read[at]
	if !ok {
		there = map[tinycloud.Hash]int{}
		for _, i := range f.logs[t.Host] {
			if !f.rows[i].holds(t.N) {
				continue
			}
			digest, ok, err := f.s.digest(ctx, f.sid, i, t.N)
			if err != nil {
				return 0, false, err
			}
			if ok {
				there[digest] = i
			}
		}
		f.read[at] = there
	}
	branch, ok = there[t.Digest]
	return branch, ok, nil
}

// lacking returns per branch the first entry number that a peer lacks, and all branches.
func (s *Store) lacking(ctx context.Context, sid int64, have []hostlog.Tip) (map[int]uint64, []logRow, error) {
	rows, err := s.logRows(ctx, sid)
	if err != nil {
		return nil, nil, err
	}
	f := s.finder(sid, rows)
	from := map[int]uint64{}
	for i, r := range rows {
		if r.base != nil {
			from[i] = uint64(*r.baseN) + 1
		} else {
			from[i] = 0
		}
	}
	for _, tip := range have {
		i, ok, err := f.find(ctx, tip)
		if err != nil {
			return nil, nil, err
		}
		if !ok {
			continue
		}
		// It holds what the branch forked from too, up to the fork.
		for b, n := i, tip.N; from[b] <= n; {
			from[b] = n + 1
			if rows[b].base == nil {
				break
			}
			b, n = int(*rows[b].base), uint64(*rows[b].baseN)
		}
	}
	for i, r := range rows {
		if from[i] > r.n {
			delete(from, i)
		}
	}
	return from, rows, nil
}

// Knows reports whether all of some epochs are stored here.
func (s *Store) Knows(ctx context.Context, id tinycloud.SpaceID, epochs []tinycloud.Hash) (bool, error) {
	if len(epochs) == 0 {
		return true, nil
	}
	sp, err := s.loaded(ctx, id)
	if err != nil {
		return false, err
	}
	for _, e := range epochs {
		sp.mu.RLock()
		n := sp.held(e)
		sp.mu.RUnlock()
		if n != nil {
			continue
		}
		var one int
		if known, err := s.db.Read.One(ctx, []any{&one}, "SELECT 1 FROM epochs WHERE sid = ? AND id = ?", sp.sid, e[:]); err != nil || !known {
			return false, err
		}
	}
	return true, nil
}

// Have returns what to tell a peer whose tips are theirs, so that it sends what is missing here: each of
// them that is stored here and, for a log with one that is not, our own tips of that log and entries
// before them at growing distances, so that a fork costs no more than a part of what follows it. early says that one
// of theirs is parked here: what builds on it may not fit yet.
func (s *Store) Have(ctx context.Context, id tinycloud.SpaceID, theirs []hostlog.Tip) (out []hostlog.Tip, early bool, err error) {
	sid, err := s.sid(ctx, id)
	if err != nil {
		return nil, false, err
	}
	rows, err := s.logRows(ctx, sid)
	if err != nil {
		return nil, false, err
	}
	f := s.finder(sid, rows)
	told := map[hostlog.Key]bool{}
	for _, tip := range theirs {
		_, known, err := f.find(ctx, tip)
		if err != nil {
			return nil, false, err
		}
		if !known {
			var one int
			if known, err = s.db.Read.One(ctx, []any{&one}, "SELECT 1 FROM parked WHERE sid = ? AND host = ? AND n = ? AND digest = ? AND bytes IS NOT NULL", sid, tip.Host[:], int64(tip.N), tip.Digest[:]); err != nil {
				return nil, false, err
			}
			early = early || known
		}
		if known {
			out = append(out, tip)
			continue
		}
		if told[tip.Host] {
			continue
		}
		told[tip.Host] = true
		for _, i := range f.logs[tip.Host] {
			if out, err = s.ladder(ctx, sid, i, tip.Host, rows[i].n, out); err != nil {
				return nil, false, err
			}
		}
	}
	return out, early, nil
}

// ladder appends entries of a branch from its tip down, at distances that double.
func (s *Store) ladder(ctx context.Context, sid int64, branch int, host hostlog.Key, n uint64, out []hostlog.Tip) ([]hostlog.Tip, error) {
	for step := uint64(1); ; step *= 2 {
		digest, ok, err := s.digest(ctx, sid, branch, n)
		if err != nil || !ok {
			return out, err
		}
		out = append(out, hostlog.Tip{Host: host, N: n, Digest: digest})
		if n < step {
			return out, nil
		}
		n -= step
	}
}

func (s *Store) digest(ctx context.Context, sid int64, branch int, n uint64) (tinycloud.Hash, bool, error) {
	if n > 1<<62 {
		return tinycloud.Hash{}, false, nil
	}
	var digest []byte
	ok, err := s.db.Read.One(ctx, []any{&digest}, "SELECT digest FROM entries WHERE sid = ? AND branch = ? AND n = ?", sid, branch, int64(n))
	if err != nil || !ok {
		return tinycloud.Hash{}, false, err
	}
	return tinycloud.Hash(digest), true, nil
}

// HostChain returns the tokens that make this node a host of a Space: its host delegation and those
// it rests on, leaf first. The error is of class [tinycloud.ErrNotFound] when there is none in force.
func (s *Store) HostChain(ctx context.Context, id tinycloud.SpaceID) ([][]byte, error) {
	if err := s.fresh(ctx); err != nil {
		return nil, err
	}
	host := newSpace(s, 0, id, "").host
	best, err := s.hostDelegation(ctx, id, host, issuedLater)
	if err != nil {
		return nil, err
	}
	if best == nil {
		return nil, fmt.Errorf("no host delegation to %s in force: %w", host, tinycloud.ErrNotFound)
	}
	return s.restsOn(ctx, best)
}

// restsOn returns a token and those it rests on, as far as they are stored, and no more than another host takes.
func (s *Store) restsOn(ctx context.Context, leaf *Token) (out [][]byte, err error) {
	todo, seen := []*Token{leaf}, map[tinycloud.Hash]bool{}
	for len(todo) > 0 && len(out) < hostlog.MaxChain {
		t := todo[0]
		todo, out = todo[1:], append(out, t.Bytes)
		for _, p := range t.Proofs {
			parent, err := s.token(ctx, s.db.Read, p)
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

// issuedLater prefers the newest delegation as a proof: others may know that an older one is revoked while
// this host, which they refuse, can't hear of it.
func issuedLater(t, than *Token) bool {
	if t.IssuedAt.Equal(than.IssuedAt) {
		return lastsLonger(t, than)
	}
	return t.IssuedAt.After(than.IssuedAt)
}

func lastsLonger(t, than *Token) bool {
	return t.Expires.IsZero() || (!than.Expires.IsZero() && t.Expires.After(than.Expires))
}

// hostDelegation returns the best host delegation to a key, nil when none is in force.
func (s *Store) hostDelegation(ctx context.Context, id tinycloud.SpaceID, host hostlog.Key, better func(t, than *Token) bool) (best *Token, err error) {
	ids, err := hashes(ctx, s.db.Read, "SELECT id FROM mentions WHERE space = ?", id.String())
	now := s.o.Now()
	for _, h := range ids {
		t, err := s.token(ctx, s.db.Read, h)
		if err != nil {
			return nil, err
		}
		key, ok := hostlog.KeyOf(t.Audience)
		if !ok || key != host || !t.HostsSpace(id) || !t.ValidAt(now, 0) || s.isRevoked(h) {
			continue
		}
		if best != nil && !better(t, best) {
			continue
		}
		tokens, err := s.restsOn(ctx, t)
		if err != nil {
			return nil, err
		}
		// Histories also hold what somebody signed who had no right to.
		if _, err := s.verifyChain(id, host, tokens); err == nil {
			best = t
		}
	}
	return best, err
}

// VerifyHost checks that a chain of tokens, leaf first, makes a key a host of a Space now. It needs
// nothing but the Space's id and the revocations known here. It returns when that ends, zero for never. A host
// whose chain is no longer in force is one if another delegation to its key, known here, is: it was let in again, or
// renewed, while it could not hear of that, or lost it with its disk.
func (s *Store) VerifyHost(ctx context.Context, id tinycloud.SpaceID, host hostlog.Key, tokens [][]byte) (time.Time, error) {
	if err := s.fresh(ctx); err != nil {
		return time.Time{}, err
	}
	until, err := s.verifyChain(id, host, tokens)
	if !errors.Is(err, errNotInForce) {
		return until, err
	}
	later, lookErr := s.hostDelegation(ctx, id, host, lastsLonger)
	if later == nil || lookErr != nil {
		return time.Time{}, errors.Join(err, lookErr)
	}
	return later.Expires, nil
}

var errNotInForce = fmt.Errorf("not in force: %w", tinycloud.ErrUnauthorized)

func (s *Store) verifyChain(id tinycloud.SpaceID, host hostlog.Key, tokens [][]byte) (time.Time, error) {
	if len(tokens) == 0 || len(tokens) > hostlog.MaxChain {
		return time.Time{}, fmt.Errorf("host chain of %d tokens: %w", len(tokens), tinycloud.ErrInvalid)
	}
	facts, now := judge.NewFacts(id), s.o.Now()
	var leaf, over *Token
	for i, b := range tokens {
		t, err := token.Decode(b, false)
		if err != nil {
			return time.Time{}, err
		}
		if err := t.VerifySignature(); err != nil {
			return time.Time{}, err
		}
		if !t.ValidAt(now, 0) || s.isRevoked(t.ID) {
			over = t
		}
		if i == 0 {
			leaf = t
		}
		facts.Add(t, judge.Place{Spot: judge.Spot{Branch: 1}})
	}
	if key, ok := hostlog.KeyOf(leaf.Audience); !ok || key != host || !leaf.HostsSpace(id) {
		return time.Time{}, fmt.Errorf("host chain: %s names another host or space: %w", leaf.ID.EventID(), tinycloud.ErrUnauthorized)
	}
	if over != nil {
		return time.Time{}, fmt.Errorf("host chain: %s is %w", over.ID.EventID(), errNotInForce)
	}
	_, err := facts.Host(host, now, judge.Here{Past: judge.Clock{1: 0}})
	return leaf.Expires, err
}
