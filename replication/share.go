package replication

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

const (
	shareFrom  = 4096             // entries that have to be missing for several sources to be worth it
	shareStall = 10 * time.Second // after which who keeps the others waiting is asked no more
	shareAgain = time.Minute      // after a failure
	maxGivers  = 8
)

var (
	errShare    = errors.New("others can give a share")   // ends a stream in favour of sharing
	errShared   = errors.New("shared out and durable")    // ends the goroutines of a sharing
	errNoShares = errors.New("no source can give shares") // everything is to be had from one peer after another
	errEarly    = errors.New("entries are not due yet")   // and stay with the peers until they are
)

// sharing takes what the tips of one peer cover from several peers at once, disjoint ranges of seq from each. What
// comes early waits in memory for what goes before it.
type sharing struct {
	r          *Replica
	lead       *remote
	goal, have []hostlog.Tip
	newcomers  chan *remote
	before     []*receipt // of sharings of the same goal that left something out

	mu      sync.Mutex
	changed chan struct{} // closed, and another, when one of the following changes
	deal    *portions     // nil until it is known what the lead has
	givers  map[*remote]*giver
	running int       // of the givers
	began   time.Time // or the first sharing of this goal
	first   time.Time // since when the first portion of the queue is that
	early   *early
	turn    bool // ends early, because others wait for their turn
	receipt *receipt
	without map[hostlog.Key]bool // who are not asked
}

// giver is a peer that gives shares.
type giver struct {
	m     *remote
	first int64 // seq from which on it has something to give; none that begins later than the lead gives anything
	last  int64 // seq up to which it has everything; -1 until it said so
	gone  bool
	stop  context.CancelCauseFunc
}

func newSharing(r *Replica, lead *remote, goal, have []hostlog.Tip, e *early) *sharing {
	return &sharing{
		r: r, lead: lead, goal: goal, have: have, early: e, newcomers: make(chan *remote, maxGivers),
		changed: make(chan struct{}), givers: map[*remote]*giver{},
		receipt: &receipt{have: have, goal: goal, at: time.Now(), lead: lead.host},
	}
}

// runSharing runs until all that was dealt out is durable. The error is [errGap] when ranges do not fit together.
func (r *Replica) runSharing(ctx context.Context, s *sharing, missing int64) error {
	if !r.o.Memory.take.tryAcquire(r.space, 2*maxJoined) {
		return fmt.Errorf("no memory to share out: %w", tinycloud.ErrBusy)
	}
	defer r.o.Memory.take.release(r.space, 2*maxJoined)
	set := func(s *sharing) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.sharing = s
	}
	set(s)
	defer set(nil)
	r.expect(missing)
	defer r.expected()
	err := s.run(ctx)
	switch {
	case !errors.Is(err, errShared):
		return err
	case len(s.early.hosts) > 0:
		return errEarly
	}
	return nil
}

