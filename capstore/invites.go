package capstore

import (
	"context"
	"fmt"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// Bounds of invites.
const (
	MaxInviteLife  = 24 * time.Hour
	maxOpenInvites = 64  // that nobody has used
	maxInvites     = 256 // with the used ones, until they expire
)

// Invite is the right of one node to be paired with this one. The node that uses it first is the only one that may
// use it again.
type Invite struct {
	ID      tinycloud.Hash // hash of the secret, which is not stored
	Made    time.Time
	Expires time.Time // whole milliseconds
	UsedBy  string    // peer id of a node; "" when it is open
}

// AddInvite stores an invite, durable when it returns. It ends by the clock of whoever is asked to honour it. The
// error is of class [tinycloud.ErrInvalid] for a life beyond [MaxInviteLife], and [tinycloud.ErrBusy] when there are
// too many.
func (s *Store) AddInvite(ctx context.Context, id tinycloud.Hash, life time.Duration) (i Invite, err error) {
	if life < time.Second || life > MaxInviteLife {
		return i, fmt.Errorf("expires: %s, expected 1s to %s: %w", life, MaxInviteLife, tinycloud.ErrInvalid)
	}
	err = s.do(ctx, func(t *tx) error {
		now := t.now.UnixMilli()
		var open, all int
		if _, err := t.one([]any{&all, &open}, "SELECT count(*), count(*) - count(used_by) FROM invites WHERE expires > ?", now); err != nil {
			return err
		}
		if open >= maxOpenInvites || all >= maxInvites {
			return tinycloud.Refuse(tinycloud.ErrBusy, "%d invites are open and %d used; the oldest have to expire first", open, all-open)
		}
		if err := t.exec("DELETE FROM invites WHERE expires <= ?", now); err != nil {
			return err
		}
		i = Invite{ID: id, Made: at(now).UTC(), Expires: at(now).Add(life).Truncate(time.Millisecond).UTC()}
		return t.add(db.Insert{Into: "invites", Columns: "id made expires"}, id[:], now, i.Expires.UnixMilli())
	})
	return i, err
}

// Invites returns those that have not expired, the newest first.
func (s *Store) Invites(ctx context.Context) (out []Invite, err error) {
	err = s.db.Read.Each(ctx, func(scan db.Scan) error {
		var i Invite
		var id []byte
		var made, expires int64
		if err := scan(&id, &made, &expires, &i.UsedBy); err != nil {
			return err
		}
		copy(i.ID[:], id)
		i.Made, i.Expires = at(made).UTC(), at(expires).UTC()
		out = append(out, i)
		return nil
	}, "SELECT id, made, expires, coalesce(used_by, '') FROM invites WHERE expires > ? ORDER BY made DESC, id", s.o.Now().UnixMilli())
	return out, err
}

// UseInvite pairs a node that showed the secret of an invite, in the transaction that takes the invite from all
// others. The node may use it again, which changes nothing but its addresses. The error is of class
// [tinycloud.ErrUnauthorized] when the invite is unknown, has expired, or was used by another node, and
// [tinycloud.ErrBusy] when too many nodes are paired; then it stays open.
func (s *Store) UseInvite(ctx context.Context, id tinycloud.Hash, node hostlog.PairedNode) error {
	node.Back = true
	if err := checkPaired(&node); err != nil {
		return err
	}
	// Strangers cost no turn of the writer.
	if _, err := s.openInvite(ctx, s.db.Read, id, node.Peer, s.o.Now()); err != nil {
		return err
	}
	return s.do(ctx, func(t *tx) error {
		used, err := t.s.openInvite(t.ctx, t, id, node.Peer, t.now)
		if err != nil {
			return err
		}
		if err := t.pair(node); err != nil || used {
			return err
		}
		return t.exec("UPDATE invites SET used_by = ? WHERE id = ?", node.Peer, id[:])
	})
}

// openInvite refuses an invite that a node may not use; used says that the node has used it before.
func (s *Store) openInvite(ctx context.Context, q querier, id tinycloud.Hash, node string, now time.Time) (used bool, err error) {
	var by string
	var expires int64
	ok, err := q.One(ctx, []any{&by, &expires}, "SELECT coalesce(used_by, ''), expires FROM invites WHERE id = ?", id[:])
	switch {
	case err != nil:
		return false, err
	case !ok:
		return false, fmt.Errorf("invite is unknown: %w", tinycloud.ErrUnauthorized)
	case expires <= now.UnixMilli():
		return false, fmt.Errorf("invite expired at %s: %w", at(expires).UTC().Format(time.RFC3339), tinycloud.ErrUnauthorized)
	case by != "" && by != node:
		return false, fmt.Errorf("invite was used by %s: %w", by, tinycloud.ErrUnauthorized)
	}
	return by != "", nil
}
