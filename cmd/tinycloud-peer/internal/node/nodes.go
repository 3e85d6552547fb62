package node

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multistream"
	"rsc.io/qr"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

// Nodes that are named, by pairing or in the configuration, are asked about every Space that comes to this node
// (docs/replication.md, "Order"). That gives them no right: data needs the owner's host delegations on both sides.

// reachTimeout is how long the operator waits for another node.
const reachTimeout = 10 * time.Second

// NodeView is a node that is asked about every Space.
type NodeView struct {
	Peer   string     `json:"peer"`
	Alias  string     `json:"alias"` // the operator's name of it; "": none
	Addrs  []string   `json:"addrs"`
	Back   bool       `json:"back"`   // it asks this node too: an invite was used between the two
	Since  *time.Time `json:"since"`  // of the pairing; null for one of the configuration
	Source string     `json:"source"` // paired, bootstrap
	Silent *time.Time `json:"silent"` // since when it gives no answer; null: it does, or was not asked
	Heard  *time.Time `json:"heard"`  // when it was last connected or gave an answer, since this process began; null: never
}

// PairRequest is the body of POST /admin/nodes: one of the two.
type PairRequest struct {
	Addr   string `json:"addr,omitempty"`   // of a node
	Invite string `json:"invite,omitempty"` // that another node made
}

// InviteRequest is the body of POST /admin/invites.
type InviteRequest struct {
	Expires string `json:"expires,omitempty"` // a duration of at most 24h, the default
	QR      bool   `json:"qr,omitempty"`      // a picture of it, too
}

// InviteView is an invite that was made. Its text is told once.
type InviteView struct {
	Invite  string    `json:"invite,omitempty"`
	Expires time.Time `json:"expires"`
	UsedBy  string    `json:"usedBy"`       // peer id; "" while it is open
	QR      string    `json:"qr,omitempty"` // the invite as a QR code: a PNG in a data URL
}

func (n *Node) openPairing(ctx context.Context) (err error) {
	id, err := p2p.PeerIDFromEd25519(n.nodeKey())
	if err != nil {
		return err
	}
	if paired := n.store.PairedCount(); paired > 0 && n.cfg.P2P.Isolated {
		n.log.WarnContext(ctx, "p2p.isolated is set: paired nodes are not asked", "paired", paired)
	}
	n.pairing, err = replication.NewPairing(replication.PairingOptions{
		Node: id, Addrs: n.nodeAddrs, Store: n.store, Metrics: n.spaces.metrics, Log: n.log.With("part", "pairing"),
	})
	return err
}

func (n *Node) adminNodes(r *http.Request) (int, any, error) {
	out := []NodeView{}
	pairs, err := n.store.Paired(r.Context())
	if err != nil {
		return 0, nil, err
	}
	names, err := n.aliasNames(r.Context())
	if err != nil {
		return 0, nil, err
	}
	for _, p := range pairs {
		out = append(out, n.pairedView(p))
	}
	for _, text := range n.cfg.P2P.Bootstrap {
		to, err := parseTarget(text)
		if err != nil || to.front.ID.String() == n.frontID() || slices.ContainsFunc(out, func(v NodeView) bool { return v.Peer == to.front.ID.String() }) {
			continue
		}
		out = append(out, n.nodeView(NodeView{Peer: to.front.ID.String(), Addrs: p2p.AddrTexts(to.front.Addrs), Source: "bootstrap"}))
	}
	for i := range out {
		out[i].Alias = names[out[i].Peer]
	}
	return http.StatusOK, out, nil
}

func (n *Node) pairedView(p hostlog.PairedNode) NodeView {
	return n.nodeView(NodeView{Peer: p.Peer, Addrs: p.Addrs, Back: p.Back, Since: stamp(p.Since), Source: "paired"})
}

// nodeView adds how a node does.
func (n *Node) nodeView(v NodeView) NodeView {
	silent, heard := n.spaces.asker.does(v.Peer)
	v.Silent, v.Heard = stamp(silent), stamp(heard)
	return v
}

// does is since when a named node gives no answer, and when it last gave one. It may be named for several Spaces: it is
// silent when it is for all of them.
func (a *asker) does(id string) (silent, heard time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	answers := false
	for _, x := range a.nodes {
		if x.front.ID.String() != id {
			continue
		}
		answers = answers || x.silent.IsZero()
		if silent.IsZero() || x.silent.Before(silent) {
			silent = x.silent
		}
		if x.heard.After(heard) {
			heard = x.heard
		}
	}
	if answers {
		silent = time.Time{}
	}
	return silent, heard
}

// errPairIsolated refuses what would tell two Spaces' entrances to be of one node, or what no node is asked for.
func (n *Node) errPairIsolated() error {
	if n.alone() {
		return errAlone()
	}
	if n.cfg.P2P.Isolated {
		return fmt.Errorf("nodes are not paired with p2p.isolated, which keeps what Spaces have in common from others: %w", tinycloud.ErrUnsupported)
	}
	return nil
}

