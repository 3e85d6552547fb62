package capstore

import (
	"context"
	"slices"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// Delegations of Spaces that are not hosted here wait for one that makes this node a host: whoever signs in sends his
// before. Nobody's quota has them, so there are few, and they go after a while. A revocation of one goes likewise, but
// that it is revoked stays known.
const (
	unhostedLife  = time.Hour
	maxUnhosted   = 8192     // delegations and revocations
	unhostedBytes = 16 << 20 // of them together
	maxRevokedFar = 16384    // revocations, those that went too
	forgetAtOnce  = 64       // that one transaction forgets
)

// knowsAny reports whether a Space that a delegation names is hosted here, or imported.
func (s *Store) knowsAny(tok *Token) bool { return slices.ContainsFunc(tok.Places(), s.Known) }

// mayWait reports whether this node agrees to host a Space of a delegation, one of the first that it names.
func (s *Store) mayWait(ctx context.Context, tok *Token) bool {
	const asked = 4
	of := tok.Spaces()
	return s.o.Allow == nil || slices.ContainsFunc(of[:min(len(of), asked)], func(id tinycloud.SpaceID) bool { return s.o.Allow(ctx, id) == nil })
}

// Creates returns how many Spaces a delegation would create here.
func (s *Store) Creates(tok *Token) (n int) {
	for _, id := range tok.Spaces() {
		if !s.Hosted(id) && s.hostsHere(tok, id) {
			n++
		}
	}
	return n
}

// awaitHosting is called before a delegation or a revocation of no Space that is hosted here is saved: it waits from now
// on, in place of the oldest if there are too many.
func (t *tx) awaitHosting(tok *Token) error {
	var one int
	if stored, err := t.one([]any{&one}, "SELECT 1 FROM tokens WHERE id = ?", tok.ID[:]); err != nil {
		return err
	} else if stored {
		return t.exec("UPDATE unhosted SET received = ? WHERE id = ?", t.now.UnixMilli(), tok.ID[:])
	}
	if tok.Kind == token.Revocation {
		var known int64
		if _, err := t.one([]any{&known}, "SELECT count(*) FROM unhosted WHERE kind = ?", token.Revocation); err != nil {
			return err
		}
		if known >= maxRevokedFar {
			return tinycloud.Refuse(tinycloud.ErrUnavailable, "Too many revocations of delegations of spaces that are not hosted here")
		}
	}
	err := t.add(db.Insert{Into: "unhosted", Columns: "id kind size received", Key: "id", Replace: true}, tok.ID[:], tok.Kind, len(tok.Bytes), t.now.UnixMilli())
	if err != nil {
		return err
	}
	var n, bytes int64
	if _, err := t.one([]any{&n, &bytes}, "SELECT count(*), coalesce(sum(size), 0) FROM unhosted WHERE size > 0"); err != nil {
		return err
	}
	if n <= maxUnhosted && bytes <= unhostedBytes {
		return nil
	}
	_, err = t.forgetUnhosted(t.now.UnixMilli(), n-maxUnhosted, bytes-unhostedBytes, tok.ID)
	return err
}

// hostedNow says that a token stands in the history of a Space that is hosted here.
func (t *tx) hostedNow(id tinycloud.Hash) error {
	return t.exec("DELETE FROM unhosted WHERE id = ?", id[:])
}

// forgetUnhosted forgets the oldest of the unhosted tokens that came before a time in unix milliseconds, without the one
// given: so many and so many bytes at least, if there are, and of those a batch at most. It reports how many went.
func (t *tx) forgetUnhosted(before, count, bytes int64, but tinycloud.Hash) (gone int, err error) {
	type row struct {
		id   tinycloud.Hash
		size int64
	}
	var rows []row
	err = t.each(func(scan db.Scan) error {
		var id []byte
		var r row
		err := scan(&id, &r.size)
		if r.id = tinycloud.Hash(id); err == nil && r.id != but {
			rows = append(rows, r)
		}
		return err
	}, "SELECT id, size FROM unhosted WHERE size > 0 AND received <= ? ORDER BY received LIMIT ?", before, forgetAtOnce)
	if err != nil {
		return 0, err
	}
	for _, r := range rows {
		if count <= 0 && bytes <= 0 {
			break
		}
		if err := t.forgetToken(r.id); err != nil {
			return gone, err
		}
		count, bytes, gone = count-1, bytes-r.size, gone+1
	}
	return gone, nil
}

// forgetToken removes an unhosted token with all that names it.
func (t *tx) forgetToken(id tinycloud.Hash) error {
	tok, err := t.s.token(t.ctx, t, id)
	if err != nil {
		return err
	}
	if tok != nil && tok.Kind == token.Delegation && t.s.knowsAny(tok) { // it is not in the history yet
		return t.hostedNow(id)
	}
	t.s.tokens.Remove(id)
	if err := t.exec("DELETE FROM tokens WHERE id = ?", id[:]); err != nil {
		return err
	}
	if tok != nil && tok.Kind == token.Revocation {
		return t.exec("UPDATE unhosted SET size = 0 WHERE id = ?", id[:])
	}
	if err := t.hostedNow(id); err != nil || tok == nil {
		return err
	}
	for _, space := range tok.Places() {
		if err := t.exec("DELETE FROM mentions WHERE space = ? AND id = ?", space.String(), id[:]); err != nil {
			return err
		}
	}
	for _, p := range parties(tok) {
		if p.into.Into == "listers" {
			if others, err := t.givesListing(tok, p); err != nil || others {
				return err
			}
		}
		if err := t.exec("DELETE FROM "+p.into.Into+" WHERE "+strings.Join(strings.Fields(p.into.Columns), " = ? AND ")+" = ?", p.args...); err != nil {
			return err
		}
	}
	return nil
}

// givesListing reports whether another delegation of the same delegator gives the right to list that a delegation gave,
// or may: when there are many it is not asked of each.
func (t *tx) givesListing(of *Token, right party) (bool, error) {
	const asked = 64
	var ids []tinycloud.Hash
	err := t.each(func(scan db.Scan) error {
		var cid string
		if err := scan(&cid); err != nil {
			return err
		}
		id, err := tinycloud.ParseCID(cid)
		if err == nil && id != of.ID {
			ids = append(ids, id)
		}
		return nil
	}, "SELECT cid FROM parties WHERE did = ? AND role = ? LIMIT ?", indexed(of.Signer), roleDelegator, asked)
	if err != nil || len(ids) >= asked-1 {
		return true, err
	}
	for _, id := range ids {
		tok, err := t.s.token(t.ctx, t, id)
		if err != nil {
			return true, err
		}
		if tok != nil && slices.ContainsFunc(parties(tok), func(p party) bool { return p.into == right.into && slices.Equal(p.args, right.args) }) {
			return true, nil
		}
	}
	return false, nil
}

// ForgetUnhosted forgets the delegations that waited long enough for their Spaces to be hosted here. It is to be called
// now and then.
func (s *Store) ForgetUnhosted(ctx context.Context) error {
	for gone := forgetAtOnce; gone == forgetAtOnce; {
		var one int
		due := s.o.Now().Add(-unhostedLife).UnixMilli()
		if some, err := s.db.Read.One(ctx, []any{&one}, "SELECT 1 FROM unhosted WHERE size > 0 AND received <= ? LIMIT 1", due); err != nil || !some {
			return err
		}
		err := s.do(ctx, func(t *tx) (err error) {
			gone, err = t.forgetUnhosted(due, forgetAtOnce, 0, tinycloud.Hash{})
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
