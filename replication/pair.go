package replication

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/zeebo/blake3"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/locate"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

const (
	pairTimeout  = 10 * time.Second
	maxPairFrame = 16 << 10
	refusedAfter = locate.RefusedAfter
)

// Pairing lets a node that holds an invite pair itself with the one that made it (/tinycloud/pair/1).
//
//	responder → nonce; dialer → nonce, secret, tag, addresses; responder → tag, addresses
//
// The connection is encrypted and both node peers are authenticated on it, so the secret is shown to nobody but the
// node that made it, which stores only its hash: whoever steals the database has no invite to use. The tags are MACs
// under the secret over both node peers and both nonces: what was said on one connection is of no use on another. A
// wrong, expired or used invite is refused as nonsense is, at the same time and in the same way.
//
// See docs/replication.md, "pair/1".
type Pairing struct{ o PairingOptions }

// PairingOptions are all required, but Metrics and Log.
type PairingOptions struct {
	Node  peer.ID               // of the node key
	Addrs func() []ma.Multiaddr // where this node is reached
	Store interface {
		UseInvite(ctx context.Context, id tinycloud.Hash, node hostlog.PairedNode) error
		Pair(ctx context.Context, node hostlog.PairedNode) error
	}
	Metrics *Metrics
	Log     *slog.Logger
}

