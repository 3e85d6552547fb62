package sql

import (
	"context"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// sized is what a database was found to take here.
type sized struct {
	known bool
	at    cursor // where it was measured
	bytes int64  // that the history knows of
}

// measure tells the history what the database takes here, for the quota, once that differs by a sixteenth: writes of other
// hosts would else cost a transaction each. Those of this host tell it with theirs. It has the turn.
func (d *database) measure(ctx context.Context, store service.Store) {
	if d.s == nil || d.sized.known && d.sized.at.at == d.at.at {
		return
	}
	size := int64(0)
	if d.at.pos > 0 {
		var err error
		if size, err = d.db.Size(ctx); err != nil {
			return // it is measured the next time
		}
	}
	off := size - d.sized.bytes
	if !d.sized.known || max(off, -off) > d.sized.bytes/16 {
		if store.NoteSize(ctx, d.of.space, request.Service, d.of.path, size) != nil {
			return
		}
		d.sized.bytes = size
	}
	d.sized.known, d.sized.at = true, d.at
}
