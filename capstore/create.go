package capstore

import (
	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// begin makes a Space hosted here: a new one, or one that was imported.
func (t *tx) begin(id tinycloud.SpaceID) error {
	if t.s.importedID(id) == 0 {
		return t.create(id, StateHosted)
	}
	sp, err := t.importedSpace(id)
	if err != nil {
		return err
	}
	if sp.state == StateImporting {
		return tinycloud.Refuse(tinycloud.ErrUnavailable, "The space is being imported")
	}
	t.promote(sp)
	return nil
}

// create makes a Space known here.
func (t *tx) create(id tinycloud.SpaceID, state string) error {
	sp := newSpace(t.s, 0, id, state)
	kept := keptNot
	if t.s.o.Policy == All {
		kept = keptWhole
	}
	sid, err := t.insert(db.Insert{Into: "spaces", Columns: "space host state created kept", ID: "sid"}, id.String(), sp.host[:], state, t.now.UnixMilli(), kept)
	if err != nil {
		return err
	}
	sp.sid = sid
	t.created = append(t.created, sp)
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.s.spaces[id] = sp
	if state == StateImporting {
		t.s.imported[id] = sid
	} else {
		t.s.ids[id], t.s.byHost[sp.host] = sid, id
	}
	return nil
}
