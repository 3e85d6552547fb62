package capstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

// A Space that comes to be hosted here while other nodes are named may have a history that this host doesn't know: it
// is joining then. Nothing of it is answered as absent and nothing is written, until the history is here or it turns
// out that there is none. State and deadline are rows of the database, written with the delegation, so that all
// processes that share it agree. See docs/replication.md, "Joining".

const (
	joinTimeout = 10 * time.Second
	awaitOpen   = 2 * time.Second // that a request waits for the end of joining
	lookAgain   = 100 * time.Millisecond
)

var endings = []hostlog.Ending{hostlog.EndedByHistory, hostlog.EndedByLeast, hostlog.EndedByNone, hostlog.EndedByTime, hostlog.EndedByOperator}

// waiting is why a Space is not to be taken for an empty one.
type waiting struct {
	opens    int64 // see [space]
	restored bool
}

// joining is what is in memory of Spaces that wait for their history.
type joining struct {
	since int64       // deadlines are not before this process could ask for as long as it should
	wake  wait.Signal // of whoever opens Spaces in time

	mu     sync.RWMutex
	spaces map[tinycloud.SpaceID]waiting  // guarded by mu
	begun  map[tinycloud.SpaceID]struct{} // guarded by mu: likewise, by the transaction that runs
	opened chan struct{}                  // guarded by mu: closed, and another, when one waits no more
}

func newJoining() joining {
	return joining{
		wake: wait.NewSignal(), opened: make(chan struct{}),
		spaces: map[tinycloud.SpaceID]waiting{}, begun: map[tinycloud.SpaceID]struct{}{},
	}
}

func errJoining() error {
	return tinycloud.Refuse(tinycloud.ErrUnavailable, "The space is joining; retry when its history is here")
}

// nodesNamed reports whether nodes are named that may have the history of a Space.
func (s *Store) nodesNamed() bool {
	return s.o.Named != nil && s.o.Named() || !s.o.Unpaired && s.PairedCount() > 0
}

// firstState is that of a Space that comes to be hosted here without a write.
func (s *Store) firstState(asked askedJoin) string {
	switch {
	case asked.nothing:
		return StateSynced
	case len(asked.addrs) > 0 || s.nodesNamed():
		return StateJoining
	}
	return StateHosted
}

// startJoining sets the deadline of a Space that begins joining. Readers take it for joining before the transaction
// is durable.
func (t *tx) startJoining(sp *space) error {
	now, err := t.clock()
	if err != nil {
		return err
	}
	sp.opens = now + t.s.o.JoinTimeout.Milliseconds()
	t.s.joining.mu.Lock()
	defer t.s.joining.mu.Unlock()
	t.s.joining.begun[sp.id] = struct{}{}
	return nil
}

// forgetBegun is of a transaction that is undone.
func (t *tx) forgetBegun() {
	t.s.joining.mu.Lock()
	defer t.s.joining.mu.Unlock()
	clear(t.s.joining.begun)
}

// clock is the time that deadlines are told by, in unix milliseconds.
func (t *tx) clock() (int64, error) { return t.s.clock(t.ctx, t, t.now) }

func (s *Store) clock(ctx context.Context, q querier, now time.Time) (ms int64, err error) {
	if !s.db.Shared {
		return now.UnixMilli(), nil
	}
	_, err = q.One(ctx, []any{&ms}, "SELECT "+s.db.Clock)
	return ms, err
}

// deadline is when a Space opens by time, 0 for never. A file's only process has to have had the time to ask.
func (s *Store) deadline(opens int64) int64 {
	if opens == 0 {
		return 0
	}
	return max(opens, s.joining.since)
}

func (sp *space) setState(state string) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.state = state
}

// openSpace ends the joining of a Space.
func (t *tx) openSpace(sp *space, why hostlog.Ending) {
	state := StateSynced
	if why == hostlog.EndedByNone || why == hostlog.EndedByTime {
		state = StateHosted // no other host was met
	}
	sp.setState(state)
	sp.opens = 0
	t.touch(sp).Opened = true
	t.ended = append(t.ended, ended{sp.id, why})
}

