package capstore

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/fxamacker/cbor/v2"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

// What most transactions do to a loaded Space is little: this host's log goes on, by epochs of valid invocations that follow
// all there was. Then the row of commits says where the Space stands now, and other processes that have it loaded go there
// too, without asking. After any other transaction they load it again.

// maxAdvance is how many bytes an [advance] has at most: a clock may name thousands of branches.
const maxAdvance = 4 << 10

// advance is where a Space stands after a transaction, in what [shape] does not tell. It is stored: fields keep their
// numbers.
type advance struct {
	Branch int    `cbor:"1,keyasint"` // of this host's log that goes on, and its last entry
	N      uint64 `cbor:"2,keyasint"`
	Digest []byte `cbor:"3,keyasint"`
	At     int64  `cbor:"4,keyasint"`

	Row     int64  `cbor:"5,keyasint"` // of that entry's epoch, the only head
	ID      []byte `cbor:"6,keyasint"`
	Seq     uint64 `cbor:"7,keyasint"`
	T       int64  `cbor:"8,keyasint"`
	Written int64  `cbor:"9,keyasint"`
	Begin   []byte `cbor:"10,keyasint"`
	Clock   []byte `cbor:"11,keyasint"`

	Epochs  int64 `cbor:"12,keyasint"`
	Events  int64 `cbor:"13,keyasint"`
	History int64 `cbor:"14,keyasint"`
	Ops     int64 `cbor:"15,keyasint"`

	Forget []string `cbor:"16,keyasint,omitempty"` // services whose memory is another

	// Last stands for Digest, which is empty, where Row is not told: it is that of the last change. Processes of releases that
	// do not know it load the Space again.
	Last []byte `cbor:"17,keyasint,omitempty"`
}

// step is what a transaction did to a loaded Space.
type step struct {
	deep   bool     // more than an [advance] tells
	forget []string // services whose memory changed
}

// deepen has the other processes load the Space again.
func (t *tx) deepen(sp *space) { t.touch(sp).step.deep = true }

// outdate has the other processes forget what a service remembers of the Space.
func (t *tx) outdate(sp *space, service string) {
	if c := t.touch(sp); !slices.Contains(c.step.forget, service) {
		c.step.forget = append(c.step.forget, service)
	}
}

// shape is what of a loaded Space no [advance] changes.
type shape struct {
	state                     string
	opens                     int64
	removed                   removal
	branches, chains, imports int
	facts, removals           int
	parked                    parking
	pending                   int64
	closed                    bool
}

func (sp *space) shape() shape {
	return shape{
		state: sp.state, opens: sp.opens, removed: sp.removed, branches: len(sp.branches), chains: len(sp.chains), imports: len(sp.imports),
		facts: sp.facts.Size(), removals: len(sp.facts.Removals()), parked: sp.parked, pending: sp.pending, closed: sp.closed,
	}
}

// advance tells where a Space stands at the end of the transaction, nil if that takes more.
func (t *tx) advance(sp *space, c *Commit) []byte {
	was := sp.was
	sp.was = sp.shape()
	own := sp.own()
	switch {
	case c.step.deep, sp.was != was, c.Created, c.Joins, c.Opened, c.Remote+c.Parked+len(c.Revoked) > 0:
		return nil
	case sp.closed, sp.limit != 0, sp.todo.all, own == nil, own.tip == nil, len(sp.heads) != 1, sp.heads[0] != own.tip:
		return nil
	}
	n := own.tip
	a := advance{
		Branch: slices.Index(sp.branches, own), N: own.n, Digest: own.digest[:], At: own.at,
		Row: n.eid, ID: n.id[:], Seq: n.seq, T: n.t, Written: n.age.Time, Begin: n.age.Encode(), Clock: encodeClock(n.past),
		Epochs: sp.epochs, Events: sp.events, History: sp.history, Ops: sp.ops, Forget: c.step.forget,
	}
	if n.eid >= db.FirstGiven {
		if c.LastWrite.Epoch != n.eid || c.LastWrite.Late != 0 {
			return nil
		}
		a.Row, a.Digest, a.Last = 0, nil, a.Digest
	}
	b, err := cbor.Marshal(a)
	if err != nil || len(b) > maxAdvance {
		return nil
	}
	return b
}

