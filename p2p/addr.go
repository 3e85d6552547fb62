package p2p

import (
	"crypto/ed25519"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// PeerIDFromEd25519 returns the peer ID of a public key. pub must be
// [ed25519.PublicKeySize] bytes.
func PeerIDFromEd25519(pub ed25519.PublicKey) (peer.ID, error) {
	k, err := crypto.UnmarshalEd25519PublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("public key of %d bytes: %w", len(pub), ErrInvalid)
	}
	return peer.IDFromPublicKey(k)
}

// Ed25519FromPeerID returns the public key inside id. Peer IDs that hold
// another kind of key, or only the hash of one, are [ErrInvalid].
func Ed25519FromPeerID(id peer.ID) (ed25519.PublicKey, error) {
	k, err := id.ExtractPublicKey()
	if err != nil {
		return nil, fmt.Errorf("peer id without a key: %w", ErrInvalid)
	}
	if k.Type() != crypto.Ed25519 {
		return nil, fmt.Errorf("peer id with a %s key: %w", k.Type(), ErrInvalid)
	}
	raw, err := k.Raw()
	if err != nil {
		return nil, fmt.Errorf("peer id %s: %w", id, ErrInvalid)
	}
	return ed25519.PublicKey(raw), nil
}

// ParseSpaceAddr parses the address of a Space peer,
//
//	<transport>/p2p/<front peer>/p2p-circuit/p2p/<space peer>
//
// with <transport> such as /ip4/192.0.2.1/tcp/4001. The result has the Space
// peer as ID and <transport>/p2p/<front peer>/p2p-circuit as its one address,
// which is what [Peer.Connect] takes. Errors are [ErrInvalid].
func ParseSpaceAddr(s string) (peer.AddrInfo, error) {
	fail := func(what string) (peer.AddrInfo, error) {
		return peer.AddrInfo{}, fmt.Errorf("space address %q: %s: %w", s, what, ErrInvalid)
	}
	a, err := ma.NewMultiaddr(s)
	if err != nil {
		return fail("not a multiaddr")
	}
	relay, rest := splitCircuit(a)
	if len(rest) == 0 {
		return fail("no /p2p-circuit in it (a front's own address?)")
	}
	front, err := frontOf(relay)
	if err != nil {
		return fail("the part before /p2p-circuit must end in /p2p/<front peer>")
	}
	if len(front.Addrs) == 0 {
		return fail("no transport address before /p2p/<front peer>")
	}
	if len(rest) != 2 || rest[1].Protocol().Code != ma.P_P2P {
		return fail("the part after /p2p-circuit must be /p2p/<space peer>")
	}
	space, err := peer.Decode(rest[1].Value())
	if err != nil {
		return fail("bad space peer")
	}
	if _, err := Ed25519FromPeerID(space); err != nil {
		return fail("the space peer is not an ed25519 key")
	}
	if space == front.ID {
		return fail("front and space peer are the same")
	}
	return peer.AddrInfo{ID: space, Addrs: []ma.Multiaddr{relay.Encapsulate(circuitAddr())}}, nil
}

// ParseFrontAddr parses the address of a front, <transport>/p2p/<front peer>.
// Errors are [ErrInvalid].
func ParseFrontAddr(s string) (peer.AddrInfo, error) {
	fail := func(what string) (peer.AddrInfo, error) {
		return peer.AddrInfo{}, fmt.Errorf("node address %q: %s: %w", s, what, ErrInvalid)
	}
	a, err := ma.NewMultiaddr(s)
	if err != nil {
		return fail("not a multiaddr")
	}
	if _, rest := splitCircuit(a); len(rest) > 0 {
		return fail("it has a /p2p-circuit in it")
	}
	front, err := frontOf(a)
	if err != nil {
		return fail("it must end in /p2p/<node peer>")
	}
	if len(front.Addrs) == 0 {
		return fail("no transport address before /p2p/<node peer>")
	}
	if _, err := Ed25519FromPeerID(front.ID); err != nil {
		return fail("the node peer is not an ed25519 key")
	}
	return front, nil
}

// splitCircuit cuts a before its first /p2p-circuit; rest is empty without one.
func splitCircuit(a ma.Multiaddr) (relay, rest ma.Multiaddr) {
	return ma.SplitFunc(a, func(c ma.Component) bool { return c.Protocol().Code == ma.P_CIRCUIT })
}

// frontOf reads <transport>/p2p/<front>. Addrs is empty when relay names the
// front alone, which is enough to reach one that is connected already.
func frontOf(relay ma.Multiaddr) (peer.AddrInfo, error) {
	transport, id := peer.SplitAddr(relay)
	if id == "" {
		return peer.AddrInfo{}, fmt.Errorf("no front peer: %w", ErrInvalid)
	}
	if len(transport) == 0 {
		return peer.AddrInfo{ID: id}, nil
	}
	if _, err := transport.ValueForProtocol(ma.P_P2P); err == nil {
		return peer.AddrInfo{}, fmt.Errorf("more than one front peer: %w", ErrInvalid)
	}
	return peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{transport}}, nil
}

// throughFront is /p2p/<front>/p2p-circuit. It has no IP address in it, so
// that per-IP limits count the physical connection and not every Space on it.
func throughFront(front peer.ID) ma.Multiaddr {
	return withPeer(nil, front).Encapsulate(circuitAddr())
}

func circuitAddr() ma.Multiaddr { return ma.StringCast("/p2p-circuit") }

func withPeer(a ma.Multiaddr, id peer.ID) ma.Multiaddr {
	p := ma.StringCast("/p2p/" + id.String())
	if len(a) == 0 {
		return p
	}
	return a.Encapsulate(p)
}

// ParseAddrs reads the addresses among some texts; what is none is left out.
func ParseAddrs(texts []string) (out []ma.Multiaddr) {
	for _, text := range texts {
		if a, err := ma.NewMultiaddr(text); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// AddrTexts are addresses as texts.
func AddrTexts(addrs []ma.Multiaddr) []string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a.String()
	}
	return out
}
