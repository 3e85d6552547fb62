package hooks

import (
	"slices"
	"sync"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

// bus hands changes to subscribers. Publishing never waits for one.
type bus struct {
	metrics *metrics

	mu      sync.Mutex
	last    capstore.Cursor // of the changes handed out
	group   []capstore.Commit
	subs    map[tinycloud.SpaceID]map[*subscriber]struct{}
	watched map[tinycloud.SpaceID]int      // Spaces with webhooks, and how many
	changed map[tinycloud.SpaceID]struct{} // those of them with news
	news    wait.Signal                    // changed is not empty
	silent  map[tinycloud.SpaceID]map[*opening]struct{}
}

// opening is what a silent stream waits for: that a Space waits for its history no more.
type opening struct {
	space tinycloud.SpaceID
	wake  wait.Signal

	// Guarded by the bus's mu.
	over bool
	at   capstore.Cursor // of the last change before
}

func newBus(m *metrics) *bus {
	return &bus{
		metrics: m, subs: map[tinycloud.SpaceID]map[*subscriber]struct{}{}, watched: map[tinycloud.SpaceID]int{},
		changed: map[tinycloud.SpaceID]struct{}{}, news: wait.NewSignal(),
		silent: map[tinycloud.SpaceID]map[*opening]struct{}{},
	}
}

// message is a change on its way to streams, which share its encoding.
type message struct {
	cursor capstore.Cursor
	frame  func() []byte
}

// subscriber is a stream's end of the bus.
type subscriber struct {
	scopes []Scope
	queue  chan message
	wake   wait.Signal // it is behind, or a delegation was revoked

	// Guarded by the bus's mu. Behind, it is handed nothing until it has read from the database what comes
	// after since, at least up to missed.
	behind        bool
	since, missed capstore.Cursor
}

func (s *subscriber) matches(c capstore.Change) bool {
	return slices.ContainsFunc(s.scopes, func(x Scope) bool { return x.matches(c) })
}

func (s *subscriber) spaces() []tinycloud.SpaceID { return spacesOf(s.scopes) }

// spacesOf are the Spaces of some scopes, each once.
func spacesOf(scopes []Scope) (out []tinycloud.SpaceID) {
	for _, x := range scopes {
		if !slices.Contains(out, x.Space) {
			out = append(out, x.Space)
		}
	}
	return out
}

// subscribe adds a subscriber that is behind: it begins after a cursor.
func (b *bus) subscribe(scopes []Scope, queue int, from capstore.Cursor, wake wait.Signal) *subscriber {
	s := &subscriber{scopes: scopes, queue: make(chan message, queue), wake: wake, behind: true, since: from}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, space := range s.spaces() {
		if b.subs[space] == nil {
			b.subs[space] = map[*subscriber]struct{}{}
		}
		b.subs[space][s] = struct{}{}
	}
	return s
}

func (b *bus) unsubscribe(s *subscriber) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, space := range s.spaces() {
		if delete(b.subs[space], s); len(b.subs[space]) == 0 {
			delete(b.subs, space)
		}
	}
}

// await tells of the end of a Space's joining from now on.
func (b *bus) await(space tinycloud.SpaceID, wake wait.Signal) *opening {
	o := &opening{space: space, wake: wake}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.silent[space] == nil {
		b.silent[space] = map[*opening]struct{}{}
	}
	b.silent[space][o] = struct{}{}
	return o
}

func (b *bus) unawait(o *opening) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if delete(b.silent[o.space], o); len(b.silent[o.space]) == 0 {
		delete(b.silent, o.space)
	}
}

// opened returns the last change before the end of a joining, if that has come.
func (b *bus) opened(o *opening) (at capstore.Cursor, over bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return o.at, o.over
}

