//go:build unix

package testservers

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// Distant returns a URL by which a server is reached over a way that delays in each direction. What is on its way is not
// held up by what was sent before. A connection carries no more than some bytes a second each way, as services and windows bound
// one; 0 is as many as come.
func Distant(t testing.TB, server string, delay time.Duration, rate int) string {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	to, most := u.Host, 1024
	if rate > 0 {
		most = max(1, int(int64(rate)*delay.Milliseconds()/1000/pieceSize))
	}
	running.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				_ = near.Close()
				continue
			}
			stop := context.AfterFunc(ctx, func() { _ = errors.Join(near.Close(), far.Close()) })
			for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
				running.Go(func() {
					defer stop()
					carryLate(way[0], way[1], delay, most)
					_ = errors.Join(near.Close(), far.Close())
				})
			}
		}
	})
	t.Cleanup(func() { cancel(); _ = l.Close(); running.Wait() })
	u.Host = l.Addr().String()
	return u.String()
}

// pieceSize is how many bytes go together.
const pieceSize = 16 << 10

// carryLate copies what comes, a while after it came, with so many pieces on their way.
func carryLate(from io.Reader, to io.Writer, delay time.Duration, most int) {
	type piece struct {
		b  []byte
		at time.Time
	}
	way := make(chan piece, most)
	var delivering sync.WaitGroup
	delivering.Go(func() {
		failed := false
		for p := range way {
			if !failed {
				<-time.After(time.Until(p.at))
				_, err := to.Write(p.b)
				failed = err != nil
			}
		}
	})
	for {
		p := make([]byte, pieceSize)
		n, err := from.Read(p)
		if n > 0 {
			way <- piece{p[:n], time.Now().Add(delay)}
		}
		if err != nil {
			close(way)
			delivering.Wait()
			return
		}
	}
}
