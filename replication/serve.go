package replication

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"golang.org/x/sync/errgroup"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// ServeSync takes a stream of the sync protocol over and returns at once. The peer has to be authorised.
func (r *Replica) ServeSync(s network.Stream) {
	m := r.enter(s.Conn().RemotePeer())
	if m == nil || !r.spawn(func(ctx context.Context) {
		defer r.leave(m)
		r.serve(ctx, m, s)
	}) {
		r.leave(m)
		_ = s.Reset()
	}
}

func (r *Replica) serve(ctx context.Context, m *remote, s network.Stream) {
	ctx, end := r.scoped(ctx, m)
	defer end()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	f := newFramer(s, maxRequest, syncStall, r.o.Metrics.bytes("serve"))
	first, err := f.get()
	if err == nil {
		switch {
		case first.Open != nil:
			err = r.serveOpen(ctx, m, f, first.Open)
		case first.Share != nil:
			err = r.serveShare(ctx, m, f, first.Share)
		case first.Locate != nil:
			err = r.serveLocate(ctx, f, first.Locate.Hashes)
		case first.Hosts != nil:
			err = r.serveHosts(ctx, m, f, first.Hosts)
		case first.Rest != nil:
			err = r.serveRest(ctx, m, f, first.Rest)
		default:
			err = fmt.Errorf("request: %w", tinycloud.ErrInvalid)
		}
	}
	if err != nil {
		_ = s.Reset()
		r.judge(ctx, m, err)
		return
	}
	_ = s.Close()
}

// serveOpen answers one round: nothing if the tips are equal, else what the peer says it lacks.
func (r *Replica) serveOpen(ctx context.Context, m *remote, f *framer, open *openMessage) error {
	r.clock(m, open.Now)
	tips, err := r.tipsFor(ctx, m)
	if err != nil {
		return own(err)
	}
	if hashTips(tips) == open.Hash {
		r.quiet(m)
		return f.put(&message{Same: &stateMessage{Now: nowMillis(), Joining: r.isJoining()}})
	}
	err = pages(tips, func(page []wireTip, more bool) error {
		return f.put(&message{Tips: &tipsMessage{Now: nowMillis(), Tips: page, More: more, Joining: r.isJoining()}})
	})
	if err != nil {
		return err
	}
	asked := time.Now()
	var have []hostlog.Tip
	for {
		msg, err := f.get()
		if err != nil {
			return err
		}
		if msg.Have == nil {
			return fmt.Errorf("answer to tips: %w", tinycloud.ErrInvalid)
		}
		if msg.Have.Ahead {
			r.gap(m)
		}
		if msg.Have.Stop {
			return nil
		}
		if have, err = unpackTips(have, msg.Have.Tips); err != nil {
			return err
		}
		if !msg.Have.More {
			return r.stream(ctx, m, f, tips, have, time.Since(asked))
		}
	}
}

// tipsFor are the tips that a peer is told, and is sent the entries up to.
func (r *Replica) tipsFor(ctx context.Context, m *remote) ([]hostlog.Tip, error) {
	if r.knowsServices(m) {
		return r.o.Store.Tips(ctx, r.space)
	}
	return r.o.Store.OlderTips(ctx, r.space)
}

// givable leaves out of some tips what a peer would take for a forgery.
func (r *Replica) givable(ctx context.Context, m *remote, goal []hostlog.Tip) ([]hostlog.Tip, error) {
	if r.knowsServices(m) {
		return goal, nil
	}
	tips, err := r.o.Store.OlderTips(ctx, r.space)
	told := coveredBy(tips)
	return slices.DeleteFunc(goal, func(t hostlog.Tip) bool { return !told(&hostlog.Entry{Host: t.Host, N: t.N}) }), err
}

// stream sends what tips cover and have does not. Acknowledgements are read beside it, so that neither side ever
// waits to be read before it reads. way is how long a round trip takes, or longer.
func (r *Replica) stream(ctx context.Context, m *remote, f *framer, tips, have []hostlog.Tip, way time.Duration) error {
	if err := r.o.Memory.give.acquire(ctx, r.space, maxJoined); err != nil {
		return err
	}
	defer r.o.Memory.give.release(r.space, maxJoined)
	g, ctx := errgroup.WithContext(ctx)
	w := newWindow(way)
	g.Go(func() error { return w.acks(f) })
	g.Go(func() error {
		err := r.sendMissing(ctx, f, w, tips, have, r.knowsServices(m))
		if err == nil {
			w.end()
			return f.put(&message{Done: &stateMessage{Now: nowMillis(), Joining: r.isJoining()}})
		}
		// The reader of acknowledgements waits for the peer, and the peer for us.
		return errors.Join(err, f.d.SetReadDeadline(past()))
	})
	return g.Wait()
}

