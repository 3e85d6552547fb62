package capstore

import (
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// Change is an operation of a Space that became valid on this host. It becomes so once: a token that
// stands in two epochs is one change, and so is one whose valid place moves.
type Change struct {
	Cursor  Cursor // its place in the order in which changes were announced here
	Space   tinycloud.SpaceID
	Epoch   tinycloud.Hash
	Index   int // among the operations of the epoch
	Service string
	Key     string              // the operation's subject
	Also    string              // another spelling of it, by which it may be asked for too; "" for none
	Delete  bool                // it takes away
	Ability string              // that it was an exercise of
	Actor   tinycloud.Principal // who signed the invocation
	At      time.Time           // when the first host known here entered the epoch
}

// is says of which operation the change is.
func (c *Change) is(op operation) {
	c.Service, c.Key, c.Delete, c.Ability = op.Service, op.Subject, op.Removes, op.Ability
}

// Cursor is a place in the order in which changes were announced on this host, over all its Spaces. The
// zero Cursor comes before all of them. It means nothing to another host.
type Cursor struct {
	Epoch int64 // row of the epoch, or of the greatest epoch when the change became valid later
	Late  int64 // 0 for what was announced with its epoch
	Index int   // among the operations of the epoch; 0 with Late
}

// Compare orders cursors.
func (c Cursor) Compare(d Cursor) int {
	return slices.Compare([]int64{c.Epoch, c.Late, int64(c.Index)}, []int64{d.Epoch, d.Late, int64(d.Index)})
}

// maxWrites bounds the changes that a Commit carries.
const maxWrites = 4096

// Values of late.after that are no epochs.
const (
	neverAnnounced = -1
	sinceVoid      = -2
)

// announce adds a change to the transaction's commit.
func (t *tx) announce(sp *space, c Change) {
	commit := t.touch(sp)
	if commit.LastWrite = c.Cursor; len(commit.Writes) < maxWrites {
		commit.Writes = append(commit.Writes, c)
	}
}

func (t *tx) change(sp *space, n *node, e *hostlog.Event, op operation, index int, ms int64) Change {
	c := Change{
		Cursor: Cursor{Epoch: n.eid, Index: index}, Space: sp.id, Epoch: n.id, Index: index, Actor: e.Token.Signer, At: at(ms).UTC(),
	}
	c.is(op)
	return c
}

// announceNew announces a valid operation of a new epoch. many says that its event stands elsewhere too.
func (t *tx) announceNew(sp *space, n *node, e *hostlog.Event, p placedOp, c Change, many bool) error {
	if t.s.tellsItself(p.op.Service) {
		return nil
	}
	if many {
		told, err := t.toldElsewhere(sp, n, e, p)
		if err != nil {
			return err
		}
		if told {
			_, err := t.mark(sp, n, p, neverAnnounced)
			return err
		}
	}
	t.announce(sp, c)
	return nil
}

// mark notes that an operation is not announced as its epoch and verdict tell, and returns the row.
func (t *tx) mark(sp *space, n *node, p placedOp, after int64) (int64, error) {
	return t.insert(db.Insert{Into: "late", Columns: "sid after eid idx n", ID: "ord"}, sp.sid, after, n.eid, int64(p.at.Index), p.n)
}

// toldElsewhere reports whether an event's operation on a key was announced at another place.
func (t *tx) toldElsewhere(sp *space, n *node, e *hostlog.Event, p placedOp) (bool, error) {
	var count int
	_, err := t.one([]any{&count}, `SELECT count(*) FROM events e JOIN ops o ON o.eid = e.eid AND o.idx = e.idx
		LEFT JOIN late l ON l.eid = o.eid AND l.idx = o.idx AND l.n = o.n
		WHERE e.sid = ? AND e.id = ? AND NOT (o.eid = ? AND o.idx = ?) AND o.service = ? AND o.key = ? AND o.removes = ?
		AND ((l.after IS NULL AND o.valid = 1) OR l.after >= 0 OR l.after = ?)`,
		sp.sid, e.ID[:], n.eid, int64(p.at.Index), p.op.Service, t.s.key(p.op.Subject), p.op.Removes, sinceVoid)
	return count > 0, err
}

// reannounce follows a verdict on an operation of a known epoch that was made again. many says that its
// event stands elsewhere too.
func (t *tx) reannounce(sp *space, n *node, e *hostlog.Event, p placedOp, was, valid, many bool, index int) error {
	if t.s.tellsItself(p.op.Service) || was == valid || p.op.pending {
		return nil
	}
	var one int
	known, err := t.one([]any{&one}, "SELECT 1 FROM late WHERE eid = ? AND idx = ? AND n = ?", n.eid, int64(p.at.Index), p.n)
	if err != nil || known {
		return err
	}
	if !valid { // it stays announced
		_, err := t.mark(sp, n, p, sinceVoid)
		return err
	}
	if many {
		told, err := t.toldElsewhere(sp, n, e, p)
		if err != nil {
			return err
		}
		if told {
			_, err := t.mark(sp, n, p, neverAnnounced)
			return err
		}
	}
	var ms, last int64
	if _, err := t.one([]any{&ms}, "SELECT at FROM entries WHERE eid = ? AND ord = 0", n.eid); err != nil {
		return err
	}
	if _, err := t.one([]any{&last}, "SELECT max(eid) FROM epochs"); err != nil {
		return err
	}
	ord, err := t.mark(sp, n, p, last)
	if err != nil {
		return err
	}
	c := t.change(sp, n, e, p.op, index, ms)
	c.Cursor = Cursor{Epoch: last, Late: ord}
	t.announce(sp, c)
	return nil
}