// publish hands out a transaction when its last commit is known, for subscribers may have several Spaces.
func (b *bus) publish(c capstore.Commit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.LastWrite != (capstore.Cursor{}) || c.Ended > 0 || c.Opened {
		b.group = append(b.group, c)
	}
	if c.More || len(b.group) == 0 {
		return
	}
	group := b.group
	b.group = nil
	var changes []capstore.Change
	for _, c := range group {
		changes = append(changes, c.Writes...)
		b.notify(c)
	}
	if len(group) > 1 {
		slices.SortFunc(changes, func(x, y capstore.Change) int { return x.Cursor.Compare(y.Cursor) })
	}
	before := b.last
	for _, c := range changes {
		b.hand(c, before)
	}
	for _, c := range group {
		if n := len(c.Writes); n > 0 && c.Writes[n-1].Cursor != c.LastWrite {
			for s := range b.subs[c.Space] {
				b.lag(s, before, c.LastWrite)
			}
		}
		if c.LastWrite.Compare(b.last) > 0 {
			b.last = c.LastWrite
		}
	}
	for _, c := range group {
		if !c.Opened {
			continue
		}
		for o := range b.silent[c.Space] {
			o.over, o.at = true, b.last
			o.wake.Give()
		}
	}
}

// heeds reports whether anybody has a use for the changes of a Space. Who has none yet reads them when he comes.
func (b *bus) heeds(space tinycloud.SpaceID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subs[space]) > 0 || len(b.silent[space]) > 0
}

// notify tells whom a commit concerns as a whole.
func (b *bus) notify(c capstore.Commit) {
	if c.LastWrite != (capstore.Cursor{}) && b.watched[c.Space] > 0 {
		b.changed[c.Space] = struct{}{}
		b.news.Give()
	}
	if c.Ended == 0 {
		return
	}
	for _, subs := range b.subs { // they may rest on a delegation of another Space
		for s := range subs {
			s.wake.Give()
		}
	}
	for _, openings := range b.silent {
		for o := range openings {
			o.wake.Give()
		}
	}
}

func (b *bus) hand(c capstore.Change, before capstore.Cursor) {
	m := message{c.Cursor, sync.OnceValue(func() []byte { return frame(c) })}
	for s := range b.subs[c.Space] {
		if !s.matches(c) {
			continue
		}
		if !s.behind {
			select {
			case s.queue <- m:
				continue
			default:
			}
		}
		b.lag(s, before, c.Cursor)
	}
}

// lag makes a subscriber read from the database, at least up to a cursor. It was handed all up to before.
func (b *bus) lag(s *subscriber, before, missed capstore.Cursor) {
	if !s.behind {
		s.behind, s.since = true, before
		b.metrics.lagged.Inc()
	}
	if missed.Compare(s.missed) > 0 {
		s.missed = missed
	}
	s.wake.Give()
}

// position returns from where a subscriber that is behind has to read.
func (b *bus) position(s *subscriber) (behind bool, since capstore.Cursor) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return s.behind, s.since
}

// caughtUp says that a subscriber has read all up to a cursor. It reports whether it is handed changes
// again.
func (b *bus) caughtUp(s *subscriber, upTo capstore.Cursor) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.since = upTo
	s.behind = s.missed.Compare(upTo) > 0
	return !s.behind
}

// watch counts the webhooks of a Space.
func (b *bus) watch(space tinycloud.SpaceID, by int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.watched[space] += by
	if b.watched[space] <= 0 {
		delete(b.watched, space)
		delete(b.changed, space)
		return
	}
	b.changed[space] = struct{}{}
	b.news.Give()
}

// changedIn has the webhooks of a Space look for changes.
func (b *bus) changedIn(space tinycloud.SpaceID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.watched[space] > 0 {
		b.changed[space] = struct{}{}
		b.news.Give()
	}
}

// takeChanged returns the Spaces with webhooks that have news.
func (b *bus) takeChanged() map[tinycloud.SpaceID]struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.changed
	b.changed = map[tinycloud.SpaceID]struct{}{}
	return out
}
