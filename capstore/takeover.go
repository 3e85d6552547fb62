package capstore

import (
	"context"
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/parallel"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// States of a Space whose history is taken over. It is hosted for nobody.
const (
	StateImporting = "importing" // not all of it is here
	StateImported  = "imported"  // it waits for the owner to delegate it to this host
)

// Takeover adds the history of another kind of node to this one, Space by Space. Every step is durable
// when it returns and may be repeated. The node must not be serving.
type Takeover struct{ s *Store }

// Takeover returns the way to add the history of another kind of node.
func (s *Store) Takeover() Takeover { return Takeover{s} }

// Begin makes a Space ready for [Takeover.Epochs]. The error is of class [tinycloud.ErrConflict] when this
// node has written to the Space.
func (o Takeover) Begin(ctx context.Context, id tinycloud.SpaceID) error {
	return o.s.do(ctx, func(t *tx) error {
		sp, err := t.importing(id)
		if err != nil {
			return err
		}
		if own := sp.own(); own != nil && own.tip != nil {
			return fmt.Errorf("this node has a history of its own in %s: %w", id, tinycloud.ErrConflict)
		}
		t.touch(sp)
		sp.state = StateImporting
		return nil
	})
}

// importing returns a Space that is taken over, creating it if need be.
func (t *tx) importing(id tinycloud.SpaceID) (*space, error) {
	if t.s.Hosted(id) {
		return t.space(id)
	}
	if t.s.importedID(id) == 0 {
		if err := t.create(id, StateImporting); err != nil {
			return nil, err
		}
	}
	return t.importedSpace(id)
}

// importedSpace returns a Space that is imported and not hosted.
func (t *tx) importedSpace(id tinycloud.SpaceID) (*space, error) {
	t.s.mu.RLock()
	sp, sid := t.s.spaces[id], t.s.imported[id]
	t.s.mu.RUnlock()
	if sp != nil {
		t.use(sp)
		return sp, nil
	}
	return t.loadSpace(id, sid)
}

// Known returns those of some epochs that this node has imported.
func (o Takeover) Known(ctx context.Context, id tinycloud.SpaceID, epochs []tinycloud.Hash) (known map[tinycloud.Hash]bool, err error) {
	known = map[tinycloud.Hash]bool{}
	err = o.s.do(ctx, func(t *tx) error {
		sp, err := t.importing(id)
		if err != nil {
			return err
		}
		for _, e := range epochs {
			n, err := t.node(sp, e)
			if err != nil {
				return err
			}
			known[e] = n != nil && sp.importedHere(n)
		}
		return nil
	})
	return known, err
}

// importedHere reports whether this node imported an epoch.
func (sp *space) importedHere(n *node) bool {
	for _, s := range n.spots {
		if s.Branch >= chainBase && sp.chains[s.Branch-chainBase].host == sp.host {
			return true
		}
	}
	return false
}

// Epochs adds at most [hostlog.MaxImported] epochs, parents first, none of which is known, as one import entry. It
// verifies them like a peer's. An epoch's time is put between its parents' and now.
func (o Takeover) Epochs(ctx context.Context, id tinycloud.SpaceID, epochs []hostlog.Imported) error {
	now := o.s.o.Now().UnixMilli()
	b := hostlog.Bundle{Entry: hostlog.Entry{Space: id, At: now}, Imported: make([]hostlog.Imported, len(epochs))}
	copy(b.Imported, epochs)
	for i := range b.Imported {
		b.Imported[i].At = max(0, min(b.Imported[i].At, now))
	}
	b.Entry.Import = hostlog.ImportHash(b.Imported)
	p, err := hostlog.ParseOwn(id, &b)
	if err != nil {
		return err
	}
	return o.s.do(ctx, func(t *tx) error {
		sp, err := t.importing(id)
		if err != nil {
			return err
		}
		p := *p
		if err := t.sign(sp, &p); err != nil {
			return err
		}
		return t.place(sp, &p)
	})
}

// sign completes this node's next import entry: its epochs' times, its place in the log, its signature.
func (t *tx) sign(sp *space, p *hostlog.Parsed) error {
	own := sp.own()
	if own != nil && own.tip != nil {
		return fmt.Errorf("this node has a history of its own in %s: %w", sp.id, tinycloud.ErrConflict)
	}
	times := map[tinycloud.Hash]int64{}
	last := p.Entry.At
	for i, part := range p.Parts {
		ms := part.Entry.At
		for _, parent := range part.DecodedEpoch.Parents {
			if floor, here := times[parent]; here {
				ms = max(ms, floor)
				continue
			}
			n, err := t.node(sp, parent)
			if err != nil {
				return err
			}
			if n != nil {
				ms = max(ms, n.t)
			}
		}
		part.Entry.At, p.Imported[i].At = ms, ms
		times[part.Entry.Epoch], last = ms, max(last, ms)
	}
	p.Entry.Host, p.Entry.At, p.Entry.Import = sp.host, last, hostlog.ImportHash(p.Imported)
	if own != nil {
		p.Entry.N, p.Entry.Prev = own.n+1, own.digest
		p.Entry.At = max(p.Entry.At, own.at)
	}
	p.Own, p.Digest = true, p.Entry.Digest()
	p.Sig = hostlog.Sign(sp.key, p.Digest)
	for _, part := range p.Parts {
		part.Entry.Host, part.Entry.N, part.Digest, part.ImportedAt = sp.host, p.Entry.N, p.Digest, max(p.Entry.At, 1)
	}
	return nil
}

// Tokens keeps delegations and revocations that may stand in no epoch, in one transaction. It returns why
// some were left out, by index: they prove nothing.
func (o Takeover) Tokens(ctx context.Context, tokens [][]byte) (map[int]error, error) {
	toks, bad := make([]*Token, len(tokens)), make([]error, len(tokens))
	parallel.Do(len(tokens), func(i int) {
		toks[i], bad[i] = token.Decode(tokens[i], false)
		if bad[i] == nil && toks[i].Kind == token.Invocation {
			bad[i] = fmt.Errorf("an invocation stands in no list of delegations: %w", tinycloud.ErrUndecodable)
		}
		if bad[i] == nil {
			bad[i] = toks[i].VerifySignature()
		}
	})
	left := map[int]error{}
	for i, err := range bad {
		if err != nil {
			left[i] = err
		}
	}
	return left, o.s.do(ctx, func(t *tx) error {
		for i, tok := range toks {
			if bad[i] != nil {
				continue
			}
			if err := t.keepToken(tok); err != nil {
				return err
			}
		}
		return nil
	})
}

// keepToken saves a delegation, or a revocation whose signer had the right.
func (t *tx) keepToken(tok *Token) error {
	if err := t.saveToken(tok); err != nil || tok.Kind != token.Revocation {
		return err
	}
	var failed error
	find := func(id tinycloud.Hash) *Token {
		p, err := t.s.token(t.ctx, t.conn, id)
		if err != nil {
			failed = err
		}
		return p
	}
	target := find(tok.Target)
	if failed != nil || target == nil || !judge.MayRevoke(tok, target, find) || failed != nil {
		return failed
	}
	t.revoked[target.ID] = tok.ID
	return t.add(intoRevoked, target.ID[:], tok.ID[:], t.now.UnixMilli())
}

// TakenValue is a value that was taken over: small and in Inline, or, when that is nil, in the block store.
type TakenValue struct {
	Hash   tinycloud.Hash
	Size   int64
	Inline []byte
	// Foreign says that the bytes have another hash: no peer can have them, here they are served.
	Foreign bool
}

// Values records values that are here now, in one transaction.
func (o Takeover) Values(ctx context.Context, id tinycloud.SpaceID, values []TakenValue) error {
	return o.s.do(ctx, func(t *tx) error {
		sp, err := t.importing(id)
		if err != nil {
			return err
		}
		for _, v := range values {
			if err := t.saveValue(sp, v.Hash, v.Size, v.Inline); err != nil {
				return err
			}
			if err := t.unwant(sp, v.Hash); err != nil {
				return err
			}
			if !v.Foreign {
				if sp.state != StateImporting && sp.state != StateImported {
					err = t.release(sp, v.Hash) // unless a key holds it
				}
				if err != nil {
					return err
				}
				continue
			}
			err := t.add(db.Insert{Into: "wants", Columns: "sid hash due", Key: "sid hash"}, sp.sid, v.Hash[:], int64(neverDue))
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Holds returns those of some values that a Space has.
func (o Takeover) Holds(ctx context.Context, id tinycloud.SpaceID, hashes []tinycloud.Hash) (held map[tinycloud.Hash]bool, err error) {
	held = map[tinycloud.Hash]bool{}
	err = o.s.do(ctx, func(t *tx) error {
		sp, err := t.importing(id)
		if err != nil {
			return err
		}
		for _, h := range hashes {
			var one int
			ok, err := t.one([]any{&one}, "SELECT 1 FROM vals WHERE sid = ? AND hash = ?", sp.sid, h[:])
			if err != nil {
				return err
			}
			held[h] = ok
		}
		return nil
	})
	return held, err
}

// Taken is the outcome for one Space.
type Taken struct {
	Hosted bool // a delegation of the owner to this host is in force
	Host   hostlog.Key
	Epochs int64
	Void   int64
	Keys   int64
	Wants  int64
}

// End closes a Space's import. If the owner's delegation to this host is among what was taken over, the
// Space is hosted from now on, and what stood in no epoch gets one; else it waits for that delegation.
func (o Takeover) End(ctx context.Context, id tinycloud.SpaceID) (Taken, error) {
	var out Taken
	var sid int64
	err := o.s.do(ctx, func(t *tx) error {
		sp, err := t.importing(id)
		if err != nil {
			return err
		}
		t.touch(sp)
		sid = sp.sid
		if err := t.revise(sp); err != nil {
			return err
		}
		out = Taken{Host: sp.host, Hosted: sp.facts.AbleImporter(sp.host, t.now) == nil, Epochs: sp.epochs}
		if !out.Hosted {
			if !t.s.Hosted(id) {
				sp.state = StateImported
			}
			return nil
		}
		if sp.state == StateImporting || sp.state == StateImported {
			t.promote(sp)
			t.touch(sp).Created = true
		}
		if err := t.adopt(sp, tinycloud.Hash{}); err != nil {
			return err
		}
		out.Epochs = sp.epochs
		return nil
	})
	if err != nil {
		return out, err
	}
	_, err = o.s.db.Read.One(ctx, []any{&out.Void, &out.Keys, &out.Wants}, `SELECT (SELECT count(*) FROM epochs WHERE sid = ? AND valid = 0),
		`+o.s.held.countCurrent("x.sid")+`, (SELECT count(*) FROM wants w`+lacking+" AND "+o.s.missed()+") FROM spaces x WHERE x.sid = ?", sid, sid, int64(neverDue), sid)
	return out, err
}

// promote makes an imported Space a hosted one.
func (t *tx) promote(sp *space) {
	t.touch(sp)
	sp.state = StateHosted
	t.promoted = append(t.promoted, sp)
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	delete(t.s.imported, sp.id)
	t.s.ids[sp.id], t.s.byHost[sp.host] = sp.sid, sp.id
}

// Open makes a Space known, so that [Takeover.Apply] can add to it. It changes nothing in one that is hosted.
func (o Takeover) Open(ctx context.Context, id tinycloud.SpaceID) error {
	return o.s.do(ctx, func(t *tx) error {
		if t.s.Hosted(id) {
			return nil
		}
		sp, err := t.importing(id)
		if err != nil {
			return err
		}
		t.touch(sp)
		sp.state = StateImporting
		return nil
	})
}

// Apply is [Store.Apply] for a Space that need not be hosted.
func (o Takeover) Apply(ctx context.Context, id tinycloud.SpaceID, bundles []hostlog.Bundle) (hostlog.Applied, error) {
	return o.s.enterAll(ctx, hostlog.CheckAll(id, bundles), (*tx).importing)
}

// CurrentValues calls yield with the values of a hosted Space that are here whole, by hash and size.
func (s *Store) CurrentValues(ctx context.Context, id tinycloud.SpaceID, yield func(tinycloud.Hash, int64) error) error {
	sid, err := s.sid(ctx, id)
	if err != nil {
		return err
	}
	return s.db.Read.Each(ctx, func(scan db.Scan) error {
		var hash []byte
		var size int64
		if err := scan(&hash, &size); err != nil {
			return err
		}
		return yield(tinycloud.Hash(hash), size)
	}, `SELECT v.hash, v.size FROM vals v LEFT JOIN wants w ON w.sid = v.sid AND w.hash = v.hash
		LEFT JOIN past p ON p.sid = v.sid AND p.hash = v.hash
		WHERE v.sid = ? AND w.hash IS NULL AND p.hash IS NULL ORDER BY v.hash`, sid)
}
