package capstore

import (
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// placedOp is an operation at its place in the history.
type placedOp struct {
	op    operation
	at    Position
	n     int // within its event
	event tinycloud.Hash
}

// placed is the same as its service sees it; n is the epoch.
func (p placedOp) placed(n *node) service.Placed {
	return service.Placed{
		Subject: p.op.Subject, Bytes: p.op.Bytes, At: p.at, N: p.n, Event: p.event, Written: n.age.Time, Row: n.eid, Order: orderOf(n, p.at.Index), Removes: p.op.Removes, Valid: true,
	}
}

// fold stores the operations of an event and applies the valid ones. So many operations of the epoch came
// before.
func (t *tx) fold(sp *space, n *node, i int, e *hostlog.Event, ops []operation, valid bool, before int, p *hostlog.Parsed) error {
	many := false
	if len(e.Ops) > 0 && (!p.Own || sp.forking) {
		var err error
		if many, err = t.elsewhere(sp, e.ID, n.eid); err != nil {
			return err
		}
	}
	twice := slices.ContainsFunc(p.DecodedEvents[:i], func(o hostlog.Event) bool { return o.ID == e.ID })
	keeps := false
	if len(e.Ops) > 0 && !p.Own {
		var err error
		if keeps, err = t.keeps(sp); err != nil {
			return err
		}
	}
	for k, op := range ops {
		err := t.add(db.Insert{Into: "ops", Columns: "eid idx n sid service key removes bytes valid"},
			n.eid, i, k, sp.sid, op.Service, t.s.key(op.Subject), op.Removes, op.Bytes, valid)
		if err != nil {
			return err
		}
		if op.Service != dag.KV {
			sp.ops += int64(len(op.Bytes))
		}
		if err := t.keep(sp, op, p); err != nil {
			return err
		}
		if keeps && op.names() {
			if err := t.wantAlso(sp, op.Value); err != nil {
				return err
			}
		}
		o := placedOp{op: op, at: Position{Seq: n.seq, Epoch: n.id, Index: uint64(i)}, n: k, event: e.ID}
		if op.pending {
			if err := t.addPending(sp, n, o, valid); err != nil {
				return err
			}
		}
		current := false
		if valid && !op.pending {
			var err error
			if current, err = t.foldOp(sp, n, e, o, before+k, many, twice, p); err != nil {
				return err
			}
		}
		if op.names() && !p.Own && !current && p.ValueOf[op.Value] != nil {
			if err := t.release(sp, op.Value); err != nil { // it came along and may be past
				return err
			}
		}
	}
	return nil
}

// foldOp applies a valid operation and announces it. many says that its event stands in other epochs too, twice that it
// stood in this one before. It reports whether a row now holds the operation's value as current.
func (t *tx) foldOp(sp *space, n *node, e *hostlog.Event, o placedOp, index int, many, twice bool, p *hostlog.Parsed) (current bool, err error) {
	x := t.at(sp, n, o.op.Service)
	counts, err := o.op.by.Apply(x, o.placed(n), many || twice)
	if err != nil {
		return false, err
	}
	current = slices.Contains(x.current, o.op.Value)
	if !counts {
		return current, t.setValid(n.eid, int64(o.at.Index), o.n, false)
	}
	return current, t.announceNew(sp, n, e, o, t.change(sp, n, e, o.op, index, p.Entry.At), many || twice)
}

// keep stores a small value that came with its operation.
func (t *tx) keep(sp *space, op operation, p *hostlog.Parsed) error {
	b, ok := p.ValueOf[op.Value]
	if !op.names() || !ok {
		return nil
	}
	if !p.Own {
		if takes, err := t.takes(sp, int64(len(b))); err != nil || !takes {
			return err // it is wanted, if a key holds it
		}
	}
	return t.saveValue(sp, op.Value, int64(len(b)), b)
}

// want notes a current value that is not here.
func (t *tx) want(sp *space, hash tinycloud.Hash) error {
	if held, err := t.holds(sp, hash); err != nil {
		return err
	} else if held {
		return t.revive(sp, hash)
	}
	return t.lack(sp, hash)
}

// lack notes a value that is to be fetched.
func (t *tx) lack(sp *space, hash tinycloud.Hash) error {
	t.touch(sp).Wants++
	return t.add(db.Insert{Into: "wants", Columns: "sid hash", Key: "sid hash"}, sp.sid, hash[:])
}

// unwant forgets that a value is to be fetched.
func (t *tx) unwant(sp *space, hash tinycloud.Hash) error {
	if args := []any{sp.sid, hash[:]}; t.known.lacks(lookWant, args) || t.known.at(lookWant, args) != nil {
		var one int
		if wanted, err := t.look([]any{&one}, lookWant, args...); err != nil || !wanted {
			return err
		}
	}
	return t.exec("DELETE FROM wants WHERE sid = ? AND hash = ?", sp.sid, hash[:])
}