func (n *Node) adminPair(r *http.Request) (int, any, error) {
	var q PairRequest
	if err := decodeBody(r, &q); err != nil {
		return 0, nil, err
	}
	if err := n.errPairIsolated(); err != nil {
		return 0, nil, err
	}
	var p hostlog.PairedNode
	var unreached, err error
	switch {
	case q.Addr != "" && q.Invite == "":
		p, unreached, err = n.pairAddr(r.Context(), q.Addr)
	case q.Invite != "" && q.Addr == "":
		p, err = n.pairInvite(r.Context(), q.Invite)
	default:
		err = fmt.Errorf("expected addr or invite: %w", tinycloud.ErrInvalid)
	}
	if err != nil {
		return 0, nil, err
	}
	n.log.InfoContext(r.Context(), "paired", "node", p.Peer, "back", p.Back, "addrs", p.Addrs)
	names, err := n.aliasNames(r.Context())
	if err != nil {
		return 0, nil, err
	}
	v := n.pairedView(p)
	v.Alias = names[v.Peer]
	if unreached == nil {
		return http.StatusOK, v, nil
	}
	if v.Silent == nil {
		v.Silent = stamp(time.Now())
	}
	return http.StatusAccepted, v, nil
}

// pairAddr has this node ask another one, which learns nothing of that but the questions. One that is out of reach, as
// unreached tells, is tried later; another node than the one that is named is refused.
func (n *Node) pairAddr(ctx context.Context, text string) (p hostlog.PairedNode, unreached, err error) {
	to, err := parseTarget(text)
	if err != nil {
		_, err = p2p.ParseFrontAddr(text) // which says what is wrong with the address of a node
		return p, nil, fmt.Errorf("addr: %w", err)
	}
	switch {
	case to.space != "":
		return p, nil, fmt.Errorf("addr: %s is of a Space: its node's address ends in /p2p/%s: %w", text, to.front.ID, tinycloud.ErrInvalid)
	case to.front.ID.String() == n.frontID():
		return p, nil, fmt.Errorf("addr: %s is this node: %w", text, tinycloud.ErrInvalid)
	}
	if front := n.front.Load(); front != nil { // else the process that replicates finds out
		reaching, cancel := context.WithTimeout(ctx, reachTimeout)
		defer cancel()
		unreached = front.Connect(reaching, to.front)
	}
	if err := otherNode(unreached, to.front); err != nil {
		return p, nil, fmt.Errorf("addr: %w", err)
	}
	// Who hangs up has asked for it all the same.
	p, err = n.pair(context.WithoutCancel(ctx), hostlog.PairedNode{Peer: to.front.ID.String(), Addrs: p2p.AddrTexts(to.front.Addrs)})
	return p, unreached, err
}

// otherNode tells of another node at an address where one is named, nil when a dial failed for other reasons. What was
// dialed besides, since it is known from before, says nothing of the addresses that are named.
func otherNode(err error, named peer.AddrInfo) error {
	var dial *swarm.DialError
	if !errors.As(err, &dial) {
		return nil
	}
	for _, tried := range dial.DialErrors {
		var mismatch sec.ErrPeerIDMismatch
		if errors.As(tried.Cause, &mismatch) && slices.ContainsFunc(named.Addrs, tried.Address.Equal) {
			return fmt.Errorf("the node at %s is %s, not %s: %w", tried.Address, mismatch.Actual, named.ID, tinycloud.ErrConflict)
		}
	}
	return nil
}

func (n *Node) pair(ctx context.Context, p hostlog.PairedNode) (hostlog.PairedNode, error) {
	if err := n.store.Pair(ctx, p); err != nil {
		return p, err
	}
	return n.pairedNode(ctx, p.Peer)
}

func (n *Node) pairedNode(ctx context.Context, id string) (hostlog.PairedNode, error) {
	pairs, err := n.store.Paired(ctx)
	if i := slices.IndexFunc(pairs, func(p hostlog.PairedNode) bool { return p.Peer == id }); i >= 0 {
		return pairs[i], err
	}
	return hostlog.PairedNode{}, errors.Join(err, fmt.Errorf("%s is not paired: %w", id, tinycloud.ErrNotFound))
}

// pairInvite shows an invite to the node that made it.
func (n *Node) pairInvite(ctx context.Context, text string) (p hostlog.PairedNode, err error) {
	i, err := replication.ParseInvite(text)
	switch {
	case err != nil:
		return p, err
	case i.Node.String() == n.frontID():
		return p, fmt.Errorf("invite: it was made by this node: %w", tinycloud.ErrInvalid)
	case time.Now().After(i.Expires):
		return p, fmt.Errorf("invite: it expired at %s: %w", i.Expires.Format(time.RFC3339), tinycloud.ErrInvalid)
	}
	front := n.front.Load()
	if front == nil {
		return p, fmt.Errorf("another process replicates: %w", tinycloud.ErrUnavailable)
	}
	// Who hangs up has asked for it all the same: the invite may be used by then.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reachTimeout)
	defer cancel()
	to := peer.AddrInfo{ID: i.Node, Addrs: i.Addrs}
	s, err := front.NewStream(ctx, to, wire.PairProtocol)
	if err != nil {
		return p, noStream(to, err)
	}
	if p, err = n.pairing.Use(ctx, s, &i); err != nil {
		return p, err
	}
	return n.pairedNode(ctx, p.Peer)
}

