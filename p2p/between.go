package p2p

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
)

// Several processes may be one node. One of them has the front; the others are linked to it by one connection, and what
// goes between their Space peers and the fronts of other nodes passes through it, stream by stream, as it is. So other
// nodes see one front, whichever process has a Space. What processes say to each other begins with an errand, in JSON
// behind its length; they prove to each other that they know the node's secret, so none of it comes from outside.

// processProtocol is spoken between the processes of a node.
const processProtocol = "/tinycloud/process/1"

const (
	maxErrand     = 256 << 10        // bytes of what begins a stream, or answers it
	errandTimeout = 30 * time.Second // of what is asked of another node meanwhile
	linkSilence   = 10 * time.Second // after which a process that says nothing is taken for dead
	maxLost       = 1024             // fronts that a process is told of at once
)

// What a process wants of another.
const (
	errandLink      = "link"      // to the front, first and for as long as the link lasts
	errandStream    = "stream"    // to the front: a stream to another one
	errandDial      = "dial"      // to the front: a connection with another one
	errandKeep      = "keep"      // to the front: that connection, until the stream ends
	errandProvide   = "provide"   // to the front: announce a name in the DHT
	errandProviders = "providers" // to the front: who is announced there
	errandConnect   = "connect"   // from the front: somebody's CONNECT
	errandShare     = "share"     // from the front: have two other ones a Space in common
	errandCall      = "call"      // either way: what the node makes of it
)

// errand begins a stream between processes.
type errand struct {
	Kind   string
	Front  string      `json:",omitempty"` // peer id of another node's front
	Other  string      `json:",omitempty"` // of one more
	Addrs  []string    `json:",omitempty"` // of Front
	Proto  protocol.ID `json:",omitempty"`
	Space  string      `json:",omitempty"` // peer id
	Origin []byte      `json:",omitempty"` // see [Caller]
	Name   []byte      `json:",omitempty"`
	Body   []byte      `json:",omitempty"`
}

// reply answers an errand.
type reply struct {
	Error string          `json:",omitempty"`
	Class string          `json:",omitempty"` // of the error, see classes
	Addr  string          `json:",omitempty"` // by which a front is connected
	Nodes []peer.AddrInfo `json:",omitempty"`
	Yes   bool            `json:",omitempty"`
	Body  []byte          `json:",omitempty"`
}

// classes are the errors whose class passes from one process to another.
var classes = map[string]error{"unreachable": ErrUnreachable, "invalid": ErrInvalid, "busy": ErrBusy, "closed": ErrClosed}

const classProtocol = "protocol" // multistream.ErrNotSupported

func refusal(err error) reply {
	r := reply{Error: err.Error()}
	for class, is := range classes {
		if errors.Is(err, is) {
			r.Class = class
		}
	}
	if errors.As(err, new(multistream.ErrNotSupported[protocol.ID])) {
		r.Class = classProtocol
	}
	return r
}

// err is the error that an errand ended with.
func (r reply) err() error {
	switch {
	case r.Error == "" && r.Class == "":
		return nil
	case r.Class == classProtocol:
		return fmt.Errorf("%s: %w: %w", r.Error, ErrUnreachable, multistream.ErrNotSupported[protocol.ID]{})
	}
	if class, ok := classes[r.Class]; ok {
		return fmt.Errorf("%s: %w", r.Error, class)
	}
	return errors.New(r.Error)
}

func writeMessage(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > maxErrand {
		return fmt.Errorf("message of %d bytes: %w", len(b), ErrInvalid)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

func readMessage(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxErrand {
		return fmt.Errorf("message of %d bytes: %w", n, ErrInvalid)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("message: %v: %w", err, ErrInvalid)
	}
	return nil
}

// sent opens a stream on a connection with another process and writes an errand.
func sent(ctx context.Context, c network.Conn, q errand) (network.Stream, error) {
	raw, err := c.NewStream(ctx)
	if err != nil {
		return nil, fmt.Errorf("other process: %w: %w", ErrUnreachable, err)
	}
	if err = raw.SetProtocol(processProtocol); err == nil {
		s := newLazyStream(raw, processProtocol)
		_ = s.SetWriteDeadline(time.Now().Add(hopTimeout))
		err = errors.Join(writeMessage(s, q), s.SetWriteDeadline(time.Time{}))
		if err == nil {
			return s, nil
		}
	}
	_ = raw.Reset()
	return nil, fmt.Errorf("other process: %w: %w", ErrUnreachable, err)
}

// run sends an errand and waits for the answer. The stream is reset when ctx ends before.
func run(ctx context.Context, c network.Conn, q errand) (network.Stream, reply, error) {
	ctx, cancel := context.WithTimeout(ctx, errandTimeout)
	defer cancel()
	s, err := sent(ctx, c, q)
	if err != nil {
		return nil, reply{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	var r reply
	err = readMessage(s, &r)
	if !stop() {
		err = ctx.Err()
	} else if err != nil {
		err = fmt.Errorf("other process: %w: %w", ErrUnreachable, err)
	} else {
		err = r.err()
	}
	if err != nil {
		_ = s.Reset()
		return nil, r, err
	}
	return s, r, nil
}

// asked is run of an errand whose stream ends with the answer.
func asked(ctx context.Context, c network.Conn, q errand) (reply, error) {
	s, r, err := run(ctx, c, q)
	if err == nil {
		_ = s.Reset()
	}
	return r, err
}

// passed is a stream of another node that came through another process.
type passed struct {
	network.Stream
	conn passedConn
}

func newPassed(s network.Stream, remote peer.ID, addr string) *passed {
	a, err := ma.NewMultiaddr(addr)
	if err != nil {
		a = throughFront(remote)
	}
	return &passed{s, passedConn{s.Conn(), remote, a}}
}

func (s *passed) Conn() network.Conn { return s.conn }

// passedConn is the connection that such a stream is taken to be on.
type passedConn struct {
	network.Conn
	remote peer.ID
	addr   ma.Multiaddr
}

func (c passedConn) RemotePeer() peer.ID           { return c.remote }
func (c passedConn) RemoteMultiaddr() ma.Multiaddr { return c.addr }