func (s *sharing) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	s.add(ctx, g, s.lead)
	for _, m := range s.r.partners() {
		s.add(ctx, g, m)
	}
	g.Go(func() error {
		for {
			select {
			case m := <-s.newcomers:
				s.add(ctx, g, m)
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
	g.Go(func() error { return s.apply(ctx) })
	return g.Wait()
}

// offer says that a peer is there that may give shares.
func (s *sharing) offer(m *remote) {
	select {
	case s.newcomers <- m:
	default:
	}
}

func (s *sharing) add(ctx context.Context, g *errgroup.Group, m *remote) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.givers[m] != nil || s.running >= maxGivers || len(s.givers) >= maxRemotes {
		return
	}
	if m != s.lead && (s.without[m.host] || s.r.offences.of(m.host)) {
		return
	}
	ctx, stop := context.WithCancelCause(ctx)
	x := &giver{m: m, last: -1, stop: stop}
	s.givers[m] = x
	s.running++
	g.Go(func() error {
		defer stop(nil)
		err := s.pull(ctx, x)
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return s.left(x, err)
	})
}

// left notes that a source gives nothing more. It returns an error when none is left.
func (s *sharing) left(x *giver, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.gone = true
	s.running--
	s.wake()
	if errors.Is(err, errShared) {
		return nil
	}
	s.r.log.Debug("source of shares ended", "peer", x.m.id, "error", err)
	if s.deal == nil {
		if x.m == s.lead {
			return errors.Join(errNoShares, err)
		}
		return nil
	}
	last := int64(-1)
	for _, other := range s.givers {
		if !other.gone {
			last = max(last, other.last)
		}
	}
	if last < 0 && !s.deal.over() {
		return errors.Join(errNoShares, err)
	}
	s.deal.lost(x, last)
	return nil
}

// wake is called with mu held.
func (s *sharing) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// pull asks one source for its shares until the context ends.
func (s *sharing) pull(ctx context.Context, x *giver) (err error) {
	r := s.r
	ctx, end := r.scoped(ctx, x.m)
	defer end()
	st, err := r.net.Peer.NewStream(ctx, x.m.id, SyncProtocol)
	if err != nil {
		return err
	}
	defer func() { _ = st.Reset() }()
	defer context.AfterFunc(ctx, func() { _ = st.Reset() })()
	defer func() { r.judge(ctx, x.m, err) }()
	f := newFramer(st, maxFrame, syncStall, r.o.Metrics.bytes("pull"))
	if err := f.put(&message{Share: &shareMessage{Have: packTips(s.have), Goal: packTips(s.goal)}}); err != nil {
		return err
	}
	m, err := f.get()
	if err != nil {
		return err
	}
	if m.Span == nil || m.Span.First < 0 || m.Span.Last >= 1<<62 {
		return fmt.Errorf("answer to share: %w", tinycloud.ErrInvalid)
	}
	if m.Span.First > m.Span.Last {
		return errNoShares
	}
	s.mu.Lock()
	x.first, x.last = m.Span.First, m.Span.Last
	if x.m == s.lead {
		err = s.begin(m.Span)
	}
	s.wake()
	s.mu.Unlock()
	if err != nil {
		return err
	}
	g, running := errgroup.WithContext(ctx)
	defer context.AfterFunc(running, func() { _ = st.Reset() })()
	asked := make(chan *portion, maxPortions)
	g.Go(func() error { return s.ask(running, x, f, asked) })
	g.Go(func() error { return s.bring(running, x, f, asked) })
	return g.Wait()
}

// ask asks for one portion after another, several ahead of what comes.
func (s *sharing) ask(ctx context.Context, x *giver, f *framer, asked chan<- *portion) error {
	for {
		p, changed := s.next(x)
		if p == nil {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		asked <- p // there is room: at most as many are the source's
		if err := f.put(&message{Range: &spanMessage{First: p.first, Last: p.last}}); err != nil {
			return err
		}
	}
}

// next returns what to ask a source for, or a channel that is closed when there may be something.
func (s *sharing) next(x *giver) (*portion, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deal == nil || x.gone {
		return nil, s.changed
	}
	under := 0
	for _, p := range s.deal.queue {
		if p.of == x && !p.whole {
			under++
		}
	}
	if under >= max(2, 8/s.running) {
		return nil, s.changed
	}
	if x.first > s.receipt.first {
		return nil, s.changed // it lacks what the lead has before: what it said is of other entries
	}
	return s.deal.deal(x, x.last), s.changed
}

// bring reads what was asked for.
func (s *sharing) bring(ctx context.Context, x *giver, f *framer, asked <-chan *portion) error {
	for {
		var p *portion
		select {
		case p = <-asked:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		batches, size, last, err := s.read(f, p)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		s.mu.Lock()
		if p.of == x && !p.whole {
			p.batches, p.size = batches, size
			s.deal.came(p, last)
			s.wake()
		}
		s.mu.Unlock()
	}
}

// read reads one portion and checks what can be checked before what goes before it is here.
func (s *sharing) read(f *framer, p *portion) (batches []received, size int, last int64, err error) {
	var parts joiner
	for {
		b, err := f.read()
		if err != nil {
			return nil, 0, 0, err
		}
		if size += len(b); size > maxJoined {
			return nil, 0, 0, fmt.Errorf("range of more than %d bytes: %w", maxJoined, tinycloud.ErrTooLarge)
		}
		m, err := decodeMessage(b)
		if err == nil && m.Part != nil {
			if m, err = parts.add(m.Part); err == nil && m == nil {
				continue
			}
		}
		switch {
		case err != nil:
			return nil, 0, 0, err
		case m.End != nil && parts.b == nil:
			if m.End.Last < p.first || m.End.Last > p.last {
				return nil, 0, 0, fmt.Errorf("end of a range: %w", tinycloud.ErrInvalid)
			}
			return batches, size, m.End.Last, nil
		case m.Batch == nil || parts.b != nil:
			return nil, 0, 0, fmt.Errorf("frame in a range: %w", tinycloud.ErrInvalid)
		}
		bundles, err := m.Batch.bundles(s.r.space)
		if err != nil {
			return nil, 0, 0, err
		}
		batches = append(batches, received{bundles, hostlog.CheckAll(s.r.space, bundles)})
	}
}

// apply makes portions durable in their order.
func (s *sharing) apply(ctx context.Context) error {
	idle := time.NewTicker(shareStall / 10)
	defer idle.Stop()
	for {
		p, changed, over := s.ready()
		if over {
			return errShared
		}
		if p == nil {
			select {
			case <-changed:
			case <-idle.C:
				s.hurry()
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			continue
		}
		if err := s.applyPortion(ctx, p); err != nil {
			return err
		}
	}
}

// ready returns the first portion when it is whole.
func (s *sharing) ready() (p *portion, changed <-chan struct{}, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deal == nil {
		return nil, s.changed, false
	}
	if time.Since(s.began) > syncTurn && !s.turn && s.strangersWait() {
		s.turn = true
		s.deal.end = s.deal.next - 1
	}
	if p = s.deal.first(); p != nil && !p.whole {
		p = nil
	}
	return p, s.changed, s.deal.over()
}

// strangersWait reports whether peers that give no shares, though they might, wait for their turn. s.mu is held.
func (s *sharing) strangersWait() bool {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	for m := range s.r.waiting {
		if s.without[m.host] || s.r.offences.of(m.host) {
			continue
		}
		if x := s.givers[m]; x == nil || x.gone {
			return true
		}
	}
	return false
}

// applyPortion applies the first portion. A source whose bytes refute themselves loses it to another one.
func (s *sharing) applyPortion(ctx context.Context, p *portion) error {
	for _, b := range p.batches {
		_, err := s.r.applyBatch(ctx, p.of.m, b, s.early)
		if errors.Is(err, tinycloud.ErrInvalid) || errors.Is(err, tinycloud.ErrForged) {
			s.r.judge(ctx, p.of.m, err)
			s.mu.Lock()
			s.dismiss(p.of, err)
			s.deal.again(p)
			s.first = time.Now()
			s.wake()
			s.mu.Unlock()
			return nil
		}
		if err != nil {
			s.receipt.add(p)
			return err
		}
	}
	s.receipt.add(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deal.applied()
	s.first = time.Now()
	s.wake()
	return nil
}

// hurry ends with a source that keeps the others waiting.
func (s *sharing) hurry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deal == nil {
		if time.Since(s.receipt.at) > shareStall {
			s.dismiss(s.givers[s.lead], errStalled)
		}
		return
	}
	if p := s.deal.first(); p != nil && p.of != nil && !p.whole && time.Since(s.first) > shareStall {
		s.dismiss(p.of, errStalled)
		s.first = time.Now()
	}
}

// dismiss asks a source no more. It is called with mu held.
func (s *sharing) dismiss(x *giver, why error) {
	x.gone = true
	x.stop(why)
}
