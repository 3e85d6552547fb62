package cluster_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// BenchmarkHTTP measures puts and gets of 1 KiB values over HTTP, against a process of its own on disk.
// The clients, which sign their tokens, share the machine with it.
func BenchmarkHTTP(b *testing.B) {
	c, o := hosts(b, 1, false)
	p := c.Peers()[0]
	if err := o.Put(b.Context(), p, "read", value(0)); err != nil {
		b.Fatal(err)
	}
	for _, clients := range []int{1, 16} {
		for name, op := range map[string]func(ctx context.Context, i int) error{
			"put": func(ctx context.Context, i int) error {
				return o.Put(ctx, p, fmt.Sprintf("k/%d/%d", clients, i), value(i))
			},
			"get": func(ctx context.Context, i int) error { _, err := o.Get(ctx, p, "read"); return err },
		} {
			b.Run(fmt.Sprintf("%s/clients=%d", name, clients), func(b *testing.B) {
				measured(b, c.Peers(), clients, op)
			})
		}
	}
}

// BenchmarkHTTPReady measures what BenchmarkHTTP does, by clients that cost little: each has a connection of its own that is
// kept, the requests are signed and written out before the clock starts, and of an answer only what is looked at is read.
// What the node and the clients took of the processors is told for each request.
func BenchmarkHTTPReady(b *testing.B) {
	c, o := hosts(b, 1, false)
	p := c.Peers()[0]
	if err := o.Put(b.Context(), p, "read", value(0)); err != nil {
		b.Fatal(err)
	}
	round := 0
	for _, clients := range []int{1, 16} {
		for _, name := range []string{"put", "get"} {
			b.Run(fmt.Sprintf("%s/clients=%d", name, clients), func(b *testing.B) {
				round++
				requests := make([][]byte, b.N)
				for i := range requests {
					if name == "put" {
						key := fmt.Sprintf("kv/k/%d/%d", round, i)
						requests[i] = invocation(p, o.Token(key, "tinycloud.kv/put"), value(i))
					} else {
						requests[i] = invocation(p, o.Token("kv/read", "tinycloud.kv/get"), nil)
					}
				}
				length := map[string]int{"put": 0, "get": len(value(0))}[name]
				free := dialLines(b, p, clients)
				measured(b, c.Peers(), clients, func(_ context.Context, i int) error { return free.ask(requests[i], length) })
			})
		}
	}
}

// measured drives requests to peers and reports how long they took, and what the peers and this process took of the
// processors.
func measured(b *testing.B, peers []*cluster.Peer, clients int, op func(ctx context.Context, i int) error) {
	b.Helper()
	nodes := func() (sum float64) {
		for _, p := range peers {
			sum += cpu(b, p)
		}
		return sum
	}
	node, own := nodes(), spent(b)
	b.ResetTimer()
	took := drive(b, clients, b.N, op)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
	b.ReportMetric((nodes()-node)*1e6/float64(b.N), "node-µs/op")
	b.ReportMetric((spent(b)-own)*1e6/float64(b.N), "client-µs/op")
	percentiles(b, took)
}

// invocation is a request as net/http's client would write it.
func invocation(p *cluster.Peer, token string, body []byte) []byte {
	var r bytes.Buffer
	fmt.Fprintf(&r, "POST /invoke HTTP/1.1\r\nHost: %s\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: %d\r\nAuthorization: %s\r\nAccept-Encoding: gzip\r\n\r\n",
		strings.TrimPrefix(p.URL, "http://"), len(body), token)
	r.Write(body)
	return r.Bytes()
}

// line is a connection of a client that asks one thing after another.
type line struct {
	conn net.Conn
	in   *bufio.Reader
}

func dialLine(p *cluster.Peer) (*line, error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.URL, "http://"))
	if err != nil {
		return nil, err
	}
	return &line{conn, bufio.NewReader(conn)}, nil
}

// lines are those to a peer that nobody uses now.
type lines chan *line

// dialLines connects some clients to a peer, until the end of a benchmark.
func dialLines(b *testing.B, p *cluster.Peer, clients int) lines {
	b.Helper()
	free := make(lines, clients)
	for range clients {
		l, err := dialLine(p)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = l.conn.Close() })
		free <- l
	}
	return free
}

// ask is [line.ask] of one of them.
func (free lines) ask(request []byte, length int) error {
	l := <-free
	defer func() { free <- l }()
	return l.ask(request, length)
}

// ask sends a request and reads the answer, which has to be 200 with a body of so many bytes.
func (l *line) ask(request []byte, length int) error {
	if _, err := l.conn.Write(request); err != nil {
		return err
	}
	status, err := l.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("answer %.200q", status)
	}
	told := -1
	for {
		field, err := l.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if field = bytes.TrimSpace(field); len(field) == 0 {
			break
		}
		if text, ok := bytes.CutPrefix(field, []byte("Content-Length: ")); ok {
			if told, err = strconv.Atoi(string(text)); err != nil {
				return err
			}
		}
	}
	if told != length {
		return fmt.Errorf("a body of %d bytes, not %d", told, length)
	}
	if n, err := l.in.Discard(length); err != nil {
		return errors.Join(err, io.ErrUnexpectedEOF, fmt.Errorf("after %d bytes", n))
	}
	return nil
}

// spent is how much time of processors this process has taken, in seconds.
func spent(b *testing.B) float64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return (time.Duration(u.Utime.Nano()) + time.Duration(u.Stime.Nano())).Seconds()
}
