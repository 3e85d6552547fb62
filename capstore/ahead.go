package capstore

import (
	"errors"
	"fmt"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// A clock that was far ahead (docs/replication.md, "The time of an entry"). What was dated then is of the future for
// all others. Up to patience this host waits for the time to come. Beyond, it goes on from its last entry that is
// due: its log forks, and it gives the events that it left behind new epochs.
const aheadPatience = 10 * time.Minute

// time returns the time of an entry that is made now.
func (x *next) time(now time.Time) int64 {
	return max(now.UnixMilli(), x.own.at, judge.Earliest(x.floor))
}

// ahead returns how far that is in the future.
func (x *next) ahead(now time.Time) time.Duration {
	return time.Duration(x.time(now)-now.UnixMilli()) * time.Millisecond
}

// due reports whether a branch ends before a time; 0 is no limit.
func (b *branch) due(limit int64) bool {
	return limit == 0 || b.at <= limit && (b.tip == nil || b.tip.t <= limit)
}

// aheadOfSelf reports whether this node's log forked because it was ahead, and still is on one branch.
func (sp *space) aheadOfSelf(now time.Time) bool {
	limit := now.Add(judge.Slack).UnixMilli()
	due, undue := false, false
	for _, b := range sp.branches {
		if b.host == sp.host {
			due, undue = due || b.due(limit), undue || !b.due(limit)
		}
	}
	return due && undue
}

// limit returns what to build on instead of a future that is too far off; what it was given when it is near.
func (t *tx) limit(sp *space, plain *next) (*next, error) {
	if !sp.aheadOfSelf(t.now) && plain.ahead(t.now) <= aheadPatience {
		return plain, nil
	}
	limit := t.now.Add(judge.Slack).UnixMilli()
	heads, err := t.lastValid(sp, limit)
	if err != nil {
		return nil, err
	}
	sp.limit = limit
	var last tail
	var tips []*node
	own := sp.own()
	fork := own != nil && !own.due(limit)
	switch {
	case fork:
		var n *node
		if last, n, err = t.lastDue(sp, limit); n != nil {
			tips = []*node{n}
		}
	case own != nil:
		last, tips = tail{own.n, own.digest, own.at}, sp.ownTips()
	}
	if err != nil {
		return nil, err
	}
	x, err := t.build(sp, heads, tips)
	if err != nil {
		return nil, err
	}
	x.limited, x.fork, x.own = true, fork, last
	return x, nil
}

// lastDue returns this node's greatest entry that is due, with its epoch.
func (t *tx) lastDue(sp *space, limit int64) (best tail, n *node, err error) {
	for i, b := range sp.branches {
		if b.host != sp.host {
			continue
		}
		var number uint64
		var ms, eid int64
		var digest []byte
		ok, err := t.one([]any{&number, &ms, &eid, &digest}, `SELECT e.n, e.at, e.eid, e.digest FROM entries e JOIN epochs p ON p.eid = e.eid
			WHERE e.sid = ? AND e.branch = ? AND e.at <= ? AND p.t <= ? ORDER BY e.n DESC LIMIT 1`, sp.sid, i, limit, limit)
		if err != nil {
			return best, nil, err
		}
		if !ok || n != nil && number <= best.n {
			continue
		}
		best = tail{number, tinycloud.Hash(digest), ms}
		if n, err = t.nodeBy(sp, "eid = ?", eid); err != nil {
			return best, nil, err
		}
	}
	return best, n, nil
}

// aside makes an epoch independent of the future: deletes name what is in its past. Before the first of them,
// the events of this node's own epochs that are left behind get new ones.
func (t *tx) aside(sp *space, x *next, ops []dag.Operation) (*next, []dag.Operation, error) {
	if x.fork && !sp.forking {
		sp.forking = true
		err := t.again(sp, x)
		sp.forking = false
		if err != nil {
			return nil, nil, err
		}
		if x, err = t.upcoming(sp); err != nil {
			return nil, nil, err
		}
	}
	ops, err := t.retarget(sp, x, ops)
	return x, ops, err
}

// retarget has the services fit operations to an epoch's past.
func (t *tx) retarget(sp *space, x *next, ops []dag.Operation) ([]dag.Operation, error) {
	ops = slices.Clone(ops)
	for i := range ops {
		by := t.s.services[ops[i].Service]
		if by == nil {
			continue
		}
		in := t.in(sp, ops[i].Service)
		in.past = x.past
		b, err := by.Aside(in, ops[i].Subject, ops[i].Bytes)
		if err != nil {
			return nil, err
		}
		ops[i].Bytes = b
	}
	return ops, nil
}

// left is an event of an own epoch that is left behind.
type left struct {
	token *Token
	ops   []dag.Operation
}

// again mints the events of this node's own epochs after the fork, those that still count now.
func (t *tx) again(sp *space, x *next) error {
	events, err := t.leftBehind(sp, x)
	if err != nil {
		return err
	}
	t.s.log.WarnContext(t.ctx, "this host's clock was far ahead; its log forks", "space", sp.id.String(), "after", x.own.n, "events", len(events))
	for _, e := range events {
		if e.token.Kind == token.Invocation && !e.token.ValidAt(t.now, judge.Slack) {
			continue // it counts in its old epoch, when that is due
		}
		x, err := t.upcoming(sp)
		if err != nil {
			return err
		}
		if sp.facts.Seen(e.token.ID, x.past) {
			continue
		}
		ops, err := t.retarget(sp, x, e.ops)
		var refused *tinycloud.Refusal
		if errors.As(err, &refused) {
			continue // a delete of what is left behind too
		}
		if err == nil {
			_, err = t.mint(sp, e.token, ops, nil)
		}
		if err != nil {
			return fmt.Errorf("events left behind: %w", err)
		}
	}
	return nil
}

// leftBehind returns the events of own epochs that are not due, in order.
func (t *tx) leftBehind(sp *space, x *next) (out []left, err error) {
	var eids []int64
	for i, b := range sp.branches {
		if b.host != sp.host || b.due(sp.limit) {
			continue
		}
		err := t.each(func(scan db.Scan) error {
			var eid int64
			err := scan(&eid)
			eids = append(eids, eid)
			return err
		}, "SELECT e.eid FROM entries e JOIN epochs p ON p.eid = e.eid WHERE e.sid = ? AND e.branch = ? AND (e.at > ? OR p.t > ?) ORDER BY e.n", sp.sid, i, sp.limit, sp.limit)
		if err != nil {
			return nil, err
		}
	}
	for _, eid := range eids {
		n, err := t.nodeBy(sp, "eid = ?", eid)
		if err != nil {
			return nil, err
		}
		events, err := t.storedEvents(n)
		if err != nil {
			return nil, err
		}
		for _, e := range events {
			if e.Token != nil {
				l := left{token: e.Token}
				for _, o := range e.ops {
					l.ops = append(l.ops, o.Operation)
				}
				out = append(out, l)
			}
		}
	}
	return out, nil
}
