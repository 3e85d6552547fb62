package capstore

import (
	"errors"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// begin makes a Space hosted here: a new one, or one that was imported.
func (t *tx) begin(id tinycloud.SpaceID) error {
	asked, err := t.askedFor(id)
	if err != nil {
		return err
	}
	if t.s.importedID(id) == 0 {
		if err := t.create(id, t.s.firstState(asked)); err != nil {
			return err
		}
		return t.takeAsked(id, asked)
	}
	sp, err := t.importedSpace(id)
	if err != nil {
		return err
	}
	if sp.state == StateImporting {
		return tinycloud.Refuse(tinycloud.ErrUnavailable, "The space is being imported")
	}
	t.promote(sp)
	// What was imported is there to be served.
	if some, err := written(t.ctx, t, sp.sid); err != nil || some {
		return errors.Join(err, t.takeAsked(id, asked))
	}
	if sp.state = t.s.firstState(asked); sp.state == StateJoining {
		if err := t.startJoining(sp); err != nil {
			return err
		}
	}
	return t.takeAsked(id, asked)
}

// create makes a Space known here.
func (t *tx) create(id tinycloud.SpaceID, state string) error {
	sp := newSpace(t.s, 0, id, state)
	if state == StateJoining {
		if err := t.startJoining(sp); err != nil {
			return err
		}
	}
	kept := keptNot
	if t.s.o.Policy == All {
		kept = keptWhole
	}
	sid, err := t.insert(db.Insert{Into: "spaces", Columns: "space host state opens created kept removed", ID: "sid"}, id.String(), sp.host[:], state, sp.opens, t.now.UnixMilli(), kept, int(removalNone))
	if err != nil {
		return err
	}
	sp.sid = sid
	t.created = append(t.created, sp)
	t.use(sp)
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.s.loads(sp)
	if state == StateImporting {
		t.s.imported[id] = sid
	} else {
		t.s.ids[id], t.s.byHost[sp.host] = sid, id
	}
	return nil
}

// tellHosting tells the log which Spaces are hosted here from now on.
func (t *tx) tellHosting() {
	for _, sp := range append(t.created[:len(t.created):len(t.created)], t.promoted...) {
		if t.s.Hosted(sp.id) {
			t.s.log.InfoContext(t.ctx, "hosting a space", "space", sp.id, "state", sp.state)
		}
	}
}