// NewPairing returns what serves and uses invites.
func NewPairing(o PairingOptions) (*Pairing, error) {
	if o.Node == "" || o.Addrs == nil || o.Store == nil {
		return nil, fmt.Errorf("pairing without node, addresses or store: %w", tinycloud.ErrInvalid)
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Pairing{o}, nil
}

// pairTag binds the secret of an invite to the connection's two nodes and both nonces. Both peer ids are those of
// Ed25519 keys, so that they have one length.
func pairTag(secret [32]byte, dialer, responder peer.ID, hs *wire.Nonces, role string) (tag [32]byte) {
	h, err := blake3.NewKeyed(secret[:])
	if err != nil {
		panic(err) // the key has the right length
	}
	for _, part := range [][]byte{
		[]byte(wire.PairProtocol[1:]), []byte(dialer), []byte(responder), hs.Dialer[:], hs.Responder[:], []byte(role),
	} {
		_, _ = h.Write(part) // a hasher returns no error
	}
	h.Sum(tag[:0])
	return tag
}

// Serve answers one node that shows an invite, on a stream that has a deadline.
func (p *Pairing) Serve(ctx context.Context, s network.Stream) {
	asked := time.Now()
	defer func() { _ = s.Reset() }()
	err := p.answer(ctx, s, &asked)
	if err == nil {
		_ = s.Close()
		return
	}
	p.o.Metrics.refuse("pair")
	p.o.Log.InfoContext(ctx, "pairing refused", "node", s.Conn().RemotePeer(), "error", err)
	wait.For(ctx, refusedAfter-time.Since(asked))
}

// answer reads an invite and uses it. asked is set to when it came.
func (p *Pairing) answer(ctx context.Context, s network.Stream, asked *time.Time) error {
	f, stop, err := p.exchange(ctx, s)
	if err != nil {
		return err
	}
	defer stop()
	hs := &wire.Nonces{Responder: wire.NewNonce()}
	if err := f.Send(wire.Nonce{Nonce: hs.Responder}); err != nil {
		return err
	}
	var q wire.Pair
	err = f.Receive(&q)
	*asked = time.Now()
	if err != nil {
		return err
	}
	hs.Dialer = q.Nonce
	node, err := p.check(s.Conn(), &q, hs)
	if err != nil {
		return err
	}
	if err := p.o.Store.UseInvite(ctx, inviteID(q.Secret), node); err != nil {
		return err
	}
	p.o.Log.InfoContext(ctx, "paired with a node that showed an invite", "node", node.Peer, "addrs", node.Addrs)
	err = f.Send(wire.PairAnswer{
		Tag: pairTag(q.Secret, s.Conn().RemotePeer(), p.o.Node, hs, wire.RoleAnswerer), Addrs: pairAddrs(p.o.Addrs()),
	})
	if err != nil { // it may show the invite again
		p.o.Log.DebugContext(ctx, "a paired node does not hear that it is", "node", node.Peer, "error", err)
	}
	return nil
}

// check refuses what the invite itself is not needed for.
func (p *Pairing) check(c network.Conn, q *wire.Pair, hs *wire.Nonces) (node hostlog.PairedNode, err error) {
	id := c.RemotePeer()
	if _, err := wire.HostOf(id); err != nil {
		return node, err
	}
	want := pairTag(q.Secret, id, p.o.Node, hs, wire.RoleDialer)
	switch {
	case subtle.ConstantTimeCompare(want[:], q.Tag[:]) != 1:
		return node, fmt.Errorf("tag is of another invite or connection: %w", tinycloud.ErrForged)
	case id == p.o.Node:
		return node, fmt.Errorf("the node has this one's own key: %w", tinycloud.ErrInvalid)
	}
	node = hostlog.PairedNode{Peer: id.String()}
	node.Addrs, err = toldAddrs(q.Addrs, c)
	return node, err
}

// Use shows an invite to the node at the other end of a stream and remembers that node as paired. It may be repeated.
// The error is of class [tinycloud.ErrUnauthorized] when the node gives no answer: the invite has expired there, was
// used by another node, or is not one of it.
func (p *Pairing) Use(ctx context.Context, s network.Stream, i *Invite) (node hostlog.PairedNode, err error) {
	ctx, cancel := context.WithTimeout(ctx, pairTimeout)
	defer cancel()
	defer func() { _ = s.Reset() }()
	if id := s.Conn().RemotePeer(); id != i.Node || id == p.o.Node {
		return node, fmt.Errorf("invite is to %s, and this is %s: %w", i.Node, id, tinycloud.ErrInvalid)
	}
	a, err := p.show(ctx, s, i)
	if err != nil {
		return node, err
	}
	told, err := toldAddrs(a.Addrs, s.Conn())
	if err != nil {
		return node, err
	}
	node = hostlog.PairedNode{Peer: i.Node.String(), Addrs: reachedAt(s.Conn(), i.Addrs, told), Back: true}
	return node, p.o.Store.Pair(ctx, node)
}

// show runs the protocol as the dialer.
func (p *Pairing) show(ctx context.Context, s network.Stream, i *Invite) (a wire.PairAnswer, err error) {
	f, stop, err := p.exchange(ctx, s)
	if err != nil {
		return a, err
	}
	defer stop()
	var first wire.Nonce
	if err := f.Receive(&first); err != nil {
		return a, noPair(ctx, err)
	}
	hs := &wire.Nonces{Dialer: wire.NewNonce(), Responder: first.Nonce}
	err = f.Send(wire.Pair{
		Nonce: hs.Dialer, Secret: i.Secret, Tag: pairTag(i.Secret, p.o.Node, i.Node, hs, wire.RoleDialer), Addrs: pairAddrs(p.o.Addrs()),
	})
	if err != nil {
		return a, noPair(ctx, err)
	}
	if err := f.Receive(&a); err != nil {
		return a, noPair(ctx, err)
	}
	want := pairTag(i.Secret, p.o.Node, i.Node, hs, wire.RoleAnswerer)
	if subtle.ConstantTimeCompare(want[:], a.Tag[:]) != 1 {
		return a, fmt.Errorf("answer to another invite: %w", tinycloud.ErrForged)
	}
	return a, nil
}

func noPair(ctx context.Context, err error) error {
	if errors.Is(err, tinycloud.ErrInvalid) {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("the node does not answer: %w: %w", ctx.Err(), tinycloud.ErrUnavailable)
	}
	return fmt.Errorf("the node refuses the invite: it has expired, was used by another node or is not one of its own; its log has the reason: %w", tinycloud.ErrUnauthorized)
}

func (p *Pairing) exchange(ctx context.Context, s network.Stream) (*wire.Exchange, func() bool, error) {
	return wire.Bound(ctx, s, maxPairFrame, pairTimeout, p.o.Metrics.Bytes("pair"))
}

// toldAddrs are those of the addresses a node tells that it is dialed at: public ones, and those with the IP address
// that it is connected from. A node can't have others dialed in this one's own network.
func toldAddrs(told []string, c network.Conn) ([]string, error) {
	if len(told) > hostlog.MaxPairedAddrs {
		return nil, fmt.Errorf("%d addresses, at most %d: %w", len(told), hostlog.MaxPairedAddrs, tinycloud.ErrInvalid)
	}
	out := []string{}
	for _, text := range told {
		a, err := parsePairAddr(text)
		if err != nil {
			return nil, err
		}
		if manet.IsPublicAddr(a) || sameIP(a, c.RemoteMultiaddr()) {
			out = append(out, text)
		}
	}
	return out, nil
}

// sameIP says whether an address has the IP address that another one has itself, not through a relay.
func sameIP(a, observed ma.Multiaddr) bool {
	if _, err := observed.ValueForProtocol(ma.P_CIRCUIT); err == nil {
		return false
	}
	x, err := manet.ToIP(a)
	if err != nil {
		return false
	}
	y, err := manet.ToIP(observed)
	return err == nil && x.Equal(y)
}

// reachedAt are the addresses of a node: where it was reached now, where its invite says, and where it says.
func reachedAt(c network.Conn, invited []ma.Multiaddr, told []string) []string {
	var out []string
	add := func(text string) {
		if _, err := parsePairAddr(text); err == nil && len(out) < hostlog.MaxPairedAddrs && !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	if c.Stat().Direction == network.DirOutbound {
		add(c.RemoteMultiaddr().String())
	}
	for _, a := range invited {
		add(a.String())
	}
	for _, text := range told {
		add(text)
	}
	return out
}