// ended is a Space whose joining a transaction ends.
type ended struct {
	space tinycloud.SpaceID
	why   hostlog.Ending
}

// othersHere reports whether a part of another host's log is here.
func (sp *space) othersHere() bool {
	return sp.parked.entries+sp.parked.noted > 0 ||
		slices.ContainsFunc(sp.branches, func(b *branch) bool { return b.host != sp.host })
}

// tips are those of [Store.Tips].
func (sp *space) tips() []hostlog.Tip {
	var tips []hostlog.Tip
	for _, b := range sp.branches {
		tips = append(tips, hostlog.Tip{Host: b.host, N: b.n, Digest: b.digest})
	}
	sortTips(tips)
	return tips
}

func sortTips(tips []hostlog.Tip) {
	slices.SortFunc(tips, func(a, b hostlog.Tip) int {
		return cmp.Or(slices.Compare(a.Host[:], b.Host[:]), cmp.Compare(a.N, b.N), slices.Compare(a.Digest[:], b.Digest[:]))
	})
}

// EndJoin ends the joining of a Space if that is still right: by [EndedByLeast] if its logs have the given tips, by
// [EndedByNone] while nothing of another host is here, by [EndedByTime] likewise and after the deadline. It reports
// whether it did. One that was restored from a backup opens by history, as the least, or by the operator.
func (s *Store) EndJoin(ctx context.Context, id tinycloud.SpaceID, why hostlog.Ending, tips []hostlog.Tip) (did bool, err error) {
	err = s.do(ctx, func(t *tx) error {
		did = false
		sp, err := t.space(id)
		if err != nil || !sp.waits() {
			return err
		}
		switch why {
		case hostlog.EndedByNone, hostlog.EndedByTime:
			if sp.state != StateJoining || sp.othersHere() {
				return nil
			}
		case hostlog.EndedByLeast:
			if !slices.Equal(sp.tips(), tips) {
				return nil
			}
		}
		if why == hostlog.EndedByTime {
			now, err := t.clock()
			if at := s.deadline(sp.opens); err != nil || at == 0 || now < at {
				return err
			}
		}
		t.openSpace(sp, why)
		did = true
		return nil
	})
	return did, err
}

// Synced ends the joining of a Space: the history of another host was taken over whole.
func (s *Store) Synced(ctx context.Context, id tinycloud.SpaceID) error {
	_, err := s.EndJoin(ctx, id, hostlog.EndedByHistory, nil)
	return err
}

// Joining reports whether a Space still waits for the history of its other hosts.
func (s *Store) Joining(ctx context.Context, id tinycloud.SpaceID) (bool, error) {
	if _, err := s.sid(ctx, id); err != nil {
		return false, err
	}
	if err := s.fresh(ctx); err != nil {
		return false, err
	}
	_, waits := s.waits(id)
	return waits, nil
}

// JoinBegan is about when a Space began joining, zero when that was long ago or it is not.
func (s *Store) JoinBegan(id tinycloud.SpaceID) time.Time {
	w, _ := s.waits(id)
	if at := s.deadline(w.opens); at > 0 {
		return time.UnixMilli(at).Add(-s.o.JoinTimeout)
	}
	return time.Time{}
}

// Restored reports whether a Space waits for its history because it was restored from a backup.
func (s *Store) Restored(id tinycloud.SpaceID) bool {
	w, _ := s.waits(id)
	return w.restored
}

func (s *Store) waits(id tinycloud.SpaceID) (w waiting, waits bool) {
	s.joining.mu.RLock()
	defer s.joining.mu.RUnlock()
	if _, begun := s.joining.begun[id]; begun {
		return waiting{}, true
	}
	w, waits = s.joining.spaces[id]
	return w, waits
}

