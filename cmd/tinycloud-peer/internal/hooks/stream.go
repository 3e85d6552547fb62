package hooks

import (
	"context"
	"errors"
	"net/netip"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

const (
	heartbeat = 30 * time.Second
	maxBatch  = 256 // events written at once
)

// Stream is a subscription that a ticket opened.
type Stream struct {
	h       *Hooks
	sub     *subscriber
	wake    wait.Signal // of sub, also when that is another one
	silence *silence    // nil: the whole ticket was judged
	proofs  []tinycloud.Hash
	until   time.Time
	pos     capstore.Cursor // of what was sent
	head    *message        // taken from the queue
	leave   func()          // gives its place back
	lost    bool            // the event to go on from is unknown here
	beaten  bool            // there was a heartbeat
}

// Open begins a stream: after the event that the client saw last, or with the next one when it names none.
// Of Spaces that wait for their history it tells nothing before that is here, and then only if the ticket's invocation
// is found to permit it. from is what the client is counted by, zero for one that is not. The caller calls Run, then Close.
// Refusals are of class [tinycloud.ErrUnauthorized] or [tinycloud.ErrBusy].
func (h *Hooks) Open(ctx context.Context, ticket, lastEventID string, from netip.Addr) (*Stream, error) {
	c, err := h.open(ticket)
	if err != nil {
		return nil, err
	}
	s := &Stream{h: h, proofs: c.proofs(), until: time.UnixMilli(c.Expires), wake: wait.NewSignal()}
	if _, err := h.o.Store.Standing(ctx, s.proofs); err != nil {
		return nil, err
	}
	leave, ok := h.streams.enter(ticket, c.Scopes, from)
	if !ok {
		return nil, errManyStreams()
	}
	h.metrics.streams.Inc()
	s.leave = func() {
		leave()
		h.metrics.streams.Dec()
	}
	if err := s.start(ctx, c, lastEventID); err != nil {
		h.lift(s.silence)
		s.leave()
		return nil, err
	}
	return s, nil
}

// start subscribes to what may be told of now.
func (s *Stream) start(ctx context.Context, c claims, lastEventID string) error {
	loud, silence, err := s.h.hush(ctx, c, s.wake)
	if err != nil {
		return err
	}
	if s.silence = silence; silence != nil {
		if silence.from, err = s.h.o.Store.LatestChange(ctx); err != nil {
			return err
		}
	}
	if err := s.h.listen(ctx, loud); err != nil {
		return err
	}
	if s.pos, s.lost, err = s.h.begin(ctx, loud, lastEventID); err != nil {
		s.h.unlisten(loud)
		return err
	}
	s.sub = s.h.bus.subscribe(loud, s.h.o.Queue, s.pos, s.wake)
	return nil
}

// begin finds the place of an event, which may be of any of the Spaces.
func (h *Hooks) begin(ctx context.Context, scopes []Scope, lastEventID string) (from capstore.Cursor, lost bool, err error) {
	if epoch, index, ok := parseEventID(lastEventID); ok {
		for _, s := range scopes {
			c, found, err := h.o.Store.CursorOf(ctx, s.Space, epoch, index)
			if err != nil && !errors.Is(err, tinycloud.ErrNotFound) {
				return c, false, err
			}
			if err == nil && found {
				return c, false, nil
			}
		}
	}
	from, err = h.o.Store.LatestChange(ctx)
	return from, lastEventID != "", err
}

// Close ends the subscription.
func (s *Stream) Close() {
	s.h.bus.unsubscribe(s.sub)
	s.h.unlisten(s.sub.scopes)
	s.h.lift(s.silence)
	s.leave()
}

// listen has what the services of some scopes change be told from now on.
func (h *Hooks) listen(ctx context.Context, scopes []Scope) error {
	for i, x := range scopes {
		if err := h.o.Store.Listen(ctx, x.Space, x.Service, false); err != nil {
			h.unlisten(scopes[:i])
			return err
		}
	}
	return nil
}

func (h *Hooks) unlisten(scopes []Scope) {
	for _, x := range scopes {
		h.o.Store.Unlisten(x.Space, x.Service, false)
	}
}

// Run writes the events until the ticket ends, what it rests on is revoked or found not to permit it, the node stops,
// the context ends or writing fails, whose error it returns.
func (s *Stream) Run(ctx context.Context, write func([]byte) error) error {
	greeting := ": connected\n\n"
	if s.lost {
		greeting = ": unknown Last-Event-ID, events begin now\n\n"
	}
	if err := write([]byte(greeting)); err != nil {
		return err
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	expiry := time.NewTimer(s.until.Sub(s.h.o.Now()))
	defer expiry.Stop()
	for {
		if err := s.listen(ctx, s.beaten); err != nil {
			return ended(err)
		}
		s.beaten = false
		batch, events, again, err := s.next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if _, err := s.h.o.Store.Standing(ctx, s.proofs); err != nil {
			return ended(err)
		}
		if events > 0 {
			if err := write(batch); err != nil {
				return err
			}
			s.h.metrics.events.Add(float64(events))
		}
		if over, err := s.wait(ctx, beat.C, expiry.C, events > 0 || again, write); over {
			return err
		}
	}
}

// ended tells the end of a right, which ends a stream in order, from failures.
func ended(err error) error {
	if errors.Is(err, tinycloud.ErrUnauthorized) || errors.Is(err, tinycloud.ErrNotFound) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// wait returns when there may be something to send, at once when there is. It reports whether the stream
// is over.
func (s *Stream) wait(ctx context.Context, beat, expiry <-chan time.Time, ready bool, write func([]byte) error) (over bool, err error) {
	select {
	case <-expiry:
		return true, nil
	case <-s.h.ended:
		return true, nil
	case <-ctx.Done():
		return true, nil
	default:
	}
	if ready {
		return false, nil
	}
	select {
	case <-expiry:
		return true, nil
	case <-s.h.ended:
		return true, nil
	case <-ctx.Done():
		return true, nil
	case <-beat:
		s.beaten = true
		err := write([]byte(": heartbeat\n\n"))
		return err != nil, err
	case m := <-s.sub.queue:
		s.head = &m
	case <-s.sub.wake:
	}
	return false, nil
}

// next returns what can be sent without waiting: what was handed over, and when that is all and the stream
// is behind, a page of the database. It reports whether there may be more.
func (s *Stream) next(ctx context.Context) (batch []byte, events int, again bool, err error) {
	add := func(m message) {
		if m.cursor.Compare(s.pos) > 0 { // not yet read from the database
			batch, s.pos = append(batch, m.frame()...), m.cursor
			events++
		}
	}
	if s.head != nil {
		add(*s.head)
		s.head = nil
	}
	for events < maxBatch {
		select {
		case m := <-s.sub.queue:
			add(m)
			continue
		default:
		}
		break
	}
	behind, since := s.h.bus.position(s.sub)
	if events > 0 || !behind {
		return batch, events, behind, nil
	}
	if since.Compare(s.pos) > 0 {
		s.pos = since
	}
	changes, next, more, err := s.h.o.Store.ChangesSince(ctx, s.sub.spaces(), s.pos, maxBatch)
	if err != nil {
		return nil, 0, false, err
	}
	for _, c := range changes {
		if s.sub.matches(c) {
			batch = append(batch, frame(c)...)
			events++
		}
	}
	s.pos = next
	return batch, events, more || !s.h.bus.caughtUp(s.sub, next), nil
}
