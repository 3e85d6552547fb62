package p2p

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
)

// LinkOptions say where the front of this node is, which another process has.
type LinkOptions struct {
	Addrs []ma.Multiaddr // of the other process, as [Front.Addrs] or [Front.ListenAddrs] returns them there
	// Call answers what the other process asks.
	Call func(ctx context.Context, asked []byte) ([]byte, error)
}

// link is the way to the process that has the front.
type link struct {
	o LinkOptions
	// within returns a context for what nobody waits long for; it ends with the front.
	within  func() (context.Context, context.CancelFunc)
	conn    network.Conn
	control network.Stream

	turn sync.Mutex // of [Front.Ask]

	mu    sync.Mutex
	addrs []ma.Multiaddr       // guarded by mu; of the front
	keeps map[peer.ID]*keeping // guarded by mu
}

// keeping is a connection of the front that is kept for this process.
type keeping struct {
	users  int // guarded by link.mu
	stream network.Stream
	dead   bool // guarded by link.mu
}

// Linked makes a front of a process that has none of its own: it neither listens nor dials, but for the process that has
// the node's, and its Space peers are reached through that one. Of the options Key, Process, Wake, Known, Admits, Refused,
// Lost and Log count. Errors: [ErrUnreachable], or that of ctx. [Front.Ask] keeps the link alive. The caller closes it.
func Linked(ctx context.Context, o Options, to LinkOptions) (_ *Front, err error) {
	f, err := newFront(o)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	key, err := privateKey(o.Process)
	if err != nil {
		return nil, err
	}
	if err := f.startHost(key, Options{}, nil, f.id); err != nil {
		return nil, err
	}
	life, ok := f.life(ctx)
	if !ok {
		return nil, fmt.Errorf("front: %w", ErrClosed)
	}
	l := &link{o: to, keeps: map[peer.ID]*keeping{}}
	l.within = func() (context.Context, context.CancelFunc) { return context.WithTimeout(life, hopTimeout) }
	f.link = l
	node := peer.AddrInfo{ID: f.id}
	for _, a := range to.Addrs {
		if front, err := frontOf(a); err == nil {
			node.Addrs = append(node.Addrs, front.Addrs...)
		}
	}
	if err := f.host.Connect(ctx, node); err != nil {
		return nil, unreachable(ctx, f.id, err)
	}
	conns := f.host.Network().ConnsToPeer(f.id)
	if len(conns) == 0 {
		return nil, fmt.Errorf("front: %w", ErrUnreachable)
	}
	l.conn = conns[0]
	f.host.SetStreamHandler(processProtocol, func(s network.Stream) {
		if s.Conn().RemotePeer() != f.id || !f.passes() {
			_ = s.Reset()
			return
		}
		defer f.passing.Done()
		f.servePassed(life, s)
	})
	l.control, err = sent(ctx, l.conn, errand{Kind: errandLink})
	return f, err
}

// Behind says whether the front is another process's, see [Linked].
func (f *Front) Behind() bool { return f.link != nil }

// Ask tells the process that has the front something and returns what it answers. It has to be called more often than
// every few seconds. After an error the link is of no use any more.
func (f *Front) Ask(ctx context.Context, body []byte) ([]byte, error) {
	l := f.link
	l.turn.Lock()
	defer l.turn.Unlock()
	out := said{Body: body}
	for _, id := range f.partners() {
		out.Partners = append(out.Partners, id.String())
	}
	stop := context.AfterFunc(ctx, func() { _ = l.control.Reset() })
	defer stop()
	err := writeMessage(l.control, out)
	var in told
	if err == nil {
		err = readMessage(l.control, &in)
	}
	if err != nil {
		return nil, fmt.Errorf("process that has the front: %w: %w", ErrUnreachable, err)
	}
	l.mu.Lock()
	l.addrs = ParseAddrs(in.Addrs)
	l.mu.Unlock()
	for _, text := range in.Lost {
		if id, err := peer.Decode(text); err == nil {
			f.lostFront(id)
		}
	}
	return in.Body, nil
}

// Call asks the process that has the front something.
func (f *Front) Call(ctx context.Context, body []byte) ([]byte, error) {
	if f.link == nil {
		return nil, fmt.Errorf("not linked: %w", ErrInvalid)
	}
	r, err := asked(ctx, f.link.conn, errand{Kind: errandCall, Body: body})
	return r.Body, err
}

