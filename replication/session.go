package replication

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	roundEvery   = 60 * time.Second      // between comparisons, ± 50 %
	secondRound  = 2 * time.Second       // until the second, ± 50 %: what is written while two hosts meet may be missed by the first, and by gossip
	roundSpacing = 50 * time.Millisecond // between rounds that gaps ask for; twice that after each that brought nothing
	maxSpacing   = 5 * time.Second
)

// MaxSkew is how far a host's clock may be from ours before the operator is told.
const MaxSkew = 60 * time.Second

// session compares and catches up with a peer for as long as it is connected.
func (r *Replica) session(ctx context.Context, m *remote) {
	ctx, end := r.scoped(ctx, m)
	defer end()
	defer m.haveOwn()
	defer m.compared()
	r.log.InfoContext(ctx, "host connected", "peer", m.id)
	r.met(ctx, m.id, nil)
	if err := r.o.Store.Hurry(ctx, r.space); err != nil && ctx.Err() == nil {
		r.log.WarnContext(ctx, "cannot hurry what is wanted", "error", err)
	}
	r.wants.wake.Give()
	expiry := time.NewTimer(r.untilExpiry(m))
	defer expiry.Stop()
	timer, next := time.NewTimer(0), time.Now()
	defer timer.Stop()
	after := func(d time.Duration) {
		next = time.Now().Add(d)
		timer.Reset(d)
	}
	met := time.Now()
	nextRound := func() time.Duration {
		if time.Since(met) < secondRound/2 {
			return around(secondRound)
		}
		return around(roundEvery)
	}
	failures, vain, looks := 0, 0, 0
	var began time.Time
	for {
		pull := m.pull
		if failures > 0 {
			pull = nil // what failed is tried again later, whoever asks
		}
		select {
		case <-ctx.Done():
			r.log.InfoContext(ctx, "host disconnected", "peer", m.id)
			return
		case <-expiry.C:
			if left := r.untilExpiry(m); left > 0 {
				expiry.Reset(left) // renewed
				continue
			}
			r.log.InfoContext(ctx, "host delegation expired", "peer", m.id)
			r.net.Peer.Evict(m.id)
			return
		case <-m.calm:
			after(nextRound())
			continue
		case <-pull:
			if at := began.Add(spacing(vain)); at.Before(next) {
				after(time.Until(at))
			}
			continue
		case <-m.due:
		case <-timer.C:
		}
		began, m.brought = time.Now(), 0
		if r.visit(ctx, m) {
			failures = 0
			if r.isJoining() { // whether the peer still is, it tells only who asks
				after(joinRound(looks))
				looks++
			} else {
				after(nextRound())
			}
		} else {
			failures++
			after(backoff(failures, roundEvery))
		}
		if vain++; m.brought > 0 {
			vain = 0
		}
	}
}

// spacing is the time between rounds that gaps ask for, after so many that brought nothing: what two hosts
// claim to have may be parked on the other side for minutes, or not fit.
func spacing(vain int) time.Duration { return min(maxSpacing, roundSpacing<<min(vain, 10)) }

// visit runs a round and, when something changed, exchanges addresses.
func (r *Replica) visit(ctx context.Context, m *remote) bool {
	_, err := r.round(ctx, m)
	switch {
	case err == nil:
		r.saw(ctx, m)
	case ctx.Err() != nil:
		return false
	case errors.Is(err, errWait):
		return true // woken when it is its turn
	case errors.Is(err, errTurn):
		m.due.Give()
		return true
	default:
		r.judge(ctx, m, err)
		return false
	}
	if err := r.exchange(ctx, m); err != nil && ctx.Err() == nil {
		r.judge(ctx, m, err)
	}
	return true
}

// around is a time ± 50 %, by chance.
func around(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.5 + rand.Float64()))
}

// backoff doubles from a second to most, less up to a half of it by chance.
func backoff(failures int, most time.Duration) time.Duration {
	return jitter(min(most, time.Second<<min(failures-1, 16)))
}

// jitter returns d, less up to a half of it by chance.
func jitter(d time.Duration) time.Duration { return d - time.Duration(rand.Int64N(int64(d/2))) }

func (r *Replica) untilExpiry(m *remote) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.expires.IsZero() {
		return 1 << 62
	}
	return time.Until(m.expires)
}

// gap asks for a round with a peer: it has something that is not here.
func (r *Replica) gap(m *remote) {
	r.mu.Lock()
	m.synced = false
	r.mu.Unlock()
	m.pull.Give()
}

// quiet puts the next round with a peer off, whose own round found no difference.
func (r *Replica) quiet(m *remote) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.markEqualLocked(m)
	if !r.joining { // a joining host has to hear the state of its peers itself
		m.calm.Give()
	}
}

// equal notes that everything a peer had is here, and whether it was joining then.
func (r *Replica) equal(ctx context.Context, m *remote, joining bool) {
	r.mu.Lock()
	r.markEqualLocked(m)
	m.whole, m.joins, m.held = true, joining, m.told
	was, first := r.joining, !r.agreed
	r.agreed = true
	r.mu.Unlock()
	if first {
		r.log.InfoContext(ctx, "in sync with a host", "peer", m.id)
	}
	if was {
		r.consider(ctx)
	}
}

// turn lets one stream at a time catch the Space up, so that nothing is sent twice.
func (r *Replica) turn(m *remote) (end func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.turnOf != nil {
		r.waiting[m] = struct{}{}
		return nil, errWait
	}
	r.turnOf = m
	return sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.turnOf = nil
		for m := range r.waiting {
			m.due.Give()
		}
		clear(r.waiting)
	}), nil
}

func (r *Replica) othersWait() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.waiting) > 0
}

// markEqualLocked notes that all a peer has is here. The caller holds mu.
func (r *Replica) markEqualLocked(m *remote) {
	m.synced = true
	s := r.seen[m.host]
	s.equal = time.Now()
	r.seen[m.host] = s
}

// answered notes how long a peer took to answer.
func (r *Replica) answered(m *remote, in time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.seen[m.host]
	s.trip = in
	r.seen[m.host] = s
}

// clock notes a peer's time.
func (r *Replica) clock(ctx context.Context, m *remote, now int64) {
	skew := time.Until(time.UnixMilli(now)).Round(time.Millisecond)
	r.mu.Lock()
	s := r.seen[m.host]
	warn := skew.Abs() > MaxSkew && s.skew.Abs() <= MaxSkew
	s.skew = skew
	r.seen[m.host] = s
	r.mu.Unlock()
	if warn {
		r.log.WarnContext(ctx, "clocks differ", "peer", m.id, "difference", skew)
	}
}
