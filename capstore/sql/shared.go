package sql

import (
	"context"
	"sync"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// Several processes on one server's database are one host, and each has files of its own. What one of them answered holds for
// all: it is in the history, and each looks there before it answers and when it writes. What is different from a process alone:
// what is in the history and was answered to nobody yet may have been seen through another process; and other processes' writes
// are never passed over, as those of other hosts may be for a while. Source: docs/decisions/sql.md, "Several processes".

// others reports whether another process of this host wrote the database in epochs beyond a row.
func (d *database) others(ctx context.Context, store service.Store, row int64) (bool, error) {
	if !store.Shared() {
		return false, nil
	}
	return store.OwnSince(ctx, d.of.space, request.Service, d.of.path, row)
}

// alone answers requests that made nothing, in a group without any that did. They were tried on what the history was before they
// came: if another process wrote since, they are tried again.
func (g *group) alone(ctx context.Context, store service.Store) error {
	if len(g.rest) == 0 {
		return nil
	}
	others, err := g.d.others(ctx, store, g.from.row)
	var again []*writing
	for _, r := range g.rest {
		again = r.settle(err == nil && !others, again)
	}
	g.d.queue.back(again)
	return err
}

// ahead are the states of the history that differ from what is shown by writes of who has the turn, which nobody of this process
// was answered yet.
type ahead struct {
	mu     sync.Mutex
	states map[state]bool
	kept   *keeping // of them; nil for none
}

// keeping is when the files have come to states of the history, or will not.
type keeping struct {
	done chan struct{}
	kept bool // read when done is closed
}

func (a *ahead) add(s state) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.states == nil {
		a.states = map[state]bool{}
	}
	if a.kept == nil {
		a.kept = &keeping{done: make(chan struct{})}
	}
	a.states[s] = true
}

// of is nil if a state is not among them.
func (a *ahead) of(s state) *keeping {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.states[s] {
		return nil
	}
	return a.kept
}

// clear forgets them. kept says that the files have come to all of them.
func (a *ahead) clear(kept bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.states)
	if a.kept != nil {
		a.kept.kept = kept
		close(a.kept.done)
		a.kept = nil
	}
}

// settled waits until the files have come to a state of the history that this process is about to answer for, if others may
// have seen it already. It reports whether they have.
func (d *database) settled(ctx context.Context, store service.Store, now state) (bool, error) {
	if !store.Shared() {
		return false, nil
	}
	k := d.ahead.of(now)
	if k == nil {
		return false, nil
	}
	select {
	case <-k.done:
		return k.kept, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// shows reports whether queries may see the files as they are, when the history is at a state: there is nothing in the
// history beyond them but writes that nobody was answered yet, or it is replayed aside. If other processes write too, somebody
// may have seen the former, and of the latter all is there that they wrote. settled says that the files have come to the state.
func (d *database) shows(ctx context.Context, store service.Store, now state, settled bool) (bool, error) {
	at := d.shown.Load()
	switch {
	case at == nil:
		return false, nil
	case at.at == now || settled:
		return true, nil
	case d.aside.Load() != nil:
		others, err := d.others(ctx, store, at.row)
		return !others, err
	}
	return !store.Shared() && d.ahead.of(now) != nil, nil
}
