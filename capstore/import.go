package capstore

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

const (
	// MaxImported is how many epochs an import entry may list.
	MaxImported = 512
	maxChains   = 4096    // of one host in a Space
	chainBase   = 1 << 30 // branch numbers from here on are chains
)

// Imported is an epoch of a history that a host took over from elsewhere.
type Imported struct {
	At     int64 // unix milliseconds since when it is known; not before its parents', nor after the entry
	Epoch  []byte
	Events [][]byte // as in [Bundle]
	Ops    [][]byte
}

// listed is an element of an import entry's list.
type listed struct {
	epoch tinycloud.Hash
	at    int64
}

// ImportHash returns what an import entry names: the hash of the DAG-CBOR list [[epoch, at]…].
func ImportHash(epochs []Imported) tinycloud.Hash {
	list := make([]listed, len(epochs))
	for i, e := range epochs {
		list[i] = listed{tinycloud.Sum(e.Epoch), e.At}
	}
	return tinycloud.Sum(encodeList(list))
}

func encodeList(list []listed) []byte {
	b := dag.AppendHead(nil, 4<<5, uint64(len(list)))
	for _, l := range list {
		b = append(append(append(b, 0x82), linkHead...), l.epoch[:]...)
		b = dag.AppendHead(b, 0, uint64(l.at))
	}
	return b
}

// decodeList reads what encodeList gives, and nothing else.
func decodeList(b []byte) ([]listed, error) {
	if len(b) > 8+MaxImported*64 {
		return nil, fmt.Errorf("import of %d bytes: %w", len(b), tinycloud.ErrInvalid)
	}
	node, err := ipld.Decode(b, dagcbor.Decode)
	if err != nil {
		return nil, fmt.Errorf("import: %v: %w", err, tinycloud.ErrInvalid)
	}
	var out []listed
	for i := range max(node.Length(), 0) {
		pair, err := node.LookupByIndex(i)
		if err != nil {
			return nil, fmt.Errorf("import: %v: %w", err, tinycloud.ErrInvalid)
		}
		epoch, err1 := pair.LookupByIndex(0)
		when, err2 := pair.LookupByIndex(1)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("import: element %d is no pair: %w", i, tinycloud.ErrInvalid)
		}
		link, err1 := epoch.AsLink()
		ms, err2 := when.AsInt()
		l, ok := link.(cidlink.Link)
		if err1 != nil || err2 != nil || !ok || ms < 0 {
			return nil, fmt.Errorf("import: element %d: %w", i, tinycloud.ErrInvalid)
		}
		out = append(out, listed{tinycloud.HashOf(l.Cid), ms})
	}
	if len(out) == 0 || len(out) > MaxImported || !bytes.Equal(encodeList(out), b) {
		return nil, fmt.Errorf("import of %d epochs: not canonical: %w", len(out), tinycloud.ErrInvalid)
	}
	return out, nil
}

// parseImport reads the epochs of an import entry.
func (p *parsed) parseImport() error {
	if n := len(p.Imported); n == 0 || n > MaxImported || len(p.Epoch)+len(p.Events)+len(p.Ops) > 0 || !p.Entry.Epoch.IsZero() {
		return fmt.Errorf("import entry with %d epochs: %w", n, tinycloud.ErrInvalid)
	}
	if ImportHash(p.Imported) != p.Entry.Import {
		return fmt.Errorf("imported epochs do not match their entry: %w", tinycloud.ErrForged)
	}
	if p.weight() > MaxBundle {
		return fmt.Errorf("import entry of %d bytes: %w", p.weight(), tinycloud.ErrInvalid)
	}
	return p.splitImport()
}

// splitImport makes the parts.
func (p *parsed) splitImport() error {
	seen := map[tinycloud.Hash]bool{}
	for _, im := range p.Imported {
		part := &parsed{
			Bundle: Bundle{Epoch: im.Epoch, Events: im.Events, Ops: im.Ops},
			digest: p.digest, values: p.values, importedAt: max(p.Entry.At, 1),
		}
		part.Entry = Entry{Space: p.Entry.Space, Host: p.Entry.Host, N: p.Entry.N, Epoch: tinycloud.Sum(im.Epoch), At: im.At}
		if im.At < 0 || im.At > p.Entry.At || seen[part.Entry.Epoch] {
			return fmt.Errorf("imported epoch of %d, known before or from after the entry: %w", im.At, tinycloud.ErrInvalid)
		}
		seen[part.Entry.Epoch] = true
		if err := part.parseEpoch(); err != nil {
			return err
		}
		p.parts = append(p.parts, part)
	}
	return nil
}