// Ready returns nil when this process knows of all Spaces that any process made durable before the call.
func (s *Store) Ready(ctx context.Context) error {
	select {
	case <-s.gone:
		return fmt.Errorf("database: closing: %w", tinycloud.ErrUnavailable)
	default:
		return s.fresh(ctx)
	}
}

// AnyJoining reports whether some Space here waits for its history.
func (s *Store) AnyJoining() bool {
	s.joining.mu.RLock()
	defer s.joining.mu.RUnlock()
	return len(s.joining.spaces)+len(s.joining.begun) > 0
}

// JoiningSpaces are the Spaces here that wait for their history, in no order.
func (s *Store) JoiningSpaces() []tinycloud.SpaceID {
	s.joining.mu.RLock()
	defer s.joining.mu.RUnlock()
	out := make([]tinycloud.SpaceID, 0, len(s.joining.spaces))
	for id := range s.joining.spaces {
		out = append(out, id)
	}
	return out
}

// opensAt is when a Space opens by time, zero for never.
func (s *Store) opensAt(sp *space) time.Time {
	if at := s.deadline(sp.opens); sp.state == StateJoining && at > 0 && !sp.othersHere() {
		return time.UnixMilli(at)
	}
	return time.Time{}
}

// learnWaiting reads which Spaces wait for their history.
func (s *Store) learnWaiting(ctx context.Context, q querier) error {
	found := map[tinycloud.SpaceID]waiting{}
	err := q.Each(ctx, func(scan db.Scan) error {
		var text, state string
		var w waiting
		if err := scan(&text, &state, &w.opens); err != nil {
			return err
		}
		id, err := tinycloud.ParseSpaceID(text)
		w.restored = state == stateRestored
		found[id] = w
		return err
	}, "SELECT space, state, opens FROM spaces WHERE state IN (?, ?)", StateJoining, stateRestored)
	if err != nil {
		return err
	}
	j := &s.joining
	j.mu.Lock()
	defer j.mu.Unlock()
	for id := range j.spaces {
		if _, waits := found[id]; !waits {
			j.announce()
			break
		}
	}
	j.spaces = found
	j.wake.Give()
	return nil
}

// announce tells those who wait that a Space may have opened. j.mu is held.
func (j *joining) announce() {
	close(j.opened)
	j.opened = make(chan struct{})
}

// noteWaiting remembers which of the transaction's Spaces wait for their history; it is durable.
func (t *tx) noteWaiting() {
	j, opened := &t.s.joining, false
	j.mu.Lock()
	defer j.mu.Unlock()
	clear(j.begun)
	for _, sp := range t.order {
		_, waited := j.spaces[sp.id]
		switch {
		case sp.waits():
			if !waited {
				t.s.log.InfoContext(t.ctx, "space begins joining", "space", sp.id, "deadline", t.s.opensAt(sp))
				j.wake.Give()
			}
			j.spaces[sp.id] = waiting{opens: sp.opens, restored: sp.state == stateRestored}
		case waited:
			delete(j.spaces, sp.id)
			opened = true
		}
	}
	for _, e := range t.ended {
		t.s.metrics.joined.WithLabelValues(string(e.why)).Inc()
		t.s.log.InfoContext(t.ctx, "space is joining no more", "space", e.space, "by", e.why)
	}
	if opened {
		j.announce()
	}
}

// Present refuses a Space that waits for the history of its other hosts, so that it is not taken for an empty one
// (docs/replication.md, "Joining"): the error is of class [tinycloud.ErrUnavailable]. A Space whose time is over
// opens. Of one that is not hosted it says nothing.
func (s *Store) Present(ctx context.Context, id tinycloud.SpaceID) error {
	s.mu.RLock()
	_, ok := s.settled[id]
	s.mu.RUnlock()
	if ok {
		return nil
	}
	if err := s.fresh(ctx); err != nil {
		return err
	}
	w, waits := s.waits(id)
	if !waits {
		return s.settle(ctx, id)
	}
	if w.restored {
		if yes, err := written(ctx, s.db.Read, s.number(id)); err != nil || yes {
			return err
		}
		return errJoining()
	}
	left, ends, err := s.left(ctx, w)
	if err != nil {
		return err
	}
	if !ends || left > 0 {
		return errJoining()
	}
	if did, err := s.EndJoin(ctx, id, hostlog.EndedByTime, nil); err != nil || did {
		return err
	}
	if _, waits := s.waits(id); waits {
		return errJoining()
	}
	return nil
}

