package sql

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

const (
	// keepUpWithin is how long an open database lets what came lie, for more to come. With the time that it takes then it
	// is 50 ms.
	keepUpWithin = 25 * time.Millisecond
	// backShare is so much longer than a follow that went back the time until the next without a request, up to longestRest:
	// hosts that insert at old places all the time get a tenth of a core.
	backShare   = 9
	longestRest = 60 * time.Second
	// keptUpAtOnce is how many databases follow at once without a request.
	keptUpAtOnce = 2
	// maxListened is for how many databases goroutines wait at most to follow them because somebody listens to their Spaces.
	maxListened = 1024
)

// news are the Spaces in which something came, while somebody wants to know.
type news struct {
	given wait.Signal

	mu      sync.Mutex
	spaces  map[tinycloud.SpaceID]struct{} // nil: nobody wants to know
	replays []asked                        // one of a database at most
}

// ask asks for a replay. It is false if nobody listens.
func (n *news) ask(r asked) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.spaces == nil {
		return false
	}
	n.replays = append(n.replays, r)
	n.given.Give()
	return true
}

// begin has news be noted, end have them be no more.
func (n *news) begin() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.spaces = map[tinycloud.SpaceID]struct{}{}
}

func (n *news) end() (left []asked) {
	n.mu.Lock()
	defer n.mu.Unlock()
	left = n.replays
	n.spaces, n.replays = nil, nil
	return left
}

func (n *news) take() (spaces map[tinycloud.SpaceID]struct{}, replays []asked) {
	n.mu.Lock()
	defer n.mu.Unlock()
	spaces, replays = n.spaces, n.replays
	n.spaces, n.replays = map[tinycloud.SpaceID]struct{}{}, nil
	return spaces, replays
}

// Changed implements [service.Follower].
func (s *Service) Changed(space tinycloud.SpaceID) {
	s.news.mu.Lock()
	defer s.news.mu.Unlock()
	if s.news.spaces != nil {
		s.news.spaces[space] = struct{}{}
		s.news.given.Give()
	}
}

// Follow implements [service.Follower]: databases that are open are brought up to date without a request too, and closed when
// nobody has used them for a while; and what takes long is done aside.
func (s *Service) Follow(ctx context.Context, store service.Store) {
	s.news.begin()
	defer func() {
		for _, r := range s.news.end() {
			r.replay(ctx)
		}
	}()
	k := &keeper{
		s: s, store: store, turns: make(chan struct{}, keptUpAtOnce), openings: make(chan struct{}, 1), at: map[name]bool{},
		heard: map[tinycloud.SpaceID]map[string]state{},
	}
	defer k.group.Wait()
	k.listen(ctx, nil)
	tick := time.NewTicker(s.o.Idle / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.shutIdle()
			k.listen(ctx, nil)
			continue
		case <-s.news.given:
		}
		if !wait.For(ctx, keepUpWithin) {
			return
		}
		spaces, replays := s.news.take()
		for _, r := range replays {
			k.group.Go(func() { r.replay(ctx) })
		}
		for _, of := range s.openIn(spaces) {
			k.keepUp(ctx, of)
		}
		k.listen(ctx, spaces)
	}
}

// openIn are the databases of Spaces that are open.
func (s *Service) openIn(spaces map[tinycloud.SpaceID]struct{}) (all []name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for of := range s.open {
		if _, ok := spaces[of.space]; ok {
			all = append(all, of)
		}
	}
	return all
}

// keeper has databases follow without requests, each by one goroutine at a time.
type keeper struct {
	s     *Service
	store service.Store
	group sync.WaitGroup

	turns    chan struct{} // of those that are open
	openings chan struct{} // of those that are not: they may have much to follow

	mu    sync.Mutex
	at    map[name]bool                          // whether there is more to follow for those that are followed now
	heard map[tinycloud.SpaceID]map[string]state // up to where databases were followed whose Spaces are listened to
}

func (k *keeper) keepUp(ctx context.Context, of name) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, busy := k.at[of]; busy {
		k.at[of] = true
		return
	}
	k.at[of] = false
	k.group.Go(func() {
		for wait.For(ctx, k.once(ctx, of)) && k.more(of) {
		}
	})
}

