package capstore

import (
	"crypto/ed25519"
	"encoding/binary"
	"slices"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// Position is the place of an event in a Space's total order.
type Position = service.Position

// node is what the rules need of a stored epoch.
type node struct {
	eid   int64
	id    tinycloud.Hash
	seq   uint64
	t     int64 // F: greatest of the parents' and the least time of an entry; unix milliseconds
	age   judge.Age
	valid bool
	past  judge.Clock
	spots []judge.Spot // of its entries
}

// before reports whether n is a proper ancestor of what has the given past.
func (n *node) before(past judge.Clock) bool {
	return slices.ContainsFunc(n.spots, past.Has)
}

// branch is one unforked run of a host's log.
type branch struct {
	host   hostlog.Key
	base   int // branch it forked from, -1 for none
	baseN  uint64
	n      uint64 // of the tip
	digest tinycloud.Hash
	at     int64
	tip    *node // nil: an import entry
	dirty  bool
}

// space is a loaded Space. The writer changes it under mu; others read facts under mu.
type space struct {
	sid     int64
	id      tinycloud.SpaceID
	host    hostlog.Key
	key     ed25519.PrivateKey
	state   string
	opens   int64 // when joining ends by time, see [Store.openDue]; 0: never
	removed removal
	used    int64 // when a transaction used it last, see [Store.uses]; of the writer alone
	counted int   // bytes of it in [Store.loadedBytes]
	was     shape // as the other processes know it; of the writer alone

	mu sync.RWMutex
	record
	verdicts
	minting
	folds
}

// record is what is stored of a Space's history, whoever judges it.
type record struct {
	branches []*branch
	heads    []*node
	chains   []*chainOf
	imports  map[tinycloud.Hash]int64 // times of the import entries, by digest
	nodes    *lru.Cache[tinycloud.Hash, *node]
	epochs   int64
	events   int64
	history  int64 // bytes, see [weigh]
	ops      int64 // of these bytes operations of services other than key-value
	parked   parking
}

// verdicts are the facts that the history is judged by, and what has to be judged again before the transaction ends.
type verdicts struct {
	facts  *judge.Facts
	todo   todo
	closed bool // the history is being judged anew, see review.go
}

// todo is what of a Space has to be judged again.
type todo struct {
	all      bool               // everything
	unsure   bool               // everything at its first news: it was loaded, and what its void events wait for is not known
	removals bool               // what survives the removals of hosts
	epochs   map[int64]struct{} // these, by their rows
	cuts     []lateCut
	times    bool // those of epochs may have changed, see dating.go
}

// minting is what this node's next epoch builds on.
type minting struct {
	next    *next
	placed  map[tinycloud.Hash]bool // delegations in its past
	forking bool                    // events that are left behind are being minted
	limit   int64                   // time up to which own entries are due, 0 when all are
}

// folds is what the folding of operations has in mind.
type folds struct {
	dropped map[tinycloud.Hash]struct{} // while subjects are folded: values to be freed, unless another holds them
	folding bool                        // anew: a value that nothing holds now may be held again in a moment
	others  bool                        // hosts are known, once it is asked for, see [space.shared]
	pending int64                       // operations that are
	memory  map[string]any              // of services, see [service.Tx]
}

// States of a Space on this node.
const (
	StateHosted  = "hosted"  // no other host was ever asked for
	StateJoining = "joining" // waits for the history of the others
	StateSynced  = "synced"
	// stateRestored is joining for a host that was there before: it signs nothing until it has its own
	// later entries back.
	stateRestored = "restored"
)

// waits reports whether a Space waits for the history of its other hosts.
func (sp *space) waits() bool { return sp.state == StateJoining || sp.state == stateRestored }

func newSpace(s *Store, sid int64, id tinycloud.SpaceID, state string) *space {
	sp := &space{sid: sid, id: id, key: s.o.Keys.SpaceKey(id), state: state}
	sp.imports, sp.facts, sp.placed = map[tinycloud.Hash]int64{}, judge.NewFacts(id), map[tinycloud.Hash]bool{}
	sp.todo.epochs, sp.memory = map[int64]struct{}{}, map[string]any{}
	sp.host = hostlog.Key(sp.key.Public().(ed25519.PublicKey))
	sp.nodes, _ = lru.New[tinycloud.Hash, *node](rememberedNodes)
	return sp
}

func (s *Store) importedID(id tinycloud.SpaceID) int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.imported[id]
}

// node returns a stored epoch of the Space, nil when unknown.
func (t *tx) node(sp *space, id tinycloud.Hash) (*node, error) {
	if n := sp.held(id); n != nil {
		return n, nil
	}
	return t.nodeBy(sp, "sid = ? AND id = ?", sp.sid, id[:])
}

