package hooks

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

const (
	page         = 256              // changes read at once
	maxParallel  = 64               // webhooks that are called at once
	maxOfSpace   = 2                // of them of one Space, whose targets may be slow on purpose
	maxAnswer    = 4 << 10          // bytes of an answer that are read
	pause        = 5 * time.Second  // after the database failed
	afterFailure = time.Second      // of a delivery, until the webhook's next one
	moveEvery    = 10 * time.Minute // the cursors of quiet webhooks are moved on
)

// delays are the times between a delivery's attempts.
func delays() []time.Duration {
	return []time.Duration{30 * time.Second, 2 * time.Minute, 10 * time.Minute, time.Hour}
}

// feed turns changes into deliveries until the context ends.
func (h *Hooks) feed(ctx context.Context) {
	move := time.NewTicker(moveEvery)
	defer move.Stop()
	for {
		spaces := h.bus.takeChanged()
		for _, w := range h.current() {
			if _, ok := spaces[w.Space]; !ok {
				continue
			}
			if err := h.collect(ctx, w); err != nil && ctx.Err() == nil {
				h.log.WarnContext(ctx, "webhook is not told of changes, trying again", "webhook", w.ID, "error", err)
				h.retry(ctx, w.Space)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-h.bus.news:
		case <-h.reload:
			if err := h.load(ctx); err != nil && ctx.Err() == nil {
				h.log.WarnContext(ctx, "webhooks of other processes are not known, trying again", "error", err)
				wait.For(ctx, pause)
				h.reload.Give()
			}
		case <-move.C:
			for _, w := range h.current() {
				h.bus.changedIn(w.Space)
			}
		}
	}
}

// retry has a Space looked at again in a while.
func (h *Hooks) retry(ctx context.Context, space tinycloud.SpaceID) {
	wait.For(ctx, pause)
	h.bus.changedIn(space)
}

func (h *Hooks) current() []*webhook {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]*webhook, 0, len(h.webhooks))
	for _, w := range h.webhooks {
		out = append(out, w)
	}
	return out
}

// collect stores a delivery for every change after the webhook's cursor. Its cursor is this goroutine's.
func (h *Hooks) collect(ctx context.Context, w *webhook) error {
	for {
		changes, next, more, err := h.o.Store.ChangesSince(ctx, []tinycloud.SpaceID{w.Space}, w.Cursor, page)
		if err != nil {
			return err
		}
		var ds []delivery
		for _, c := range changes {
			if w.scope.matches(c) {
				ds = append(ds, delivery{Event: eventID(c), Body: encode(c), Due: h.o.Now()})
			}
		}
		if len(ds) > 0 || next.Epoch-w.stored > scanAgain {
			dropped, err := h.rows().enqueue(ctx, w.ID, ds, next, h.o.Deliveries)
			if err != nil {
				return err
			}
			w.stored = next.Epoch
			if dropped > 0 {
				h.metrics.deliveries.WithLabelValues(outcomeDropped).Add(float64(dropped))
				h.log.WarnContext(ctx, "webhook is too slow, its oldest deliveries were dropped", "webhook", w.ID, "dropped", dropped)
			}
			h.kicked(w.ID)
		}
		if w.Cursor = next; !more {
			return nil
		}
	}
}

// scanAgain is how many epochs of other Spaces may have to be looked through again after a restart.
const scanAgain = 4096

// called is what came of calling a webhook.
type called struct {
	id    string
	space tinycloud.SpaceID
	next  time.Time // of its next delivery; zero: none
}

// schedule is when the webhooks are to be called.
type schedule struct {
	next map[string]time.Time // absent: to be looked at; zero: nothing to deliver
	busy map[string]bool      // being called; true: to be looked at afterwards
	of   map[tinycloud.SpaceID]int
}

// begun and ended count how many webhooks of a Space are being called.
func (s schedule) begun(space tinycloud.SpaceID) { s.of[space]++ }

func (s schedule) ended(space tinycloud.SpaceID) {
	if s.of[space]--; s.of[space] <= 0 {
		delete(s.of, space)
	}
}

// dispatch makes the deliveries that are due until the context ends, and then waits for those under way.
func (h *Hooks) dispatch(ctx context.Context) {
	s := schedule{map[string]time.Time{}, map[string]bool{}, map[tinycloud.SpaceID]int{}}
	done := make(chan called, maxParallel)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := h.o.Now()
		soon := h.start(s, now, func(w *webhook) {
			go func() { done <- called{w.ID, w.Space, h.call(ctx, w)} }()
		})
		timer.Stop()
		if !soon.IsZero() {
			timer.Reset(soon.Sub(now))
		}
		select {
		case <-ctx.Done():
			for range s.busy {
				<-done
			}
			return
		case c := <-done:
			if again := s.busy[c.id]; !again {
				s.next[c.id] = c.next
			}
			delete(s.busy, c.id)
			s.ended(c.space)
		case <-timer.C:
		case <-h.kick:
			for _, id := range h.takeKicked() {
				delete(s.next, id)
				if _, busy := s.busy[id]; busy {
					s.busy[id] = true
				}
			}
		}
	}
}

