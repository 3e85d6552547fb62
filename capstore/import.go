package capstore

import (
	"fmt"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

const (
	maxChains = 4096    // of one host in a Space
	chainBase = 1 << 30 // branch numbers from here on are chains
)

// chainOf is a part of an imported history in which every epoch is an ancestor of the next. Since the
// order within an import is not that of a log, chains take the place of branches in clocks: an ancestor
// among imported epochs is looked up like any other.
type chainOf struct {
	host  hostlog.Key
	n     uint64 // of the tip
	tip   *node
	dirty bool
}

// witness is who makes an epoch valid: the host of an entry, or of the import entry that lists it.
type witness struct {
	host       hostlog.Key
	importedAt int64 // time of the import entry, 0 for none
}

// witness returns whose entry stands in a branch or chain.
func (sp *space) witness(branch uint32, digest tinycloud.Hash) witness {
	if branch < chainBase {
		return witness{host: sp.branches[branch].host}
	}
	return witness{sp.chains[branch-chainBase].host, max(sp.imports[digest], 1)}
}

// vouches says why an entry does not make its epoch valid.
func (sp *space) vouches(w witness, ms int64, n *node) error {
	if w.importedAt != 0 {
		return sp.facts.Importer(w.host, at(w.importedAt), n.spots)
	}
	_, err := sp.facts.Host(w.host, at(ms), judge.Here{Epoch: n.id, Past: n.past, Spots: n.spots})
	return err
}

// ended reports whether removals end all delegations that an entry rests on, whether it survives them or not.
func (sp *space) ended(w witness, ms int64, n *node) bool {
	if !sp.facts.Removed(w.host) {
		return false
	}
	if w.importedAt != 0 {
		return sp.facts.Importer(w.host, at(w.importedAt), nil) != nil
	}
	_, err := sp.facts.Host(w.host, at(ms), judge.Here{Epoch: n.id, Past: n.past})
	return err != nil
}

// able is vouches as if no host had been removed.
func (sp *space) able(w witness, ms int64, n *node) error {
	if w.importedAt != 0 {
		return sp.facts.AbleImporter(w.host, at(w.importedAt))
	}
	return sp.facts.Able(w.host, at(ms), judge.Here{Epoch: n.id, Past: n.past})
}

// ownTips returns the epochs that this node's next one has to follow.
func (sp *space) ownTips() []*node {
	own := sp.own()
	switch {
	case own == nil:
		return nil
	case own.tip != nil:
		return []*node{own.tip}
	}
	var out []*node
	for _, c := range sp.chains {
		if c.host == sp.host && !slices.ContainsFunc(sp.chains, func(d *chainOf) bool { return c.tip.before(d.tip.past) }) {
			out = append(out, c.tip)
		}
	}
	return out
}

func (b *branch) tipID() int64 {
	if b.tip == nil {
		return 0
	}
	return b.tip.eid
}

// number is the entry's number in its branch, or the epoch's in its chain.
func (s slot) number(p *hostlog.Parsed) uint64 {
	if s.chain != nil {
		return s.chain.n + 1
	}
	if p.ImportedAt != 0 {
		return 0
	}
	return p.Entry.N
}

// placeImport adds an import entry with the epochs it lists. They build on imported epochs alone, so that
// import entries can be sent before all others.
func (t *tx) placeImport(sp *space, p *hostlog.Parsed, s slot) error {
	if s.prev != nil {
		return fmt.Errorf("import entry %d of %s after an ordinary one: %w", p.Entry.N, p.Entry.Host, tinycloud.ErrInvalid)
	}
	here := map[tinycloud.Hash]bool{}
	for _, part := range p.Parts {
		for _, parent := range part.DecodedEpoch.Parents {
			if here[parent] {
				continue
			}
			n, err := t.node(sp, parent)
			if err != nil {
				return err
			}
			if n == nil || !n.imported() {
				return errGap
			}
		}
		here[part.Entry.Epoch] = true
	}
	if err := t.roomForChains(sp, p); err != nil {
		return err
	}
	t.touch(sp)
	sp.imports[p.Digest] = p.Entry.At
	for _, part := range p.Parts {
		if err := t.placePart(sp, part); err != nil {
			return err
		}
	}
	sp.mu.Lock()
	sp.advance(p, s, nil)
	sp.next = nil
	sp.mu.Unlock()
	return t.saveImport(sp, p, s)
}

// roomForChains refuses a host whose imports would slow everyone's clocks down. A real history has as many
// chains as its writers raced.
func (t *tx) roomForChains(sp *space, p *hostlog.Parsed) error {
	n := 0
	for _, c := range sp.chains {
		if c.host == p.Entry.Host {
			n++
		}
	}
	if n > maxChains {
		return fmt.Errorf("import entry %d of %s forks too often: %w", p.Entry.N, p.Entry.Host, tinycloud.ErrInvalid)
	}
	return nil
}

func (n *node) imported() bool {
	return slices.ContainsFunc(n.spots, func(s judge.Spot) bool { return s.Branch >= chainBase })
}

func (t *tx) placePart(sp *space, part *hostlog.Parsed) error {
	n, err := t.node(sp, part.Entry.Epoch)
	if err != nil {
		return err
	}
	var past judge.Clock
	if n != nil {
		past = n.past
	} else {
		g, err := t.ground(sp, part.DecodedEpoch.Parents)
		if err != nil {
			return err
		}
		past = g.past
	}
	s := slot{index: chainBase + len(sp.chains), base: -1}
	for i, c := range sp.chains {
		if c.host == part.Entry.Host && c.tip.before(past) {
			s.index, s.chain = chainBase+i, c
			break
		}
	}
	if n != nil {
		return t.second(sp, part, n, s)
	}
	return t.first(sp, part, s)
}

// extendChain makes an imported epoch the tip of its chain.
func (sp *space) extendChain(p *hostlog.Parsed, n *node, s slot) {
	number := s.number(p)
	c := s.chain
	if c == nil {
		c = &chainOf{host: p.Entry.Host}
		sp.chains = append(sp.chains, c)
	}
	c.n, c.tip, c.dirty = number, n, true
}

// intoEntries adds an entry, or an imported epoch.
var intoEntries = db.Insert{Into: "entries", Columns: "sid branch n digest at eid sig valid ord"}

func (t *tx) saveImport(sp *space, p *hostlog.Parsed, s slot) error {
	err := t.add(intoEntries, sp.sid, s.index, p.Entry.N, p.Digest[:], p.Entry.At, 0, p.Sig[:], true, 0)
	if err != nil {
		return err
	}
	list := make([]hostlog.Listed, len(p.Parts))
	for i, part := range p.Parts {
		list[i] = hostlog.Listed{Epoch: part.Entry.Epoch, At: part.Entry.At}
	}
	encoded := hostlog.EncodeList(list)
	sp.history += entryWeight + int64(len(encoded))
	var ord int64
	if _, err := t.one([]any{&ord}, "SELECT coalesce(max(ord), -1) + 1 FROM imports WHERE sid = ?", sp.sid); err != nil {
		return err
	}
	return t.add(db.Insert{Into: "imports", Columns: "sid branch n ord list"}, sp.sid, s.index, p.Entry.N, ord, encoded)
}

func (t *tx) flushChains(sp *space) error {
	for i, c := range sp.chains {
		if !c.dirty {
			continue
		}
		err := t.add(db.Insert{Into: "chains", Columns: "sid chain host n eid", Key: "sid chain", Replace: true}, sp.sid, i, c.host[:], c.n, c.tip.eid)
		if err != nil {
			return err
		}
		c.dirty = false
	}
	return nil
}

// loadImports reads the times of the import entries of a Space that has chains.
func (t *tx) loadImports(sp *space) error {
	if len(sp.chains) == 0 {
		return nil
	}
	return t.each(func(scan db.Scan) error {
		var digest []byte
		var ms int64
		err := scan(&digest, &ms)
		if err == nil {
			sp.imports[tinycloud.Hash(digest)] = ms
		}
		return err
	}, "SELECT digest, at FROM entries WHERE sid = ? AND eid = 0", sp.sid)
}
