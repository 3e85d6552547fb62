package p2p

import (
	"bytes"
	"context"
	"fmt"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/multiformats/go-multistream"
)

// Whom this package dials speaks noise or is of no use, so the dialer does not wait until the other side has agreed
// to it: that would be a round trip on each of the two connections that make one between Spaces. On the wire it is
// the same multistream-select as ever.

// eager returns a dialed connection, to be upgraded, whose noise handshake does not wait. What is written to it must not
// wait for the other side to read.
func eager(c manet.Conn) manet.Conn {
	return &eagerConn{Conn: c, granted: agreement(noise.ID), awaited: agreement(noise.ID)}
}

// eagerUpgrader is an upgrader that does so with what was dialed.
type eagerUpgrader struct{ transport.Upgrader }

func (u eagerUpgrader) Upgrade(ctx context.Context, t transport.Transport, c manet.Conn, dir network.Direction, p peer.ID, scope network.ConnManagementScope) (transport.CapableConn, error) {
	if dir == network.DirOutbound {
		c = eager(c)
	}
	return u.Upgrader.Upgrade(ctx, t, c, dir, p, scope)
}

// agreement is what a server says that accepts a protocol.
func agreement(proto protocol.ID) []byte {
	var b []byte
	for _, line := range []string{multistream.ProtocolID, string(proto)} {
		b = append(append(append(b, byte(len(line)+1)), line...), '\n') // a varint of one byte
	}
	return b
}

// eagerConn is a connection whose reader first gets the other side's agreement, which is checked when it comes.
type eagerConn struct {
	manet.Conn
	granted []byte // what the reader still gets
	awaited []byte // what the other side still has to say
}

func (c *eagerConn) Read(b []byte) (int, error) {
	if len(c.granted) > 0 {
		n := copy(b, c.granted)
		c.granted = c.granted[n:]
		return n, nil
	}
	for len(c.awaited) > 0 {
		said := make([]byte, len(c.awaited))
		n, err := c.Conn.Read(said)
		if !bytes.HasPrefix(c.awaited, said[:n]) {
			return 0, fmt.Errorf("other side does not speak %s: %w", noise.ID, ErrUnreachable)
		}
		c.awaited = c.awaited[n:]
		if err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(b)
}

// Stat passes on what the connection below carries.
func (c *eagerConn) Stat() network.ConnStats {
	if s, ok := c.Conn.(network.ConnStat); ok {
		return s.Stat()
	}
	return network.ConnStats{}
}

var _ network.ConnStat = (*eagerConn)(nil)