// held returns an epoch that is in memory. There is one object per epoch, so that all see its changes.
func (sp *space) held(id tinycloud.Hash) *node {
	for _, h := range sp.heads {
		if h.id == id {
			return h
		}
	}
	for _, b := range sp.branches {
		if b.tip != nil && b.tip.id == id {
			return b.tip
		}
	}
	for _, c := range sp.chains {
		if c.tip != nil && c.tip.id == id {
			return c.tip
		}
	}
	n, _ := sp.nodes.Get(id)
	return n
}

// nodeColumns are what [scanNode] scans.
const nodeColumns = "eid, id, seq, t, written, begin_of, valid, clock"

// scanNode reads an epoch without its spots.
func scanNode(scan db.Scan) (*node, error) {
	n := &node{}
	var id, clock, begin []byte
	var written int64
	if err := scan(&n.eid, &id, &n.seq, &n.t, &written, &begin, &n.valid, &clock); err != nil {
		return n, err
	}
	n.id, n.past, n.age = tinycloud.Hash(id), decodeClock(clock), judge.DecodeAge(written, begin)
	return n, nil
}

// nodeBy returns the stored epoch that a condition names, nil when there is none.
func (t *tx) nodeBy(sp *space, where string, args ...any) (n *node, err error) {
	err = t.each(func(scan db.Scan) error {
		n, err = scanNode(scan)
		return err
	}, "SELECT "+nodeColumns+" FROM epochs WHERE "+where, args...)
	if err != nil || n == nil {
		return nil, err
	}
	if have := sp.held(n.id); have != nil {
		return have, nil
	}
	err = t.each(func(scan db.Scan) error {
		var s judge.Spot
		err := scan(&s.Branch, &s.N)
		n.spots = append(n.spots, s)
		return err
	}, "SELECT branch, n FROM entries WHERE eid = ? ORDER BY ord", n.eid)
	if err != nil {
		return nil, err
	}
	sp.nodes.Add(n.id, n)
	return n, nil
}

func encodeClock(c judge.Clock) []byte {
	branches := make([]uint32, 0, len(c))
	for b := range c {
		branches = append(branches, b)
	}
	slices.Sort(branches)
	out := []byte{}
	for _, b := range branches {
		out = binary.AppendUvarint(binary.AppendUvarint(out, uint64(b)), c[b])
	}
	return out
}

func decodeClock(b []byte) judge.Clock {
	c := judge.Clock{}
	for len(b) > 0 {
		br, n := binary.Uvarint(b)
		if n <= 0 {
			return c
		}
		v, m := binary.Uvarint(b[n:])
		if m <= 0 { // only damage brings it here; Verify tells
			return c
		}
		c[uint32(br)], b = v, b[n+m:]
	}
	return c
}

// flush writes the changed heads and tips of the transaction's Spaces.
func (t *tx) flush() error {
	for _, sp := range t.order {
		if err := t.revise(sp); err != nil {
			return err
		}
	}
	if err := t.departAll(); err != nil {
		return err
	}
	for _, sp := range t.order {
		t.noteRemoval(sp)
		if err := t.flushLogs(sp); err != nil {
			return err
		}
		if err := t.flushChains(sp); err != nil {
			return err
		}
	}
	if err := t.flushSpaces(t.order); err != nil { // behind the others, so that these are put together
		return err
	}
	for sp := range t.weights {
		if err := t.addUp(sp); err != nil {
			return err
		}
	}
	return t.tell()
}

// updateSpace is the row of a Space as a transaction leaves it.
var updateSpace = db.Update{Table: "spaces", Set: "state opens heads epochs events history ops rules removed", Add: "bytes past", Key: "sid"}

// flushSpaces writes the rows of Spaces.
func (t *tx) flushSpaces(all []*space) error {
	rows := make([][]any, len(all))
	for i, sp := range all {
		rows[i] = t.rowOf(sp)
	}
	for len(rows) > 0 {
		text, args, n := updateSpace.Of(t.s.db.Dialect, rows)
		if err := t.exec(text, args...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// rowOf are the arguments of an update of a Space's row. What its values weigh more is added once.
func (t *tx) rowOf(sp *space) []any {
	heads := db.RowIDs{}
	for _, h := range sp.heads {
		heads = append(heads, h.eid)
	}
	add := t.weights[sp]
	delete(t.weights, sp)
	return []any{sp.state, sp.opens, heads, sp.epochs, sp.events, sp.history, sp.ops, sp.rules(), int(sp.removed), add.bytes, add.past, sp.sid}
}

// flushLogs writes the rows of the logs that changed.
func (t *tx) flushLogs(sp *space) error {
	for i, b := range sp.branches {
		if !b.dirty {
			continue
		}
		var base, baseN any
		if b.base >= 0 {
			base, baseN = b.base, b.baseN
		}
		err := t.add(db.Insert{Into: "logs", Columns: "sid branch host base base_n n digest at eid", Key: "sid branch", Replace: true},
			sp.sid, i, b.host[:], base, baseN, b.n, b.digest[:], b.at, b.tipID())
		if err != nil {
			return err
		}
		b.dirty = false
	}
	return nil
}
