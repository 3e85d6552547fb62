package capstore

import (
	"encoding/binary"
	"fmt"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/parallel"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// A Space is loaded in two questions: for its rows, and for the epochs that these name. A server is asked both for several
// Spaces at once.

// loadAtOnce is how many Spaces are loaded together. Each may have [factsAtOnce] delegations in memory meanwhile.
const loadAtOnce = 16

// loading is a Space that is being loaded.
type loading struct {
	sp             *space
	heads          []byte
	rules, removed int
	tips, ends     []int64 // epochs of the branches and of the chains, by their rows; 0: an import entry
	facts          []factRow
	nodes          map[int64]*node // these epochs, and the heads
}

func (t *tx) newLoading(id tinycloud.SpaceID, sid int64) *loading {
	return &loading{sp: newSpace(t.s, sid, id, ""), nodes: map[int64]*node{}}
}

// space returns a hosted Space, loading it if need be.
func (t *tx) space(id tinycloud.SpaceID) (*space, error) {
	t.s.mu.RLock()
	sp, sid := t.s.spaces[id], t.s.ids[id]
	t.s.mu.RUnlock()
	if sid == 0 {
		return nil, errNoSpace()
	}
	if sp != nil {
		t.use(sp)
		return sp, t.doubtSpace(sp)
	}
	return t.loadSpace(id, sid)
}

func (t *tx) loadSpace(id tinycloud.SpaceID, sid int64) (*space, error) {
	l := t.newLoading(id, sid)
	if err := t.load([]*loading{l}); err != nil {
		return nil, err
	}
	return l.sp, t.loaded(l)
}

// loadFor loads the Spaces that jobs are about to write to, so that a server is not asked for one after another.
func (t *tx) loadFor(jobs []*job) error {
	if !t.s.db.Shared {
		return nil
	}
	var all []*loading
	t.s.mu.RLock()
	seen := map[tinycloud.SpaceID]bool{}
	for _, j := range jobs {
		for _, id := range j.spaces {
			if sid := t.s.ids[id]; sid != 0 && t.s.spaces[id] == nil && !seen[id] {
				all = append(all, t.newLoading(id, sid))
			}
			seen[id] = true
		}
	}
	t.s.mu.RUnlock()
	for some := range slices.Chunk(all, loadAtOnce) {
		if err := t.load(some); err != nil {
			return err
		}
		for _, l := range some {
			if err := t.loaded(l); t.failed {
				return err
			} // else its own job is told, when it loads it again
		}
	}
	return nil
}

// load reads the rows of Spaces.
func (t *tx) load(all []*loading) error {
	var ask []db.Query
	for _, l := range all {
		ask = append(ask, l.asks()...)
	}
	if err := t.ask(ask); err != nil {
		return err
	}
	of := map[int64]*loading{}
	for _, l := range all {
		for _, eid := range slices.Concat(l.tips, l.ends, l.headRows()) {
			if eid != 0 {
				of[eid] = l
			}
		}
	}
	return t.loadNodes(of)
}

// asks are for what is found by the Space's number.
func (l *loading) asks() []db.Query {
	sp := l.sp
	of := []any{sp.sid}
	return []db.Query{
		{Text: "SELECT state, heads, epochs, events, rules, opens, history, ops, removed FROM spaces WHERE sid = ?", Args: of, Row: func(scan db.Scan) error {
			return scan(&sp.state, &l.heads, &sp.epochs, &sp.events, &l.rules, &sp.opens, &sp.history, &sp.ops, &l.removed)
		}},
		{Text: "SELECT host, base, base_n, n, digest, at, eid FROM logs WHERE sid = ? ORDER BY branch", Args: of, Row: l.branch},
		{Text: "SELECT host, n, eid FROM chains WHERE sid = ? ORDER BY chain", Args: of, Row: l.chain},
		{Text: "SELECT count(*) FROM pending WHERE sid = ?", Args: of, Row: func(scan db.Scan) error { return scan(&sp.pending) }},
		{Text: "SELECT count(bytes), coalesce(sum(length(bytes)), 0), count(*) - count(bytes) FROM parked WHERE sid = ?", Args: of, Row: func(scan db.Scan) error {
			return scan(&sp.parked.entries, &sp.parked.bytes, &sp.parked.noted)
		}},
		askFacts(&l.facts, sp, factRow{}),
	}
}

func (l *loading) branch(scan db.Scan) error {
	b := &branch{base: -1}
	var host, digest []byte
	var base, baseN *int64
	var eid int64
	if err := scan(&host, &base, &baseN, &b.n, &digest, &b.at, &eid); err != nil {
		return err
	}
	b.host, b.digest = hostlog.Key(host), tinycloud.Hash(digest)
	if base != nil {
		b.base, b.baseN = int(*base), uint64(*baseN)
	}
	l.sp.branches, l.tips = append(l.sp.branches, b), append(l.tips, eid)
	return nil
}

func (l *loading) chain(scan db.Scan) error {
	c := &chainOf{}
	var host []byte
	var eid int64
	if err := scan(&host, &c.n, &eid); err != nil {
		return err
	}
	c.host = hostlog.Key(host)
	l.sp.chains, l.ends = append(l.sp.chains, c), append(l.ends, eid)
	return nil
}

// headRows are the heads by their rows.
func (l *loading) headRows() (eids []int64) {
	for b := l.heads; len(b) >= 8; b = b[8:] {
		eids = append(eids, int64(binary.BigEndian.Uint64(b)))
	}
	return eids
}

// nodesAtOnce is how many epochs are read by one query.
const nodesAtOnce = 256

// loadNodes reads the epochs of Spaces by their rows.
func (t *tx) loadNodes(of map[int64]*loading) error {
	var eids []any
	for eid := range of {
		eids = append(eids, eid)
	}
	nodes := map[int64]*node{}
	var ask []db.Query
	for some := range slices.Chunk(eids, nodesAtOnce) {
		cond, args := in("eid", slices.Clone(some))
		ask = append(ask, db.Query{Text: "SELECT " + nodeColumns + " FROM epochs WHERE " + cond, Args: args, Row: func(scan db.Scan) error {
			n, err := scanNode(scan)
			nodes[n.eid] = n
			return err
		}}, db.Query{Text: "SELECT eid, branch, n FROM entries WHERE " + cond + " ORDER BY eid, ord", Args: args, Row: func(scan db.Scan) error {
			var eid int64
			var s judge.Spot
			err := scan(&eid, &s.Branch, &s.N)
			if n := nodes[eid]; n != nil {
				n.spots = append(n.spots, s)
			}
			return err
		}})
	}
	if len(ask) == 0 {
		return nil
	}
	if err := t.ask(ask); err != nil {
		return err
	}
	for eid, l := range of {
		if n := nodes[eid]; n != nil {
			l.nodes[eid] = n
			l.sp.nodes.Add(n.id, n)
		}
	}
	return nil
}

// loaded makes a Space of what was read, which is known from then on.
func (t *tx) loaded(l *loading) error {
	sp := l.sp
	sp.removed, sp.todo.unsure = removal(l.removed), true
	for i, eid := range l.tips {
		sp.branches[i].tip = l.nodes[eid] // nil: an import entry
	}
	for i, eid := range l.ends {
		sp.chains[i].tip = l.nodes[eid]
	}
	for _, eid := range l.headRows() {
		if l.nodes[eid] == nil {
			return fmt.Errorf("space %d: head %d is lost: %w", sp.sid, eid, tinycloud.ErrUnavailable)
		}
		sp.heads = append(sp.heads, l.nodes[eid])
	}
	if err := t.loadImports(sp); err != nil {
		return err
	}
	if err := t.loadFacts(sp, l.facts); err != nil {
		return err
	}
	if l.rules != judge.Rules && sp.epochs > 0 {
		t.outdated(sp)
	}
	sp.was = sp.shape()
	if t.doubting {
		return nil
	}
	t.s.turns.loads.Add(1)
	t.use(sp)
	t.s.mu.Lock()
	t.s.loads(sp)
	t.s.mu.Unlock()
	return nil
}

// loadFacts takes up the delegations and revocations of a Space, of which the first were read: of each only what verdicts need
// stays.
func (t *tx) loadFacts(sp *space, rows []factRow) error {
	for {
		parallel.Do(len(rows), func(i int) { rows[i].token, rows[i].bad = token.Decode(rows[i].bytes, false) })
		for _, r := range rows {
			if r.bad != nil {
				return fmt.Errorf("event %d/%d: %v: %w", r.eid, r.idx, r.bad, tinycloud.ErrUnavailable)
			}
			sp.facts.Add(r.token, r.place)
		}
		if len(rows) < factsAtOnce {
			break
		}
		q := askFacts(&rows, sp, rows[len(rows)-1])
		rows = nil
		if err := t.each(q.Row, q.Text, q.Args...); err != nil {
			return err
		}
	}
	return t.settleRemovals(sp)
}

// factRow is a stored delegation or revocation.
type factRow struct {
	eid   int64
	idx   int
	bytes []byte
	place judge.Place
	token *Token // once it is decoded
	bad   error
}

const factsAtOnce = 64 // of at most 64 KiB each

// askFacts asks for the next delegations and revocations of a Space.
func askFacts(rows *[]factRow, sp *space, after factRow) db.Query {
	return db.Query{
		Text: `SELECT e.eid, e.idx, e.bytes, p.id, l.branch, l.n FROM events e JOIN epochs p ON p.eid = e.eid JOIN entries l ON l.eid = e.eid AND l.ord = 0
		WHERE e.sid = ? AND e.eid >= ? AND (e.eid > ? OR e.idx > ?) AND e.kind <> 2 AND e.kind <> 0 ORDER BY e.eid, e.idx LIMIT ?`,
		Args: []any{sp.sid, after.eid, after.eid, after.idx, factsAtOnce}, Row: func(scan db.Scan) error {
			var r factRow
			var id []byte
			if err := scan(&r.eid, &r.idx, &r.bytes, &id, &r.place.Spot.Branch, &r.place.Spot.N); err != nil {
				return err
			}
			r.place.Epoch, r.place.Index = tinycloud.Hash(id), r.idx
			*rows = append(*rows, r)
			return nil
		},
	}
}
