package capstore

import (
	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// intoRevoked records that a delegation is revoked.
var intoRevoked = db.Insert{Into: "revoked", Columns: "target revocation at", Key: "target revocation"}

// saveToken keeps a delegation or revocation for admission in any Space.
func (t *tx) saveToken(tok *Token) error {
	err := t.add(db.Insert{Into: "tokens", Columns: "id kind bytes received", Key: "id"}, tok.ID[:], tok.Kind, tok.Bytes, t.now.UnixMilli())
	if err != nil {
		return err
	}
	if tok.Kind != token.Delegation {
		return nil
	}
	for _, s := range tok.Places() {
		if err := t.add(db.Insert{Into: "mentions", Columns: "space id", Key: "space id"}, s.String(), tok.ID[:]); err != nil {
			return err
		}
	}
	for _, p := range parties(tok) {
		if err := t.add(p.into, p.args...); err != nil {
			return err
		}
	}
	return nil
}

// enforce records the delegations that a Space's facts have brought to an end.
func (t *tx) enforce(sp *space) error {
	for _, e := range sp.facts.Ended() {
		if err := t.saveRevoked(sp, e.Delegation, e.Revocation); err != nil {
			return err
		}
	}
	return nil
}

// saveRevoked records that a delegation of a Space's facts has ended.
func (t *tx) saveRevoked(sp *space, id tinycloud.Hash, r *Token) error {
	if t.isRevoked(id) {
		return nil
	}
	t.revoked[id] = r.ID
	if target := sp.facts.Delegation(id); target != nil && target.HostsSpace(sp.id) {
		if host, ok := hostlog.KeyOf(target.Audience); ok && !t.hosts(sp, host) {
			c := t.touch(sp)
			c.Revoked = append(c.Revoked, host)
		}
	}
	return t.add(intoRevoked, id[:], r.ID[:], t.now.UnixMilli())
}

// hosts reports whether a host has a delegation in force.
func (t *tx) hosts(sp *space, host hostlog.Key) (yes bool) {
	sp.facts.Hosts(func(h hostlog.Key, d *Token) bool {
		yes = h == host && d.ValidAt(t.now, 0) && !t.isRevoked(d.ID)
		return !yes
	})
	return yes
}

func (t *tx) isRevoked(id tinycloud.Hash) bool {
	if _, ok := t.revoked[id]; ok {
		return true
	}
	return t.s.isRevoked(id)
}