// more reports whether there is more to follow for a database.
func (k *keeper) more(of name) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.at[of] {
		delete(k.at, of)
		return false
	}
	k.at[of] = false
	return true
}

// once has a database follow if it is open, or somebody listens to its Space, and returns for how long that should be enough.
func (k *keeper) once(ctx context.Context, of name) (rest time.Duration) {
	opens := !k.s.isOpen(of)
	if opens && !k.listened(of.space) {
		return 0
	}
	turns := k.turns
	if opens {
		turns = k.openings
	}
	select {
	case turns <- struct{}{}:
		defer func() { <-turns }()
	case <-ctx.Done():
		return 0
	}
	d := k.s.reuse(of)
	if d == nil && opens {
		d, _ = k.s.acquire(of) // else it is closing
	}
	if d == nil {
		return 0
	}
	defer k.s.unuse(d)
	if d.enter(ctx) != nil {
		return 0
	}
	defer d.leave()
	if d.db == nil && !opens {
		return 0
	}
	begin, went := time.Now(), d.back
	err := d.follow(ctx, k.store)
	switch {
	case err == nil && d.aside.Load() == nil:
		k.followed(of, d.at.at)
	case err != nil && ctx.Err() == nil && !errors.Is(err, tinycloud.ErrUnavailable):
		k.s.o.Log.WarnContext(ctx, "database does not follow its history", "space", of.space, "database", of.path, "error", err)
	}
	if took := time.Since(begin); d.back != went {
		rest = min(backShare*took, longestRest)
	}
	return rest
}

// listen has the databases follow that are not where the history is, of Spaces that somebody listens to: of all for nil.
func (k *keeper) listen(ctx context.Context, spaces map[tinycloud.SpaceID]struct{}) {
	all := k.store.ListenedSpaces(request.Service)
	k.hear(all, spaces == nil)
	for _, space := range all {
		if _, ok := spaces[space]; !ok && spaces != nil {
			continue
		}
		all := k.behind(ctx, space)
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] }) // some may be behind for ever
		for _, of := range all[:min(len(all), k.room())] {
			k.keepUp(ctx, of)
		}
	}
}

// room is for how many databases more goroutines may wait to follow them: the others are looked for again later.
func (k *keeper) room() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return max(0, maxListened-len(k.at))
}

// hear begins with Spaces; if they are all there are, it forgets the others.
func (k *keeper) hear(all []tinycloud.SpaceID, whole bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, space := range all {
		if k.heard[space] == nil {
			k.heard[space] = map[string]state{}
		}
	}
	if whole {
		maps.DeleteFunc(k.heard, func(space tinycloud.SpaceID, _ map[string]state) bool { return !slices.Contains(all, space) })
	}
}

func (k *keeper) listened(space tinycloud.SpaceID) bool {
	_, ok := k.store.Listened(space, request.Service)
	return ok
}

// behind are the databases of a Space that were not followed to where they are.
func (k *keeper) behind(ctx context.Context, space tinycloud.SpaceID) (all []name) {
	k.mu.Lock()
	at := maps.Clone(k.heard[space])
	k.mu.Unlock()
	err := k.store.States(ctx, space, request.Service, func(path string, b []byte) {
		if want, err := decodeState(b); err == nil && want != at[path] {
			all = append(all, name{space, path})
		}
	})
	if err != nil && ctx.Err() == nil && !errors.Is(err, tinycloud.ErrNotFound) {
		k.s.o.Log.WarnContext(ctx, "databases whose Space is listened to are not followed", "space", space, "error", err)
	}
	return all
}

// followed notes where a database has followed the history to.
func (k *keeper) followed(of name, at state) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if m := k.heard[of.space]; m != nil {
		m[of.path] = at
	}
}

// isOpen reports whether a database is in use.
func (s *Service) isOpen(of name) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[of] != nil
}

// reuse takes a database for use until it is released, if it is open. It doesn't count as used.
func (s *Service) reuse(of name) *database {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.open[of]
	if d != nil {
		d.refs++
	}
	return d
}

// unuse gives back what [Service.reuse] took.
func (s *Service) unuse(d *database) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveBack(d)
}
