package capstore

import (
	"context"
	"fmt"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// Bounds of the joins that wait for their Space to be hosted here.
const (
	maxAskedJoins = 10_000 // addresses, of all Spaces
	maxAskedAddrs = 32     // of one
	keptAsked     = 30 * 24 * time.Hour
)

// askedJoin is a join that was asked for before the Space was hosted.
type askedJoin struct {
	addrs   []string
	nothing bool // the others have no history
}

// RememberJoin remembers a join of a Space that is not hosted here, for 30 days. It takes effect in the transaction
// that makes this node its host. The error is of class [tinycloud.ErrConflict] when that has happened, and
// [tinycloud.ErrTooLarge] when too many are remembered.
func (s *Store) RememberJoin(ctx context.Context, id tinycloud.SpaceID, addrs []string, empty bool) error {
	if err := checkJoin(addrs); err != nil {
		return err
	}
	nothing := 0
	if empty {
		nothing = 1
	}
	if len(addrs) == 0 {
		addrs = []string{""}
	}
	return s.do(ctx, func(t *tx) error {
		if t.s.Hosted(id) {
			return fmt.Errorf("%s is hosted here: %w", id, tinycloud.ErrConflict)
		}
		if err := t.exec("DELETE FROM asked_joins WHERE asked < ?", t.now.Add(-keptAsked).UnixMilli()); err != nil {
			return err
		}
		for _, addr := range addrs {
			err := t.add(db.Insert{Into: "asked_joins", Columns: "space addr alone asked", Key: "space addr", Replace: true},
				id.String(), addr, nothing, t.now.UnixMilli())
			if err != nil {
				return err
			}
		}
		var all, own int64
		_, err := t.one([]any{&all, &own}, "SELECT (SELECT count(*) FROM asked_joins), (SELECT count(*) FROM asked_joins WHERE space = ?)", id.String())
		if err == nil && (all > maxAskedJoins || own > maxAskedAddrs) {
			err = fmt.Errorf("%d joins are remembered, %d of %s: %w", all, own, id, tinycloud.ErrTooLarge)
		}
		return err
	})
}

// askedFor returns what was asked for of a Space.
func (t *tx) askedFor(id tinycloud.SpaceID) (asked askedJoin, err error) {
	err = t.each(func(scan db.Scan) error {
		var addr string
		var nothing int
		err := scan(&addr, &nothing)
		if addr != "" {
			asked.addrs = append(asked.addrs, addr)
		}
		asked.nothing = asked.nothing || nothing == 1
		return err
	}, "SELECT addr, alone FROM asked_joins WHERE space = ? AND asked >= ? ORDER BY addr", id.String(), t.now.Add(-keptAsked).UnixMilli())
	return asked, err
}

// takeAsked makes what was asked for joins of the Space.
func (t *tx) takeAsked(id tinycloud.SpaceID, asked askedJoin) error {
	if len(asked.addrs) == 0 && !asked.nothing {
		return nil
	}
	sp, err := t.space(id)
	if err != nil {
		return err
	}
	if err := t.insertJoins(sp, asked.addrs); err != nil {
		return err
	}
	t.touch(sp).Joins = len(asked.addrs) > 0
	return t.exec("DELETE FROM asked_joins WHERE space = ?", id.String())
}

// ForgetJoin forgets an address through which a Space is joined, or is to be once it is hosted. The error is of class
// [tinycloud.ErrNotFound] when there is no such address.
func (s *Store) ForgetJoin(ctx context.Context, id tinycloud.SpaceID, addr string) error {
	return s.do(ctx, func(t *tx) error {
		var n int64
		_, err := t.one([]any{&n}, `SELECT (SELECT count(*) FROM asked_joins WHERE space = ? AND addr = ?) +
			(SELECT count(*) FROM joins WHERE addr = ? AND sid IN (SELECT sid FROM spaces WHERE space = ?))`, id.String(), addr, addr, id.String())
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("%s is not joined through %q: %w", id, addr, tinycloud.ErrNotFound)
		}
		if err := t.exec("DELETE FROM asked_joins WHERE space = ? AND addr = ?", id.String(), addr); err != nil || !t.s.Hosted(id) {
			return err
		}
		sp, err := t.space(id)
		if err != nil {
			return err
		}
		t.touch(sp).Joins = true // who dials reads them again
		return t.exec("DELETE FROM joins WHERE sid = ? AND addr = ?", sp.sid, addr)
	})
}
