package replication

import (
	"context"
	"errors"
	"fmt"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// mayShare reports whether so much is missing, and so many could give it, that it is worth to share it out, with a peer
// as the lead.
func (r *Replica) mayShare(lead *remote, missing int64, goal, have []hostlog.Tip) bool {
	if len(goal)+len(have) > tipsPerPage {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return missing >= r.shareFrom && r.leads(lead.host) && r.givers() >= 2
}

// givesWay reports whether a peer that is no lead is to wait, since there is much to share out and another may lead.
func (r *Replica) givesWay(m *remote, missing int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if missing < r.shareFrom || r.leads(m.host) || r.givers() < 2 {
		return false
	}
	for _, other := range r.remotes {
		if other.mayTakePart() && !other.synced && r.leads(other.host) {
			return true
		}
	}
	return false
}

// givers counts the peers that may give shares. r.mu is held.
func (r *Replica) givers() (n int) {
	for _, m := range r.remotes {
		if m.mayTakePart() && !r.offences.of(m.host) {
			n++
		}
	}
	return n
}

// leads reports whether a host's goal is one to share out: not for a while after that failed. r.mu is held.
func (r *Replica) leads(host hostlog.Key) bool {
	lately := func(at time.Time) bool { return !at.IsZero() && time.Since(at) <= shareAgain }
	return !r.offences.of(host) && !lately(r.alone) && !lately(r.seen[host].led)
}

// share brings everything here that the tips of a peer cover, beside its session, which may end before. done is called
// at the end: what is not here then is to be had with another lead, or from one peer after another.
func (r *Replica) share(lead *remote, goal, have []hostlog.Tip, e *early, missing int64, done func()) {
	spawned := r.spawn(func(ctx context.Context) {
		defer done()
		if err := r.shareOut(ctx, lead, goal, have, e, missing); err != nil && ctx.Err() == nil {
			r.log.InfoContext(ctx, "what is missing cannot be shared out", "lead", lead.id, "error", err)
			r.unled(lead, err)
		}
	})
	if !spawned {
		done()
	}
}

// unled notes that a sharing failed: of this lead, or when others would do no better, of any. The others are to try.
func (r *Replica) unled(lead *remote, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ours := errors.AsType[ownError](err)
	if ours || errors.Is(err, errEarly) || errors.Is(err, tinycloud.ErrBusy) {
		r.alone = time.Now()
		return
	}
	s := r.seen[lead.host]
	s.led = time.Now()
	r.seen[lead.host] = s
	for _, m := range r.remotes {
		m.due.Give()
	}
}

// shareOut has one sharing after another bring what a goal covers, each without the source that left something out of
// the one before: the lead's history has it first, in a range of that source.
func (r *Replica) shareOut(ctx context.Context, lead *remote, goal, have []hostlog.Tip, e *early, missing int64) error {
	began, without := time.Now(), map[hostlog.Key]bool{}
	var failed []*receipt
	defer func() { r.keepReceipts(failed) }()
	for range maxGivers {
		s := newSharing(r, lead, goal, have, e)
		s.began, s.without, s.before = began, without, failed
		err := r.runSharing(ctx, s, missing)
		switch {
		case errors.Is(err, errGap) && e.any():
			return errors.Join(errEarly, err)
		case err != nil && !errors.Is(err, errGap), err == nil && !s.whole():
			return err
		}
		var held bool
		if have, held, err = r.o.Store.Have(ctx, r.space, goal); err != nil {
			return own(err)
		}
		if !lacks(goal, have) {
			return nil
		}
		failed = append(failed, s.receipt)
		e, missing = newEarly(held), r.stillMissing()
	}
	return fmt.Errorf("too much was left out: %w", errNoShares)
}

// whole reports whether all came that the lead said the goal takes.
func (s *sharing) whole() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.turn && s.deal != nil && s.deal.end == s.receipt.last
}

// begin deals out what the lead has. Who left the first of it out of the sharing before is dismissed. s.mu is held.
func (s *sharing) begin(span *spanMessage) error {
	if len(s.before) > 0 {
		host, ok := s.before[len(s.before)-1].giver(span.First)
		if !ok || host == s.lead.host {
			return fmt.Errorf("what is missing was for the lead to give: %w", errNoShares)
		}
		s.without[host] = true
		for m, x := range s.givers {
			if m.host == host && !x.gone {
				s.dismiss(x, errGap)
			}
		}
	}
	s.deal, s.first = newPortions(span.First, span.Last, s.r.portion), time.Now()
	s.receipt.first, s.receipt.last = span.First, span.Last
	return nil
}
