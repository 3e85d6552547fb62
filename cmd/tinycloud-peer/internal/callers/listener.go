package callers

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of the connections of a [Listener].
type Limits struct {
	Total      int // at once
	Reserved   int // of them for this machine and for trusted proxies only
	PerAddress int // of a client; this machine and trusted proxies may have more
	PerSite    int // of all clients of an IPv6 /48

	// Trusted reports whether an address is of a proxy whose connections are many clients'. Nil: none is.
	Trusted func(netip.Addr) bool

	Metrics *Metrics // counts; nil: nothing does
}

// stalled is how long no byte has to move on a connection whose request is under way before it may make room.
const stalled = 5 * time.Second

// Listener accepts as many connections as its limits allow. A new one that is too many takes the place of the idlest
// that may be closed: of the same client if that has too many, of its /48 if that has, else of any stranger. Where there is none it is closed.
type Listener struct {
	net.Listener
	limits Limits

	mu         sync.Mutex
	open       map[*conn]struct{}
	strangers  int
	perAddress map[netip.Addr]int
	perSite    map[netip.Addr]int // of IPv6
}

// Listen bounds the connections of l.
func Listen(l net.Listener, limits Limits) *Listener {
	return &Listener{Listener: l, limits: limits, open: map[*conn]struct{}{}, perAddress: map[netip.Addr]int{}, perSite: map[netip.Addr]int{}}
}

// conn is an accepted connection.
type conn struct {
	net.Conn
	l        *Listener
	stranger bool
	from     netip.Addr   // as strangers are counted
	moved    atomic.Int64 // unix nanoseconds of the last byte
	busy     atomic.Bool  // a request is under way
	gone     bool         // guarded by the listener's mu
}

// Accept returns the next connection that there is room for.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if made, ok := l.admit(c); ok {
			l.limits.Metrics.connection(accepted)
			return made, nil
		}
		l.limits.Metrics.connection(refused)
		_ = c.Close() // it was never used
	}
}

// admit finds room for a connection.
func (l *Listener) admit(nc net.Conn) (*conn, bool) {
	c := &conn{Conn: nc, l: l, stranger: l.stranger(nc.RemoteAddr())}
	c.touch()
	if c.stranger {
		c.from = Address(nc.RemoteAddr().String())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.stranger && !l.share(c) {
		return nil, false
	}
	if l.full(c.stranger) && !l.closeIdlest(func(o *conn) bool { return !o.busy.Load() }) && !l.closeIdlest((*conn).stalls) {
		return nil, false
	}
	l.open[c] = struct{}{}
	if c.stranger {
		l.strangers++
		l.perAddress[c.from]++
		if s := site(c.from); s.IsValid() {
			l.perSite[s]++
		}
	}
	return c, true
}

// share makes room in what the client of a connection may have, and its neighbours with it. The caller holds mu.
func (l *Listener) share(c *conn) bool {
	if l.perAddress[c.from] >= l.limits.PerAddress && !l.closeIdlest(func(o *conn) bool {
		return o.from == c.from && !o.busy.Load()
	}) {
		return false
	}
	s := site(c.from)
	return !s.IsValid() || l.perSite[s] < l.limits.PerSite || l.closeIdlest(func(o *conn) bool {
		return site(o.from) == s && !o.busy.Load()
	})
}

// stranger tells those that limits are for from this machine, sockets in the file system and trusted proxies.
func (l *Listener) stranger(remote net.Addr) bool {
	if _, local := remote.(*net.UnixAddr); local {
		return false
	}
	addr := parse(remote.String())
	return !addr.IsLoopback() && (l.limits.Trusted == nil || !l.limits.Trusted(addr))
}

func (l *Listener) full(stranger bool) bool {
	return len(l.open) >= l.limits.Total || stranger && l.strangers >= l.limits.Total-l.limits.Reserved
}

// closeIdlest closes the stranger's connection on which nothing moved for longest, of those that may be. It reports
// whether there was one.
func (l *Listener) closeIdlest(may func(*conn) bool) bool {
	var idlest *conn
	for c := range l.open {
		if c.stranger && may(c) && (idlest == nil || c.moved.Load() < idlest.moved.Load()) {
			idlest = c
		}
	}
	if idlest == nil {
		return false
	}
	l.limits.Metrics.connection(closed)
	l.forget(idlest)
	_ = idlest.Conn.Close() // it may be closed already
	return true
}

// forget stops counting a connection. The caller holds mu.
func (l *Listener) forget(c *conn) {
	if c.gone {
		return
	}
	c.gone = true
	delete(l.open, c)
	if !c.stranger {
		return
	}
	l.strangers--
	if l.perAddress[c.from]--; l.perAddress[c.from] <= 0 {
		delete(l.perAddress, c.from)
	}
	if s := site(c.from); s.IsValid() {
		if l.perSite[s]--; l.perSite[s] <= 0 {
			delete(l.perSite, s)
		}
	}
}

// State is for [http.Server]'s ConnState: it tells which connections have a request under way.
func (l *Listener) State(c net.Conn, s http.ConnState) {
	if below, ok := c.(interface{ NetConn() net.Conn }); ok { // of TLS
		c = below.NetConn()
	}
	if c, ok := c.(*conn); ok {
		c.busy.Store(s == http.StateActive)
	}
}

func (c *conn) touch() { c.moved.Store(time.Now().UnixNano()) }

func (c *conn) stalls() bool { return time.Since(time.Unix(0, c.moved.Load())) >= stalled }

// Read notes when bytes came.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.touch()
	}
	return n, err
}

// Write notes when bytes went.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if n > 0 {
		c.touch()
	}
	return n, err
}

// Close makes room for another.
func (c *conn) Close() error {
	c.l.mu.Lock()
	c.l.forget(c)
	c.l.mu.Unlock()
	return c.Conn.Close()
}