// follow has a loaded Space go where another process's transaction brought it. It reports whether that could be done.
func (sp *space) follow(row commit) bool {
	if len(row.advance) == 0 || row.flags != 0 {
		return false
	}
	var a advance
	err := cbor.Unmarshal(row.advance, &a)
	if len(a.Digest) == 0 {
		a.Digest, a.Row = a.Last, row.last.Epoch
	}
	if err != nil || len(a.Digest) != 32 || len(a.ID) != 32 {
		return false
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.closed || sp.todo.all || a.Branch < 0 || a.Branch >= len(sp.branches) {
		return false
	}
	b := sp.branches[a.Branch]
	known := b.n == a.N && bytes.Equal(b.digest[:], a.Digest) // the transaction was of this process, or wrote no entry
	switch {
	case b.host != sp.host, b.dirty, b.tip == nil:
		return false
	case known && b.tip.eid != a.Row:
		return false
	case !known && (row.entries == 0 || uint64(row.first) != b.n+1 || uint64(row.first+row.entries-1) != a.N):
		return false
	}
	if !known {
		sp.goOn(b, a)
	}
	sp.heads, sp.next, sp.limit = []*node{b.tip}, nil, 0
	sp.epochs, sp.events, sp.history, sp.ops = a.Epochs, a.Events, a.History, a.Ops
	sp.todo.unsure = true // as if it were loaded now
	for _, name := range a.Forget {
		delete(sp.memory, name)
	}
	return true
}

// goOn makes the last entry that another process wrote the tip of this host's log.
func (sp *space) goOn(b *branch, a advance) {
	id := tinycloud.Hash(a.ID)
	n := sp.held(id)
	if n == nil {
		n = &node{
			eid: a.Row, id: id, seq: a.Seq, t: a.T, age: judge.DecodeAge(a.Written, a.Begin), valid: true, past: decodeClock(a.Clock),
			spots: []judge.Spot{{Branch: uint32(a.Branch), N: a.N}},
		}
		sp.nodes.Add(id, n)
	}
	if b.tip != n { // else Spaces that others write to, and nobody here, would grow uncounted
		sp.nodes.Remove(b.tip.id)
	}
	b.n, b.digest, b.at, b.tip = a.N, tinycloud.Hash(a.Digest), a.At, n
}

// doubtSpace compares a loaded Space with what is stored: tests do so.
func (t *tx) doubtSpace(sp *space) error {
	if !t.s.doubts || t.doubting || t.dirty[sp] != nil || len(sp.facts.Removals()) > 0 {
		return nil
	}
	t.doubting = true
	defer func() { t.doubting = false }()
	stored, err := t.loadSpace(sp.id, sp.sid)
	if err != nil {
		return err
	}
	if a, b := sp.describe(), stored.describe(); a != b {
		return fmt.Errorf("space %d is loaded as\n%s\nand stored as\n%s", sp.sid, a, b)
	}
	return nil
}

// describe is what has to be the same of a Space wherever it is loaded.
func (sp *space) describe() string {
	out := fmt.Sprintf("%+v %d %d %d %d", sp.shape(), sp.epochs, sp.events, sp.history, sp.ops)
	of := func(n *node) string {
		if n == nil {
			return "-"
		}
		return fmt.Sprint(n.eid, n.id, n.seq, n.t, n.age, n.valid, n.past, n.spots)
	}
	for _, b := range sp.branches {
		out += fmt.Sprint("\nbranch ", b.host, b.base, b.baseN, b.n, b.digest, b.at, of(b.tip))
	}
	for _, h := range sp.heads {
		out += "\nhead " + of(h)
	}
	return out
}
