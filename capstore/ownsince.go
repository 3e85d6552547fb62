package capstore

import (
	"context"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Shared reports whether several processes may have the database: then they are one host, and each answer of the database
// takes a round trip.
func (s *Store) Shared() bool { return s.db.Shared }

// OwnSince reports whether a process of this host made a valid operation on a subject in an epoch of a row greater than one.
func (s *Store) OwnSince(ctx context.Context, id tinycloud.SpaceID, name, about string, row int64) (bool, error) {
	if err := s.fresh(ctx); err != nil {
		return false, err
	}
	sid, err := s.sid(ctx, id)
	if err != nil {
		return false, err
	}
	host, err := ownHost(ctx, s.db.Read, sid)
	if err != nil {
		return false, err
	}
	return s.ownSince(ctx, s.db.Read, sid, host, subject{name, about}, row)
}

// ownSince goes by the rows of epochs, which rise in a Space: who adds one has its lock.
func (s *Store) ownSince(ctx context.Context, q querier, sid int64, host []byte, about subject, row int64) (bool, error) {
	var one int
	return q.One(ctx, []any{&one}, "SELECT 1 FROM ops o WHERE o.sid = ? AND o.key = ? AND o.service = ? AND o.eid > ? AND o.valid = 1 AND "+ownEntry+" LIMIT 1",
		sid, s.key(about.name), about.service, row, host)
}

func (x *inSpace) OwnSince(about string, row int64) (bool, error) {
	host := x.sp.host
	return x.t.s.ownSince(x.t.ctx, x.t, x.sp.sid, host[:], subject{x.service, about}, row)
}