// start calls the webhooks that are due, as many as may be called at once, and returns when the next one
// is; zero for none.
func (h *Hooks) start(s schedule, now time.Time, call func(*webhook)) (soon time.Time) {
	for _, w := range h.current() {
		at, known := s.next[w.ID]
		_, busy := s.busy[w.ID]
		switch {
		case busy || len(s.busy) >= maxParallel || s.of[w.Space] >= maxOfSpace || (known && at.IsZero()):
		case !known || !at.After(now):
			s.busy[w.ID] = false
			delete(s.next, w.ID)
			s.begun(w.Space)
			call(w)
		case soon.IsZero() || at.Before(soon):
			soon = at
		}
	}
	return soon
}

// kicked has the dispatcher look at a webhook.
func (h *Hooks) kicked(id string) {
	h.mu.Lock()
	h.kicks[id] = struct{}{}
	h.mu.Unlock()
	h.kick.Give()
}

func (h *Hooks) takeKicked() (out []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id := range h.kicks {
		out = append(out, id)
	}
	clear(h.kicks)
	return out
}

// call makes the deliveries of a webhook that are due, one after the other, until one fails. It returns
// when to call again.
func (h *Hooks) call(ctx context.Context, w *webhook) time.Time {
	for {
		ds, err := h.rows().deliveries(ctx, w.ID, 1)
		now := h.o.Now()
		switch {
		case err != nil:
			if ctx.Err() == nil {
				h.log.WarnContext(ctx, "deliveries not read, trying again", "webhook", w.ID, "error", err)
			}
			return now.Add(pause)
		case len(ds) == 0:
			return time.Time{}
		case ds[0].Due.After(now):
			return ds[0].Due
		}
		ok, err := h.attempt(ctx, w, ds[0])
		switch {
		case errors.Is(err, tinycloud.ErrUnauthorized):
			h.finish(ctx, w, err)
			return time.Time{}
		case err != nil:
			if ctx.Err() == nil {
				h.log.WarnContext(ctx, "outcome of a delivery not stored, trying again", "webhook", w.ID, "error", err)
			}
			return now.Add(pause)
		case !ok:
			return h.o.Now().Add(afterFailure)
		}
	}
}

// finish ends a webhook whose registration rests on what was revoked.
func (h *Hooks) finish(ctx context.Context, w *webhook, why error) {
	if err := h.rows().end(ctx, w.ID); err != nil {
		h.log.WarnContext(ctx, "webhook not ended", "webhook", w.ID, "error", err)
		return
	}
	h.log.InfoContext(ctx, "webhook ended", "webhook", w.ID, "reason", why)
	h.remove(w.ID)
}

// attempt makes a delivery and stores its outcome. It reports whether it was accepted.
func (h *Hooks) attempt(ctx context.Context, w *webhook, d delivery) (ok bool, err error) {
	if _, err := h.o.Store.Standing(ctx, w.Proofs); err != nil {
		return false, err
	}
	failed := h.post(ctx, w, d)
	if ctx.Err() != nil {
		return false, ctx.Err() // the node stops: this was no attempt
	}
	if failed == nil {
		h.metrics.deliveries.WithLabelValues(outcomeDelivered).Inc()
		return true, h.rows().settle(ctx, []int64{d.Number}, nil)
	}
	d.Tries++
	if d.Tries > len(delays()) {
		h.metrics.deliveries.WithLabelValues(outcomeAbandoned).Inc()
		h.log.WarnContext(ctx, "delivery given up", "webhook", w.ID, "event", d.Event, "attempts", d.Tries, "error", failed)
		return false, h.rows().settle(ctx, []int64{d.Number}, nil)
	}
	h.metrics.deliveries.WithLabelValues(outcomeRetry).Inc()
	h.log.DebugContext(ctx, "delivery failed", "webhook", w.ID, "event", d.Event, "attempts", d.Tries, "error", failed)
	d.Due = h.o.Now().Add(delays()[d.Tries-1])
	return false, h.rows().settle(ctx, nil, []delivery{d})
}

// post sends a delivery. Only an answer of 2xx is no error.
func (h *Hooks) post(ctx context.Context, w *webhook, d delivery) error {
	secret, err := h.decrypt(w)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(d.Body))
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	m := hmac.New(sha256.New, secret)
	_, _ = m.Write(d.Body) // a hash takes everything
	id := tinycloud.Sum([]byte(w.ID + "/" + d.Event))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "tinycloud-peer")
	r.Header.Set("X-TinyCloud-Delivery-Id", hex.EncodeToString(id[:16]))
	r.Header.Set("X-TinyCloud-Event-Id", d.Event)
	r.Header.Set("X-TinyCloud-Subscription-Id", w.ID)
	r.Header.Set("X-TinyCloud-Signature", "sha256="+hex.EncodeToString(m.Sum(nil)))
	resp, err := h.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("answered with status %d", resp.StatusCode)
	}
	return nil
}
