package capstore

import (
	"context"
	"crypto/rand"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// Rendezvous returns a Space's secret. A missing one, and one that a host knows whose delegation was
// revoked since, is made anew if renew says so; it is zero if not.
func (s *Store) Rendezvous(ctx context.Context, id tinycloud.SpaceID, renew bool) (hostlog.Rendezvous, error) {
	r, now, err := s.rendezvous(ctx, id)
	if err != nil || !r.Secret.IsZero() && r.Generation >= now {
		return r, err
	}
	if !renew {
		return hostlog.Rendezvous{}, nil
	}
	made := hostlog.Rendezvous{Generation: now}
	_, _ = rand.Read(made.Secret[:]) // never fails
	if err := s.saveRendezvous(ctx, id, made); err != nil {
		return hostlog.Rendezvous{}, err
	}
	r, _, err = s.rendezvous(ctx, id)
	return r, err
}

// SaveRendezvous takes over another host's secret if it is to be preferred. One that came after a
// revocation which is not known here, or from a host whose delegation is not, is left for later; one of a host that
// was removed never counts, however new it is.
func (s *Store) SaveRendezvous(ctx context.Context, id tinycloud.SpaceID, from hostlog.Key, theirs hostlog.Rendezvous) error {
	ours, now, err := s.rendezvous(ctx, id)
	if err != nil || theirs.Secret.IsZero() || theirs.Generation != now || !theirs.After(ours) {
		return err
	}
	if host, err := s.isHost(ctx, id, from); err != nil || !host {
		return err
	}
	return s.saveRendezvous(ctx, id, theirs)
}

// Rendezvouses returns the secrets of all Spaces that have one.
func (s *Store) Rendezvouses(ctx context.Context) (map[tinycloud.SpaceID]tinycloud.Hash, error) {
	out := map[tinycloud.SpaceID]tinycloud.Hash{}
	err := s.db.Read.Each(ctx, func(scan db.Scan) error {
		var text string
		var secret []byte
		if err := scan(&text, &secret); err != nil {
			return err
		}
		id, err := tinycloud.ParseSpaceID(text)
		if len(secret) == len(tinycloud.Hash{}) {
			out[id] = tinycloud.Hash(secret)
		}
		return err
	}, "SELECT s.space, r.secret FROM rendezvous r JOIN spaces s ON s.sid = r.sid")
	return out, err
}

// isHost reports whether a delegation of a Space's history makes a key its host now.
func (s *Store) isHost(ctx context.Context, id tinycloud.SpaceID, key hostlog.Key) (yes bool, err error) {
	sp, err := s.loaded(ctx, id)
	if err != nil {
		return false, err
	}
	s.eachHost(sp, func(h hostlog.Key, _ *Token) bool {
		yes = h == key
		return !yes
	})
	return yes, nil
}

// rendezvous returns the stored secret, and the generation that a new one would have.
func (s *Store) rendezvous(ctx context.Context, id tinycloud.SpaceID) (r hostlog.Rendezvous, now int64, err error) {
	sp, err := s.loaded(ctx, id)
	if err != nil {
		return r, 0, err
	}
	revoked := map[tinycloud.Hash]bool{}
	sp.mu.RLock()
	sp.facts.Hosts(func(_ hostlog.Key, t *Token) bool {
		if s.isRevoked(t.ID) {
			revoked[t.ID] = true
		}
		return true
	})
	sp.mu.RUnlock()
	err = s.db.Read.Each(ctx, func(scan db.Scan) error {
		var secret []byte
		err := scan(&r.Generation, &secret)
		if err == nil && len(secret) == len(r.Secret) {
			r.Secret = tinycloud.Hash(secret)
		}
		return err
	}, "SELECT gen, secret FROM rendezvous WHERE sid = ?", sp.sid)
	return r, int64(len(revoked)), err
}

// saveRendezvous stores a secret unless the stored one is to be preferred.
func (s *Store) saveRendezvous(ctx context.Context, id tinycloud.SpaceID, r hostlog.Rendezvous) error {
	return s.do(ctx, func(t *tx) error {
		sp, err := t.space(id)
		if err != nil {
			return err
		}
		if err := t.add(db.Insert{Into: "rendezvous", Columns: "sid gen secret", Key: "sid"}, sp.sid, r.Generation, r.Secret[:]); err != nil {
			return err
		}
		return t.exec("UPDATE rendezvous SET gen = ?, secret = ? WHERE sid = ? AND (gen < ? OR gen = ? AND secret < ?)",
			r.Generation, r.Secret[:], sp.sid, r.Generation, r.Generation, r.Secret[:])
	})
}
