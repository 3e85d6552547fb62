package callers_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/callers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network hands connections from any address to a listener.
type network struct {
	incoming chan net.Conn
	closed   chan struct{}
}

func newNetwork() *network {
	return &network{incoming: make(chan net.Conn), closed: make(chan struct{})}
}

func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.incoming:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error {
	select {
	case <-n.closed:
	default:
		close(n.closed)
	}
	return nil
}

func (n *network) Addr() net.Addr { return &net.TCPAddr{} }

// from is the server's end of a connection from an address.
type from struct {
	net.Conn
	remote net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.remote }

// dial connects from an address and returns when that is accepted or closed.
func (n *network) dial(address string) net.Conn {
	client, server := net.Pipe()
	n.incoming <- from{server, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), 1234))}
	return client
}

// serve answers in a bubble of virtual time until the test ends.
func serve(t *testing.T, limits callers.Limits, h http.HandlerFunc) *network {
	t.Helper()
	n := newNetwork()
	l := callers.Listen(n, limits)
	server := &http.Server{Handler: callers.DefaultPace().Handler(h), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, ConnState: l.State}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return n
}

// ask sends a request and returns the answer's status, 0 when the connection was closed.
func ask(c net.Conn) int {
	go func() { _, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") }()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func wide() callers.Limits {
	return callers.Limits{Total: 100, Reserved: 10, PerAddress: 50, PerSite: 80}
}

func TestAddress(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1", "192.0.2.1": "192.0.2.1", "[::ffff:192.0.2.1]:80": "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::", "[fe80::1%eth0]:80": "fe80::", "2001:db8::1": "2001:db8::", "@": "invalid IP", "": "invalid IP",
	} {
		if got := callers.Address(remote).String(); got != want {
			t.Errorf("%q: %s, want %s", remote, got, want)
		}
	}
}

// TestShareOfAnAddress fills what one client may have: more of its connections close idle ones of its own, and where
// all are busy are refused; others are served.
func TestShareOfAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		n := serve(t, callers.Limits{Total: 100, Reserved: 10, PerAddress: 3, PerSite: 100}, func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/wait" {
				<-release
			}
		})
		var idle []net.Conn
		for i := range 4 {
			idle = append(idle, n.dial(fmt.Sprintf("2001:db8:0:1::%d", i+1))) // one /64
			time.Sleep(time.Second)
		}
		if _, err := idle[0].Read(make([]byte, 1)); err != io.EOF {
			t.Error("the idlest of four was not closed:", err)
		}
		for _, c := range idle[1:] {
			go func() { _, _ = io.WriteString(c, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n") }()
		}
		synctest.Wait()
		if status := ask(n.dial("2001:db8:0:1::9")); status != 0 {
			t.Error("a fourth beside three busy ones:", status)
		}
		for _, address := range []string{"2001:db8:0:2::1", "192.0.2.1", "127.0.0.1"} {
			c := n.dial(address)
			if status := ask(c); status != http.StatusOK {
				t.Error(address, status)
			}
			_ = c.Close()
		}
		close(release)
		synctest.Wait()
		for _, c := range idle {
			_ = c.Close()
		}
	})
}

// TestFull has strangers of many addresses take all connections.
func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		proxy := netip.MustParseAddr("198.51.100.1")
		n := serve(t, callers.Limits{Total: 20, Reserved: 5, PerAddress: 3, PerSite: 100, Trusted: func(a netip.Addr) bool { return a == proxy }},
			func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
		var strangers []net.Conn
		for i := range 15 {
			strangers = append(strangers, n.dial(fmt.Sprintf("192.0.2.%d", i+1)))
		}
		for i := range 5 { // more than one address may have
			c := n.dial([]string{"127.0.0.1", proxy.String()}[i%2])
			defer c.Close()
			if status := ask(c); status != http.StatusNoContent {
				t.Error("reserved", i, status)
			}
		}
		time.Sleep(time.Second) // so that who comes now is not as idle as they are
		for _, address := range []string{"203.0.113.1", "127.0.0.1", proxy.String()} {
			c := n.dial(address)
			defer c.Close()
			if status := ask(c); status != http.StatusNoContent {
				t.Error("when full:", address, status)
			}
		}
		closed := 0
		synctest.Wait()
		for _, c := range strangers {
			_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := c.Read(make([]byte, 1)); err == io.EOF {
				closed++
			}
			_ = c.Close()
		}
		if closed != 3 {
			t.Errorf("%d idle strangers made room for 3", closed)
		}
	})
}

// TestTrickle sends bodies too slowly, to a handler that reads them and to one that does not.
func TestTrickle(t *testing.T) {
	for _, reads := range []bool{true, false} {
		t.Run(fmt.Sprint(reads), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := serve(t, wide(), func(_ http.ResponseWriter, r *http.Request) {
					if reads {
						_, _ = io.Copy(io.Discard, r.Body)
					}
				})
				c := n.dial("192.0.2.1")
				began := time.Now()
				var sender sync.WaitGroup
				sender.Go(func() {
					_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
					for err == nil {
						time.Sleep(time.Second)
						_, err = io.WriteString(c, "x")
					}
				})
				if _, err := io.Copy(io.Discard, c); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took > 2*time.Minute {
					t.Error("held for", took)
				}
				_ = c.Close()
				sender.Wait()
			})
		})
	}
}

// TestSlowAndHonest sends a body at twice the least rate for ten minutes, to a handler that takes its time too.
func TestSlowAndHonest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := serve(t, wide(), func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(5 * time.Minute) // it does not count against the client
			got, err := io.Copy(io.Discard, r.Body)
			if err != nil {
				t.Error(got, err)
			}
			time.Sleep(5 * time.Minute)
			if r.Context().Err() != nil {
				t.Error("the client waits and the request was given up")
			}
			w.WriteHeader(http.StatusNoContent)
		})
		c := n.dial("192.0.2.1")
		defer c.Close()
		const seconds = 600
		go func() {
			_, _ = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", seconds*2048)
			for range seconds {
				time.Sleep(time.Second)
				_, _ = io.WriteString(c, strings.Repeat("x", 2048))
			}
		}()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusNoContent {
			t.Error(resp.Status)
		}
	})
}