// weight is what a bundle brings, in bytes.
func (b *Bundle) weight() int {
	n := len(b.Epoch)
	for _, group := range [][][]byte{b.Events, b.Ops} {
		for _, x := range group {
			n += len(x)
		}
	}
	for _, v := range b.Values {
		n += len(v.Bytes)
	}
	for _, im := range b.Imported {
		n += (&Bundle{Epoch: im.Epoch, Events: im.Events, Ops: im.Ops}).weight()
	}
	return n
}

// withParts puts the parts of import entries after them.
func withParts(ps []*parsed) []*parsed {
	if !slices.ContainsFunc(ps, func(p *parsed) bool { return len(p.parts) > 0 }) {
		return ps
	}
	var out []*parsed
	for _, p := range ps {
		out = append(append(out, p), p.parts...)
	}
	return out
}

// chainOf is a part of an imported history in which every epoch is an ancestor of the next. Since the
// order within an import is not that of a log, chains take the place of branches in clocks: an ancestor
// among imported epochs is looked up like any other.
type chainOf struct {
	host  HostKey
	n     uint64 // of the tip
	tip   *node
	dirty bool
}

// witness is who makes an epoch valid: the host of an entry, or of the import entry that lists it.
type witness struct {
	host       HostKey
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
func (s slot) number(p *parsed) uint64 {
	if s.chain != nil {
		return s.chain.n + 1
	}
	if p.importedAt != 0 {
		return 0
	}
	return p.Entry.N
}

// placeImport adds an import entry with the epochs it lists. They build on imported epochs alone, so that
// import entries can be sent before all others.
func (t *tx) placeImport(sp *space, p *parsed, s slot) error {
	if s.prev != nil {
		return fmt.Errorf("import entry %d of %s after an ordinary one: %w", p.Entry.N, p.Entry.Host, tinycloud.ErrInvalid)
	}
	here := map[tinycloud.Hash]bool{}
	for _, part := range p.parts {
		for _, parent := range part.epoch.Parents {
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
	sp.imports[p.digest] = p.Entry.At
	for _, part := range p.parts {
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
func (t *tx) roomForChains(sp *space, p *parsed) error {
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

func (t *tx) placePart(sp *space, part *parsed) error {
	n, err := t.node(sp, part.Entry.Epoch)
	if err != nil {
		return err
	}
	var past judge.Clock
	if n != nil {
		past = n.past
	} else {
		g, err := t.ground(sp, part.epoch.Parents)
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
func (sp *space) extendChain(p *parsed, n *node, s slot) {
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

func (t *tx) saveImport(sp *space, p *parsed, s slot) error {
	err := t.add(intoEntries, sp.sid, s.index, p.Entry.N, p.digest[:], p.Entry.At, 0, p.Sig[:], true, 0)
	if err != nil {
		return err
	}
	list := make([]listed, len(p.parts))
	for i, part := range p.parts {
		list[i] = listed{part.Entry.Epoch, part.Entry.At}
	}
	var ord int64
	if _, err := t.one([]any{&ord}, "SELECT coalesce(max(ord), -1) + 1 FROM imports WHERE sid = ?", sp.sid); err != nil {
		return err
	}
	return t.add(db.Insert{Into: "imports", Columns: "sid branch n ord list"}, sp.sid, s.index, p.Entry.N, ord, encodeList(list))
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

// loadImports reads the chains of a Space and the times of its import entries.
func (t *tx) loadImports(sp *space) error {
	var tips []int64
	err := t.each(func(scan func(...any) error) error {
		c := &chainOf{}
		var host []byte
		var eid int64
		err := scan(&host, &c.n, &eid)
		if err == nil {
			c.host = HostKey(host)
			sp.chains, tips = append(sp.chains, c), append(tips, eid)
		}
		return err
	}, "SELECT host, n, eid FROM chains WHERE sid = ? ORDER BY chain", sp.sid)
	if err != nil || len(tips) == 0 {
		return err
	}
	for i, eid := range tips {
		n, err := t.nodeBy(sp, "eid = ?", eid)
		if err != nil {
			return err
		}
		sp.chains[i].tip = n
	}
	return t.each(func(scan func(...any) error) error {
		var digest []byte
		var ms int64
		err := scan(&digest, &ms)
		if err == nil {
			sp.imports[tinycloud.Hash(digest)] = ms
		}
		return err
	}, "SELECT digest, at FROM entries WHERE sid = ? AND eid = 0", sp.sid)
}
