package hooks

import (
	"context"
	"errors"
	"slices"
	"sync"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

// A ticket may be given while a Space waits for its history, when nobody can tell yet whether the right to listen is
// held: clients answer a refusal by asking again at once. The part of the stream that is about that Space is silent
// until the history is here; then it is judged. What the history brought is not told of.

// silence is what of a stream's ticket is not judged yet.
type silence struct {
	token  *capstore.Token
	scopes []Scope // those of the Spaces that are waited for
	waits  []*opening
	from   capstore.Cursor // of the last change before the stream began
	leave  func()          // gives its place among the strangers back; nil: it has none
}

// strangers counts the silent streams of whom nobody can tell whether they may listen. They leave room for others, and
// those of one Space for those of others.
type strangers struct {
	most, mostOfSpace int

	mu  sync.Mutex
	all int                       // guarded by mu
	of  map[tinycloud.SpaceID]int // guarded by mu
}

func newStrangers(streams, perSpace int) *strangers {
	return &strangers{most: max(1, streams/2), mostOfSpace: max(1, min(streams/8, perSpace/2)), of: map[tinycloud.SpaceID]int{}}
}

// enter takes a place; ok is false when there is none.
func (s *strangers) enter(space tinycloud.SpaceID) (leave func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= s.most || s.of[space] >= s.mostOfSpace {
		return nil, false
	}
	s.all++
	s.of[space]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all--
		if s.of[space]--; s.of[space] == 0 {
			delete(s.of, space)
		}
	}, true
}

// asked is the part of an invocation that is about listening in a scope's Space.
func (s Scope) asked(t *capstore.Token) *capstore.Token {
	part := *t
	part.Caps = slices.DeleteFunc(slices.Clone(t.Caps), func(c capstore.Capability) bool {
		return c.Ability != AbilitySubscribe || c.Resource.Space() != s.Space
	})
	return &part
}

// entitled is nil when the right to listen is held, a refusal of class [tinycloud.ErrUnavailable] while that can't be
// told, and another error when it is not held. What a proof that is not here would say may be told by any Space of the
// invocation.
func (h *Hooks) entitled(ctx context.Context, t *capstore.Token, s Scope) error {
	err := h.o.Store.Entitled(ctx, s.asked(t))
	if errors.Is(err, tinycloud.ErrUnauthorized) {
		if all := h.o.Store.Entitled(ctx, t); errors.Is(all, tinycloud.ErrUnavailable) {
			return all
		}
	}
	return err
}

// hush sorts out which scopes of a ticket can be told of now. wake is signalled when that may have changed; the caller
// calls lift in the end.
func (h *Hooks) hush(ctx context.Context, c claims, wake wait.Signal) (loud []Scope, q *silence, err error) {
	if c.Token == "" {
		return c.Scopes, nil, nil
	}
	t, err := capstore.ParseInvocation(c.Token)
	if err != nil {
		return nil, nil, err
	}
	began := &silence{token: t}
	defer func() {
		if err != nil {
			h.lift(began)
		}
	}()
	stranger := tinycloud.SpaceID{}
	for _, s := range c.Scopes {
		o := h.bus.await(s.Space, wake) // before it is judged, so that nothing is missed
		switch err := h.entitled(ctx, t, s); {
		case err == nil:
			h.bus.unawait(o)
			loud = append(loud, s)
		case errors.Is(err, tinycloud.ErrUnavailable):
			began.scopes, began.waits = append(began.scopes, s), append(began.waits, o)
			if !h.o.Store.Proven(ctx, s.asked(t)) {
				stranger = s.Space
			}
		default:
			h.bus.unawait(o)
			return nil, nil, err
		}
	}
	if !stranger.IsZero() {
		ok := false
		if began.leave, ok = h.strangers.enter(stranger); !ok {
			return nil, nil, errManyStreams()
		}
	}
	if len(began.scopes) == 0 {
		return loud, nil, nil
	}
	return loud, began, nil
}

// lift ends what hush began.
func (h *Hooks) lift(q *silence) {
	if q == nil {
		return
	}
	for _, o := range q.waits {
		h.bus.unawait(o)
	}
	q.scopes, q.waits = nil, nil
	if q.leave != nil {
		q.leave()
		q.leave = nil
	}
}

// listen judges what could not be told of before, once a Space waits no more or when it is told to, and adds what may be
// heard. The error is that of a judgement that denies it.
func (s *Stream) listen(ctx context.Context, now bool) error {
	q := s.silence
	if q == nil || !now && !slices.ContainsFunc(q.waits, func(o *opening) bool { _, over := s.h.bus.opened(o); return over }) {
		return nil
	}
	var loud []Scope
	for i := 0; i < len(q.scopes); {
		scope := q.scopes[i]
		switch err := s.h.entitled(ctx, q.token, scope); {
		case errors.Is(err, tinycloud.ErrUnavailable):
			i++
			continue
		case err != nil:
			return err
		}
		at, over := s.h.bus.opened(q.waits[i])
		if !over { // it did not wait itself, or its end was missed
			var err error
			if at, err = s.h.o.Store.LatestChange(ctx); err != nil {
				return err
			}
		}
		if scope.after = q.from; at.Compare(q.from) > 0 {
			scope.after = at
		}
		loud = append(loud, scope)
		s.h.bus.unawait(q.waits[i])
		q.scopes, q.waits = slices.Delete(q.scopes, i, i+1), slices.Delete(q.waits, i, i+1)
	}
	if len(loud) > 0 {
		if err := s.h.listen(ctx, loud); err != nil {
			return err
		}
		s.add(loud)
	}
	if len(q.scopes) == 0 {
		s.h.lift(q)
		s.silence = nil
	}
	return nil
}

// add goes on with more scopes: of those it had after what was sent, of the new ones after what they are not to tell,
// which may be before that. What was handed over and not sent is read from the database.
func (s *Stream) add(loud []Scope) {
	scopes := slices.Clone(s.sub.scopes)
	for i := range scopes {
		if s.pos.Compare(scopes[i].after) > 0 {
			scopes[i].after = s.pos
		}
	}
	first := slices.MinFunc(loud, func(a, b Scope) int { return a.after.Compare(b.after) }).after
	if len(scopes) == 0 || first.Compare(s.pos) < 0 {
		s.pos = first
	}
	s.h.bus.unsubscribe(s.sub)
	s.head = nil
	s.sub = s.h.bus.subscribe(append(scopes, loud...), s.h.o.Queue, s.pos, s.wake)
}

func errManyStreams() error {
	return tinycloud.Refuse(tinycloud.ErrBusy, "too many active hook streams")
}
