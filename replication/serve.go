package replication

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"golang.org/x/sync/errgroup"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
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
	f := wire.NewFramer(s, wire.MaxRequest, syncStall, r.o.Metrics.Bytes("serve"))
	first, err := f.Get()
	if err == nil {
		switch {
		case first.Open != nil:
			err = r.serveOpen(ctx, m, f, first.Open)
		case first.Share != nil:
			err = f.Put(&wire.Message{Span: &wire.Span{First: 0, Last: -1}}) // none: it takes the stream
		case first.Locate != nil:
			err = r.serveLocate(ctx, f, first.Locate.Hashes)
		case first.Hosts != nil:
			err = r.serveHosts(ctx, m, f, first.Hosts)
		case first.Sums != nil:
			err = r.serveSums(f, first.Sums)
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
func (r *Replica) serveOpen(ctx context.Context, m *remote, f *wire.Framer, open *wire.Open) error {
	r.clock(ctx, m, open.Now)
	tips, err := r.tipsFor(ctx, m)
	if err != nil {
		return own(err)
	}
	if wire.HashTips(tips) == open.Hash {
		r.quiet(m)
		return f.Put(&wire.Message{Same: &wire.State{Now: nowMillis(), Joining: r.isJoining()}})
	}
	err = wire.Pages(tips, func(page []wire.Tip, more bool) error {
		return f.Put(&wire.Message{Tips: &wire.Tips{Now: nowMillis(), Tips: page, More: more, Joining: r.isJoining()}})
	})
	if err != nil {
		return err
	}
	asked := time.Now()
	var have []hostlog.Tip
	for {
		msg, err := f.Get()
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
		if have, err = wire.UnpackTips(have, msg.Have.Tips); err != nil {
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

// stream sends what tips cover and have does not. Acknowledgements are read beside it, so that neither side ever
// waits to be read before it reads. way is how long a round trip takes, or longer.
func (r *Replica) stream(ctx context.Context, m *remote, f *wire.Framer, tips, have []hostlog.Tip, way time.Duration) error {
	if err := r.o.Memory.give.acquire(ctx, r.space, wire.MaxJoined); err != nil {
		return err
	}
	defer r.o.Memory.give.release(r.space, wire.MaxJoined)
	g, ctx := errgroup.WithContext(ctx)
	w := newWindow(way)
	g.Go(func() error { return w.acks(f) })
	g.Go(func() error {
		err := r.sendMissing(ctx, f, w, tips, have, r.knowsServices(m))
		if err == nil {
			w.end()
			return f.Put(&wire.Message{Done: &wire.State{Now: nowMillis(), Joining: r.isJoining()}})
		}
		// The reader of acknowledgements waits for the peer, and the peer for us.
		return errors.Join(err, f.Interrupt())
	})
	return g.Wait()
}

// sendMissing sends batches. One goroutine reads the store, batches ahead of the one that sends. What came since the tips
// were told stays here: it may have come from the very peer.
func (r *Replica) sendMissing(ctx context.Context, f *wire.Framer, w *window, tips, have []hostlog.Tip, services bool) error {
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

func (r *Replica) serveLocate(ctx context.Context, f *wire.Framer, hashes []tinycloud.Hash) error {
	answer := &wire.Located{Values: make([]wire.Location, 0, len(hashes))}
	for _, hash := range hashes {
		size, manifest, err := r.o.Values.Locate(ctx, r.space, hash)
		if errors.Is(err, tinycloud.ErrNotFound) {
			size, manifest, err = -1, tinycloud.Hash{}, nil
		}
		if err != nil {
			return own(err)
		}
		answer.Values = append(answer.Values, wire.Location{Size: size, Manifest: manifest})
	}
	return f.Put(&wire.Message{Located: answer})
}