// sendMissing sends batches. One goroutine reads the store, batches ahead of the one that sends. What came since the tips
// were told stays here: it may have come from the very peer.
func (r *Replica) sendMissing(ctx context.Context, f *framer, w *window, tips, have []hostlog.Tip, services bool) error {
	g, ctx := errgroup.WithContext(ctx)
	ready := make(chan []hostlog.Bundle, readAhead)
	g.Go(func() error {
		defer close(ready)
		hand := func(bundles []hostlog.Bundle) error {
			select {
			case ready <- bundles:
				return nil
			case <-w.stop:
				return errStopped
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		var c batcher
		told, over := coveredBy(tips), false
		err := r.o.Store.Missing(ctx, r.space, have, inlineLimit, func(b hostlog.Bundle) error {
			if !told(&b.Entry) {
				return nil
			}
			if over = over || !services && b.Foreign(); over { // of a host whose log forked: its tips don't tell
				return nil
			}
			if full := c.add(b); full != nil {
				return hand(full)
			}
			return nil
		})
		if rest := c.take(); rest != nil && err == nil {
			err = hand(rest)
		}
		switch {
		case errors.Is(err, errStopped):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		return own(err)
	})
	g.Go(func() error {
		for bundles := range ready {
			if err := w.send(ctx, f, bundles); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

func (r *Replica) serveLocate(ctx context.Context, f *framer, hashes []tinycloud.Hash) error {
	answer := &locatedMessage{Values: make([]location, 0, len(hashes))}
	for _, hash := range hashes {
		size, manifest, err := r.o.Values.Locate(ctx, r.space, hash)
		if errors.Is(err, tinycloud.ErrNotFound) {
			size, manifest, err = -1, tinycloud.Hash{}, nil
		}
		if err != nil {
			return own(err)
		}
		answer.Values = append(answer.Values, location{Size: size, Manifest: manifest})
	}
	return f.put(&message{Located: answer})
}

// serveShare sends the ranges that the peer asks for, of what it lacks.
func (r *Replica) serveShare(ctx context.Context, m *remote, f *framer, q *shareMessage) error {
	if err := r.o.Memory.give.acquire(ctx, r.space, maxJoined); err != nil {
		return err
	}
	defer r.o.Memory.give.release(r.space, maxJoined)
	have, err := unpackTips(nil, q.Have)
	if err != nil {
		return err
	}
	goal, err := unpackTips(nil, q.Goal)
	if err != nil {
		return err
	}
	if goal, err = r.givable(ctx, m, goal); err != nil {
		return own(err)
	}
	share, err := r.o.Store.Share(ctx, r.space, have, goal)
	if err != nil {
		return own(err)
	}
	var span spanMessage
	span.First, span.Last = share.Span()
	if err := f.put(&message{Span: &span}); err != nil || span.First > span.Last {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	asked := make(chan spanMessage, maxPortions)
	g.Go(func() error {
		defer close(asked)
		return r.readRanges(f, span, asked)
	})
	g.Go(func() error {
		for q := range asked {
			if err := sendRange(ctx, f, share, q); err != nil {
				return errors.Join(err, f.d.SetReadDeadline(past())) // the other goroutine waits for the peer
			}
		}
		return nil
	})
	return g.Wait()
}

// readRanges reads what is asked for until the peer closes the stream.
func (r *Replica) readRanges(f *framer, within spanMessage, asked chan<- spanMessage) error {
	for {
		m, err := f.get()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		q := m.Range
		if q == nil || q.First < within.First || q.Last < q.First || q.Last > within.Last {
			return fmt.Errorf("range: %w", tinycloud.ErrInvalid)
		}
		select {
		case asked <- *q:
		default:
			return fmt.Errorf("more than %d ranges: %w", maxPortions, tinycloud.ErrInvalid)
		}
	}
}

// sendRange sends a range, or a first part of one that is long, in whole seqs.
func sendRange(ctx context.Context, f *framer, share hostlog.Share, q spanMessage) error {
	var failed error // to send, rather than to read
	send := func(bundles []hostlog.Bundle) error {
		var out [][]byte
		out, failed = frames(bundles)
		for _, b := range out {
			failed = errors.Join(failed, f.write(b))
		}
		return failed
	}
	c, size, at := batcher{most: shareBatch}, 0, q.First-1
	err := share.Read(ctx, q.First, q.Last, inlineLimit, func(seq int64, b hostlog.Bundle) error {
		if seq > at && size >= 2*portionSize {
			return errFull
		}
		at = seq
		size += sizeOf(&b)
		if full := c.add(b); full != nil {
			return send(full)
		}
		return nil
	})
	last := q.Last
	switch {
	case failed != nil:
		return failed
	case errors.Is(err, errFull):
		last = at
	case err != nil:
		return own(err)
	}
	if rest := c.take(); rest != nil {
		if err := send(rest); err != nil {
			return err
		}
	}
	return f.put(&message{End: &endMessage{Last: last}})
}

// errFull ends the reading of a range that is long enough.
var errFull = errors.New("enough read")
