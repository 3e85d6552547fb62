package node_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// pipes is a listener whose connections come from one address outside.
type pipes struct{ incoming chan net.Conn }

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p.incoming
	if !ok {
		return nil, net.ErrClosed
	}
	return remote{c}, nil
}
func (p pipes) Close() error   { close(p.incoming); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

type remote struct{ net.Conn }

func (remote) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }

// TestRefusedBodiesEnd sends bodies that never end to what refuses the request before it reads them.
func TestRefusedBodiesEnd(t *testing.T) {
	for _, line := range []string{"POST /admin/nodes", "GET /metrics", "OPTIONS *"} {
		t.Run(line, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := pipes{make(chan net.Conn)}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() {
					done <- node.ServeHTTP(ctx, l, http.NotFoundHandler(), nil)
				}()
				client, server := net.Pipe()
				l.incoming <- server
				began := time.Now()
				var sender sync.WaitGroup
				sender.Go(func() {
					_, err := fmt.Fprintf(client, "%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", line)
					for err == nil {
						time.Sleep(50 * time.Second)
						_, err = client.Write([]byte("x"))
					}
				})
				if _, err := io.Copy(io.Discard, client); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took > 2*time.Minute {
					t.Error("held for", took)
				}
				_ = client.Close()
				sender.Wait()
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestIdleSocketsLeaveRoom opens more sockets from one address than it may have.
func TestIdleSocketsLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pipes{make(chan net.Conn)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- node.ServeHTTP(ctx, l, http.NotFoundHandler(), nil) }()
		var conns []net.Conn
		for range 100 {
			client, server := net.Pipe()
			l.incoming <- server
			conns = append(conns, client)
		}
		synctest.Wait()
		open := 0
		for _, c := range conns {
			_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				open++
			}
		}
		if open != 64 {
			t.Errorf("%d of 100 sockets of one address are open", open)
		}
		for _, c := range conns {
			_ = c.Close()
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