// settle remembers that a Space will not join any more. Only other processes make that worth a query.
func (s *Store) settle(ctx context.Context, id tinycloud.SpaceID) error {
	sid := s.number(id)
	if !s.db.Shared || sid == 0 {
		return nil
	}
	var state string
	if _, err := s.db.Read.One(ctx, []any{&state}, "SELECT state FROM spaces WHERE sid = ?", sid); err != nil {
		return err
	}
	switch state {
	case StateJoining:
		return errJoining()
	case StateHosted:
		if yes, err := written(ctx, s.db.Read, sid); err != nil || !yes {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled[id] = struct{}{}
	return nil
}

// left is the time until a Space opens; ends is false when time does not open it.
func (s *Store) left(ctx context.Context, w waiting) (d time.Duration, ends bool, err error) {
	at := s.deadline(w.opens)
	if at == 0 {
		return 0, false, nil
	}
	now, err := s.clock(ctx, s.db.Read, s.o.Now())
	return time.Duration(at-now) * time.Millisecond, err == nil, err
}

// AwaitPresent waits up to two seconds for [Store.Present] to refuse a Space no more, and returns its refusal else.
func (s *Store) AwaitPresent(ctx context.Context, id tinycloud.SpaceID) error {
	limit := time.NewTimer(s.patience)
	defer limit.Stop()
	for {
		s.joining.mu.RLock()
		opened := s.joining.opened
		s.joining.mu.RUnlock()
		err := s.Present(ctx, id)
		w, waits := s.waits(id)
		switch {
		case err != nil && !waits && isRefusal(err, tinycloud.ErrUnavailable):
			continue // it opened after that was found
		case err == nil || !waits:
			return err
		}
		again := s.lookAfter(w)
		select {
		case <-opened:
		case <-again.C:
		case <-limit.C:
			return err
		case <-ctx.Done():
			return err
		}
		again.Stop()
	}
}

// lookAfter is a timer for the next look at a Space that waits: other processes tell nobody here in time.
func (s *Store) lookAfter(w waiting) *time.Timer {
	d := lookAgain
	if !s.db.Shared {
		d = s.patience
		if at := s.deadline(w.opens); at > 0 {
			d = max(time.Millisecond, time.UnixMilli(at).Sub(s.o.Now()))
		}
	}
	return time.NewTimer(d)
}

// Obstacles returns the joining Spaces that a delegation has to wait for before it is accepted: all it names but
// those that it makes this node a host of.
func (s *Store) Obstacles(tok *Token) []tinycloud.SpaceID {
	var out []tinycloud.SpaceID
	for _, id := range tok.Places() {
		if w, waits := s.waits(id); waits && !w.restored && !s.hostsHere(tok, id) {
			out = append(out, id)
		}
	}
	return out
}

// hostsHere reports whether a delegation makes this node a host of a Space.
func (s *Store) hostsHere(tok *Token, id tinycloud.SpaceID) bool {
	host, ok := hostlog.KeyOf(tok.Audience)
	return ok && tok.HostsSpace(id) && host == s.hostKey(id)
}

// present refuses to add to a Space that is joining.
func (t *tx) present(id tinycloud.SpaceID) error {
	if !t.s.Hosted(id) {
		return nil // it is refused as such
	}
	sp, err := t.space(id)
	if err == nil && sp.state == StateJoining {
		return errJoining()
	}
	return err
}