// servePassed answers the process that has the front.
func (f *Front) servePassed(ctx context.Context, s network.Stream) {
	_ = s.SetDeadline(time.Now().Add(hopTimeout))
	var q errand
	if err := readMessage(s, &q); err != nil {
		_ = s.Reset()
		return
	}
	front, err := peer.Decode(q.Front)
	if err != nil && q.Kind != errandCall {
		_ = s.Reset()
		return
	}
	var r reply
	switch q.Kind {
	case errandConnect:
		space, err := peer.Decode(q.Space)
		if err != nil {
			_ = s.Reset()
			return
		}
		f.takeIn(ctx, newPassed(s, front, ""), Caller{front, string(q.Origin)}, space)
		return
	case errandShare:
		other, err := peer.Decode(q.Other)
		r.Yes = err == nil && f.share(front, other)
	case errandCall:
		_ = s.SetDeadline(time.Now().Add(errandTimeout))
		ctx, cancel := context.WithTimeout(ctx, errandTimeout)
		defer cancel()
		if r.Body, err = f.link.o.Call(ctx, q.Body); err != nil {
			r = refusal(err)
		}
	default:
		r = refusal(fmt.Errorf("errand %q: %w", q.Kind, ErrInvalid))
	}
	if err := writeMessage(s, r); err != nil {
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

// stream opens a stream to another front by way of the process that has this node's.
func (l *link) stream(ctx context.Context, front peer.AddrInfo, proto protocol.ID) (network.Stream, error) {
	s, r, err := run(ctx, l.conn, errand{Kind: errandStream, Front: front.ID.String(), Addrs: AddrTexts(front.Addrs), Proto: proto})
	if err != nil {
		return nil, err
	}
	return newPassed(s, front.ID, r.Addr), nil
}

func (l *link) dial(ctx context.Context, front peer.AddrInfo) error {
	_, err := asked(ctx, l.conn, errand{Kind: errandDial, Front: front.ID.String(), Addrs: AddrTexts(front.Addrs)})
	return err
}

// keep is [Front.Keep]. Who keeps a connection already is answered at once.
func (l *link) keep(front peer.ID) (release func(), ok bool) {
	l.mu.Lock()
	k := l.keeps[front]
	if k != nil {
		k.users++
		ok := !k.dead
		l.mu.Unlock()
		release = sync.OnceFunc(func() { l.release(front, k) })
		if !ok {
			release()
		}
		return release, ok
	}
	l.mu.Unlock()
	ctx, cancel := l.within()
	defer cancel()
	s, r, err := run(ctx, l.conn, errand{Kind: errandKeep, Front: front.String()})
	if err != nil {
		return func() {}, false
	}
	if !r.Yes {
		_ = s.Reset()
		return func() {}, false
	}
	l.mu.Lock()
	if k = l.keeps[front]; k == nil {
		k = &keeping{stream: s}
		l.keeps[front] = k
	} else {
		_ = s.Reset()
	}
	k.users++
	l.mu.Unlock()
	return sync.OnceFunc(func() { l.release(front, k) }), true
}

func (l *link) release(front peer.ID, k *keeping) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.users--; k.users == 0 {
		if l.keeps[front] == k {
			delete(l.keeps, front)
		}
		_ = k.stream.Reset()
	}
}

// drop notes that a front is connected no more.
func (l *link) drop(front peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.keeps[front]; k != nil {
		k.dead = true
		delete(l.keeps, front)
	}
}

func (l *link) frontAddrs() []ma.Multiaddr {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]ma.Multiaddr(nil), l.addrs...)
}

func (l *link) provide(ctx context.Context, name Name) error {
	_, err := asked(ctx, l.conn, errand{Kind: errandProvide, Name: name[:]})
	return err
}

func (l *link) providers(ctx context.Context, name Name) iter.Seq[peer.AddrInfo] {
	return func(yield func(peer.AddrInfo) bool) {
		r, err := asked(ctx, l.conn, errand{Kind: errandProviders, Name: name[:]})
		if err != nil {
			return
		}
		for _, ai := range r.Nodes {
			if !yield(ai) {
				return
			}
		}
	}
}
