package replication

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

// InvitePrefix is how the text of an invite begins.
const InvitePrefix = "tinycloud-pair:"

const (
	inviteVersion = 1
	maxInviteText = 8192
	maxInviteAddr = 16
	maxPairAddr   = 256 // bytes of the text of an address
	inviteDomain  = "tinycloud/invite/1"
)

// Invite lets one node pair itself with the node that made it. Whoever has the text may use it, once.
//
// See docs/replication.md, "Pairing".
type Invite struct {
	Node    peer.ID        // of the node that made it
	Addrs   []ma.Multiaddr // where that is, without /p2p
	Secret  [32]byte
	Expires time.Time // whole seconds; the node that made it decides by its own record
}

// inviteMessage is what the text of an invite encodes.
type inviteMessage struct {
	_       struct{} `cbor:",toarray"`
	V       uint64
	Node    [32]byte // the key inside the peer id
	Addrs   [][]byte // multiaddrs
	Secret  [32]byte
	Expires int64 // unix seconds
}

// NewInvite makes an invite with a new secret to a node at some addresses, of which it takes those that others can
// use. The error is of class [tinycloud.ErrInvalid] when there are none.
func NewInvite(node peer.ID, addrs []ma.Multiaddr, expires time.Time) (Invite, error) {
	i := Invite{Node: node, Expires: expires.Truncate(time.Second).UTC()}
	_, _ = rand.Read(i.Secret[:]) // never fails
	for _, text := range pairAddrs(addrs) {
		if len(i.Addrs) < maxInviteAddr {
			i.Addrs = append(i.Addrs, ma.StringCast(text))
		}
	}
	if len(i.Addrs) == 0 {
		return i, fmt.Errorf("invite to a node without an address to be reached at: %w", tinycloud.ErrInvalid)
	}
	_, err := wire.HostOf(node)
	return i, err
}

// ID is what the node that made the invite stores of it: the secret can't be found from it.
func (i *Invite) ID() tinycloud.Hash { return inviteID(i.Secret) }

func inviteID(secret [32]byte) tinycloud.Hash {
	return tinycloud.Sum(append([]byte(inviteDomain), secret[:]...))
}

// Text is the invite on one line, for [ParseInvite]. Its fields have to be as that returns them.
func (i *Invite) Text() string {
	key, _ := wire.HostOf(i.Node)
	m := inviteMessage{V: inviteVersion, Node: key, Secret: i.Secret, Expires: i.Expires.Unix()}
	for _, a := range i.Addrs {
		m.Addrs = append(m.Addrs, a.Bytes())
	}
	b, err := wire.Encode(m)
	if err != nil {
		panic(err) // bytes and numbers have an encoding
	}
	return InvitePrefix + base64.RawURLEncoding.EncodeToString(b)
}

// ParseInvite reads what [Invite.Text] writes. White space, such as breaks of lines, may have come in. Whether the
// invite has expired is not looked at. Errors are of class [tinycloud.ErrInvalid] and hold nothing of the text.
func ParseInvite(text string) (i Invite, err error) {
	fail := func(what string) (Invite, error) {
		return Invite{}, fmt.Errorf("invite: %s: %w", what, tinycloud.ErrInvalid)
	}
	if len(text) > maxInviteText {
		return fail(fmt.Sprintf("%d characters, at most %d", len(text), maxInviteText))
	}
	code, ok := strings.CutPrefix(strings.Join(strings.Fields(text), ""), InvitePrefix)
	if !ok {
		return fail("does not begin with " + InvitePrefix)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(code)
	if err != nil {
		return fail("not whole, or changed on its way")
	}
	var m inviteMessage
	if err := wire.Decode(b, &m); err != nil {
		return fail("not whole, or changed on its way")
	}
	switch {
	case m.V != inviteVersion:
		return fail(fmt.Sprintf("of version %d, this program reads %d", m.V, inviteVersion))
	case len(m.Addrs) == 0 || len(m.Addrs) > maxInviteAddr:
		return fail(fmt.Sprintf("%d addresses, expected 1 to %d", len(m.Addrs), maxInviteAddr))
	case m.Expires < 0 || m.Expires > maxExpires:
		return fail("expires at no time")
	}
	i = Invite{Node: wire.PeerOf(m.Node), Secret: m.Secret, Expires: time.Unix(m.Expires, 0).UTC()}
	for _, b := range m.Addrs {
		a, err := ma.NewMultiaddrBytes(b)
		if err != nil || len(b) > maxPairAddr {
			return fail("an address is no multiaddr")
		}
		if _, err := parsePairAddr(a.String()); err != nil || !slices.Equal(a.Bytes(), b) {
			return fail("an address is not that of a node")
		}
		i.Addrs = append(i.Addrs, a)
	}
	return i, nil
}

// maxExpires is the last second of the year 9999: later ones have no text.
const maxExpires = 253_402_300_799

// parsePairAddr reads the address of a front in its one spelling, without /p2p.
func parsePairAddr(text string) (ma.Multiaddr, error) {
	if len(text) > maxPairAddr {
		return nil, fmt.Errorf("address of %d bytes: %w", len(text), tinycloud.ErrInvalid)
	}
	a, err := ma.NewMultiaddr(text)
	if err != nil || len(a) == 0 || a.String() != text {
		return nil, fmt.Errorf("address is no multiaddr: %w", tinycloud.ErrInvalid)
	}
	for _, c := range a {
		if code := c.Protocol().Code; code == ma.P_P2P || code == ma.P_CIRCUIT {
			return nil, fmt.Errorf("address has /%s in it: %w", c.Protocol().Name, tinycloud.ErrInvalid)
		}
	}
	return a, nil
}

// pairAddrs are the addresses of this node that another may be told, those of use to more nodes first. Loopback is
// told only when there is nothing else.
func pairAddrs(addrs []ma.Multiaddr) []string {
	var public, private, loopback []string
	for _, a := range addrs {
		transport, _ := peer.SplitAddr(a)
		if len(transport) == 0 {
			continue
		}
		text := transport.String()
		switch _, err := parsePairAddr(text); {
		case err != nil:
		case manet.IsIPLoopback(transport):
			loopback = append(loopback, text)
		case manet.IsPublicAddr(transport):
			public = append(public, text)
		default:
			private = append(private, text)
		}
	}
	out := append(public, private...)
	if len(out) == 0 {
		out = loopback
	}
	return out[:min(len(out), hostlog.MaxPairedAddrs)]
}
