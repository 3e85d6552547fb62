package capstore

import (
	"context"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// What is kept in the database beside the histories has tables of its own, which nothing here reads.

// Transact runs f in a transaction of the writer, durable when it returns without an error. f may run again. adds says that
// clients cause it to take room: it is refused while there is none.
func (s *Store) Transact(ctx context.Context, adds bool, f func(db.Tx) error) error {
	run := func(t *tx) error { return f(rowsTx{t}) }
	if adds {
		return s.add(ctx, run)
	}
	return s.do(ctx, run)
}

// Rows reads rows without a transaction.
func (s *Store) Rows() db.Reader { return s.db.Read }

// rowsTx is the writer's transaction for rows beside the histories.
type rowsTx struct{ t *tx }

func (b rowsTx) Now() time.Time { return b.t.now }

func (b rowsTx) One(_ context.Context, dest []any, query string, args ...any) (bool, error) {
	return b.t.one(dest, query, args...)
}

func (b rowsTx) Each(_ context.Context, f func(db.Scan) error, query string, args ...any) error {
	return b.t.each(f, query, args...)
}

func (b rowsTx) Exec(query string, args ...any) error { return b.t.exec(query, args...) }

func (b rowsTx) Add(i db.Insert, args ...any) error { return b.t.add(i, args...) }

// HostsOf reports whether a Space of an owner is hosted here.
func (s *Store) HostsOf(ctx context.Context, owner tinycloud.Principal) (bool, error) {
	if err := s.fresh(ctx); err != nil {
		return false, err
	}
	prefix, hosts := spacePrefix(owner), false
	err := s.db.Read.Each(ctx, func(scan db.Scan) error {
		var text string
		if err := scan(&text); err != nil {
			return err
		}
		// A longer DID may begin like the owner's.
		id, err := tinycloud.ParseSpaceID(text)
		hosts = hosts || err == nil && id.Owner() == owner && s.Hosted(id)
		return nil
	}, "SELECT space FROM spaces WHERE space > ? AND space < ?", prefix+":", prefix+";")
	return hosts, err
}

// spacePrefix is how the ids of an owner's Spaces begin, up to the colon before the name.
func spacePrefix(owner tinycloud.Principal) string {
	return "tinycloud:" + string(owner[min(len("did:"), len(owner)):])
}
