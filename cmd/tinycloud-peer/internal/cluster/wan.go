package cluster

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

// WAN is a way to a TCP address of this machine that takes time, as one over a distance does: what enters it at
// either end leaves the other after half the round trip, at the rate it came or that of a narrow link.
type WAN struct {
	listener net.Listener
	to       string
	delay    atomic.Int64  // nanoseconds of one way
	there    *rate.Limiter // bytes towards the target, of all connections together
	back     *rate.Limiter // likewise from it
	bytes    atomic.Int64
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu   sync.Mutex
	held chan struct{}                    // guarded by mu; nil, or closed when what is on the way may go on
	cut  bool                             // guarded by mu
	open map[*context.CancelFunc]struct{} // guarded by mu; ends of connections
}

const (
	wanPiece = 32 << 10
	wanFull  = 4096 // pieces on the way in one direction, above which the sender waits
)

// NewWAN opens a way to an address with a round trip time, which may be 0, and no bound on its rate.
func NewWAN(ctx context.Context, to string, rtt time.Duration) (*WAN, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w := &WAN{
		listener: l, to: to, there: rate.NewLimiter(rate.Inf, wanPiece), back: rate.NewLimiter(rate.Inf, wanPiece),
		cancel: cancel, open: map[*context.CancelFunc]struct{}{},
	}
	w.Set(rtt, 0)
	w.running.Go(func() { w.accept(ctx) })
	return w, nil
}

// Set changes the round trip time, and bounds what goes in each direction to so many bits a second, 0 for no bound. What
// a sender has to wait for piles up with it, not on the way.
func (w *WAN) Set(rtt time.Duration, bits int) {
	w.delay.Store(int64(rtt / 2))
	limit := rate.Inf
	if bits > 0 {
		limit = rate.Limit(float64(bits) / 8)
	}
	w.there.SetLimit(limit)
	w.back.SetLimit(limit)
}

// Bytes is what went over it so far, both directions together.
func (w *WAN) Bytes() int64 { return w.bytes.Load() }

// Through returns multiaddrs with the ones of the WAN's target replaced by the WAN's own.
func (w *WAN) Through(addrs []string) []string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = strings.Replace(a, spell(w.to)+"/", w.Addr()+"/", 1)
	}
	return out
}

// spell writes an address as a multiaddr.
func spell(hostPort string) string {
	host, port, _ := net.SplitHostPort(hostPort)
	return "/ip4/" + host + "/tcp/" + port
}

// HostPort is the address at which the WAN is entered.
func (w *WAN) HostPort() string { return w.listener.Addr().String() }

// Addr is the multiaddr at which the WAN is entered.
func (w *WAN) Addr() string { return spell(w.listener.Addr().String()) }

// Cut ends all connections, and those that begin, until Mend.
func (w *WAN) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	for end := range w.open {
		(*end)()
	}
}

// Mend lets connections through again.
func (w *WAN) Mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = false
}

// Hold keeps all that is on the way, or comes, from arriving, with the connections open, until Release.
func (w *WAN) Hold() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held == nil {
		w.held = make(chan struct{})
	}
}

// Release lets what was held arrive.
func (w *WAN) Release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held != nil {
		close(w.held)
		w.held = nil
	}
}

// pass waits while the WAN is held.
func (w *WAN) pass(ctx context.Context) {
	w.mu.Lock()
	held := w.held
	w.mu.Unlock()
	if held == nil {
		return
	}
	select {
	case <-held:
	case <-ctx.Done():
	}
}

// enter counts a connection, which cancel ends; it reports false while the WAN is cut. leave ends the counting.
func (w *WAN) enter(cancel *context.CancelFunc) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.cut {
		w.open[cancel] = struct{}{}
	}
	return !w.cut
}

func (w *WAN) leave(cancel *context.CancelFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, cancel)
}

// Close ends all connections and returns when they are gone.
func (w *WAN) Close() error {
	w.cancel()
	err := w.listener.Close()
	w.running.Wait()
	return err
}

func (w *WAN) accept(ctx context.Context) {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		var d net.Dialer
		far, err := d.DialContext(ctx, "tcp", w.to)
		if err != nil {
			_ = near.Close()
			continue
		}
		w.running.Go(func() { w.join(ctx, near, far) })
	}
}

// join carries both ways until one ends.
func (w *WAN) join(ctx context.Context, near, far net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !w.enter(&cancel) {
		cancel()
	}
	defer w.leave(&cancel)
	stop := context.AfterFunc(ctx, func() { _ = errors.Join(near.Close(), far.Close()) })
	defer stop()
	var ways sync.WaitGroup
	for _, way := range []struct {
		from, to net.Conn
		link     *rate.Limiter
	}{{near, far, w.there}, {far, near, w.back}} {
		ways.Go(func() {
			defer cancel()
			w.carry(ctx, way.to, way.from, way.link)
		})
	}
	ways.Wait()
}

// piece is what was read at once, and when it is due at the other end.
type piece struct {
	b  []byte
	at time.Time
}

// carry copies until an end closes or the context ends; what was read before is still delivered.
func (w *WAN) carry(ctx context.Context, to io.Writer, from io.Reader, link *rate.Limiter) {
	way := make(chan piece, wanFull)
	w.running.Go(func() {
		defer close(way)
		for {
			b := make([]byte, wanPiece)
			n, err := from.Read(b)
			if n > 0 {
				if link.WaitN(ctx, n) != nil {
					return
				}
				select {
				case way <- piece{b[:n:n], time.Now().Add(time.Duration(w.delay.Load()))}:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	for p := range way {
		if !wait.For(ctx, time.Until(p.at)) {
			return
		}
		w.pass(ctx)
		n, err := to.Write(p.b)
		w.bytes.Add(int64(n))
		if err != nil {
			return
		}
	}
}