// noStream tells what is wrong with the node of an invite.
func noStream(to peer.AddrInfo, err error) error {
	var unknown multistream.ErrNotSupported[protocol.ID]
	if errors.As(err, &unknown) {
		return fmt.Errorf("invite: %s does not pair: it has an older version, or p2p.isolated: %w", to.ID, tinycloud.ErrUnsupported)
	}
	if other := otherNode(err, to); other != nil {
		return fmt.Errorf("invite: %w", other)
	}
	return fmt.Errorf("invite: its node is out of reach: %w", errors.Join(err, tinycloud.ErrUnavailable))
}

func (n *Node) adminUnpair(r *http.Request) (int, any, error) {
	id := r.PathValue("peer")
	p, err := n.pairedNode(r.Context(), id)
	if err == nil {
		err = n.store.Unpair(r.Context(), id)
	}
	configured := slices.ContainsFunc(n.cfg.P2P.Bootstrap, func(text string) bool {
		to, err := parseTarget(text)
		return err == nil && to.front.ID.String() == id
	})
	switch {
	case errors.Is(err, tinycloud.ErrNotFound) && configured:
		return 0, nil, fmt.Errorf("%s is not paired, p2p.bootstrap names it: %w", id, tinycloud.ErrConflict)
	case err != nil:
		return 0, nil, err
	}
	names, err := n.aliasNames(r.Context())
	if err != nil {
		return 0, nil, err
	}
	n.log.InfoContext(r.Context(), "unpaired", "node", id, "configured", configured)
	v := NodeView{Peer: id, Alias: names[id], Addrs: p.Addrs, Back: p.Back, Since: stamp(p.Since), Source: "paired"}
	if configured {
		v.Source = "bootstrap"
	}
	return http.StatusOK, v, nil
}

func (n *Node) adminInvite(r *http.Request) (int, any, error) {
	var q InviteRequest
	if err := decodeBody(r, &q); err != nil {
		return 0, nil, err
	}
	if err := n.errPairIsolated(); err != nil {
		return 0, nil, err
	}
	life := capstore.MaxInviteLife
	if q.Expires != "" {
		var err error
		if life, err = time.ParseDuration(q.Expires); err != nil {
			return 0, nil, fmt.Errorf("expires: %v: %w", err, tinycloud.ErrInvalid)
		}
	}
	i, err := n.newInvite(life)
	if err != nil {
		return 0, nil, err
	}
	stored, err := n.store.AddInvite(r.Context(), i.ID(), life)
	if err != nil {
		return 0, nil, err
	}
	n.log.InfoContext(r.Context(), "made an invite", "expires", stored.Expires)
	v := InviteView{Invite: i.Text(), Expires: stored.Expires}
	if q.QR {
		if v.QR, err = pictured(v.Invite); err != nil {
			return 0, nil, err
		}
	}
	return http.StatusOK, v, nil
}

// pictured is a text as a QR code.
func pictured(text string) (string, error) {
	code, err := qr.Encode(text, qr.L) // the lowest redundancy: a screen has no scratches
	if err != nil {
		return "", fmt.Errorf("QR code: %w", err)
	}
	code.Scale = 4
	return "data:image/png;base64," + base64.StdEncoding.EncodeToString(code.PNG()), nil
}

// newInvite makes an invite to this node. A process that does not know the front has only the addresses of the configuration.
func (n *Node) newInvite(life time.Duration) (i replication.Invite, err error) {
	addrs := n.nodeAddrs()
	if f := n.front.Load(); f == nil || f.Behind() && len(addrs) == 0 {
		if addrs, err = multiaddrs("p2p.announce", n.cfg.P2P.Announce); err != nil {
			return i, err
		}
		if len(addrs) == 0 {
			return i, fmt.Errorf("another process replicates and knows where this node is reached; p2p.announce is not set: %w", tinycloud.ErrUnavailable)
		}
	}
	id, err := p2p.PeerIDFromEd25519(n.nodeKey())
	if err != nil {
		return i, err
	}
	if i, err = replication.NewInvite(id, addrs, time.Now().Add(life)); err != nil {
		err = fmt.Errorf("p2p.listen, p2p.announce: %w", err)
	}
	return i, err
}

func (n *Node) adminInvites(r *http.Request) (int, any, error) {
	out := []InviteView{}
	list, err := n.store.Invites(r.Context())
	for _, i := range list {
		out = append(out, InviteView{Expires: i.Expires, UsedBy: i.UsedBy})
	}
	return http.StatusOK, out, err
}

// servePair answers a node that shows an invite.
func (n *Node) servePair(ctx context.Context, s network.Stream) { n.pairing.Serve(ctx, s) }
