package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

// Nodes that are named, by pairing or in the configuration, are asked about every Space that comes to this node
// (replication design §11). That gives them no right: data needs the owner's host delegations on both sides.

// NodeView is a node that is asked about every Space.
type NodeView struct {
	Peer   string     `json:"peer"`
	Addrs  []string   `json:"addrs"`
	Back   bool       `json:"back"`   // it asks this node too: an invite was used between the two
	Since  *time.Time `json:"since"`  // of the pairing; null for one of the configuration
	Source string     `json:"source"` // paired, bootstrap
	Silent *time.Time `json:"silent"` // since when it gives no answer; null: it does, or was not asked
}

// PairRequest is the body of POST /admin/nodes: one of the two.
type PairRequest struct {
	Addr   string `json:"addr,omitempty"`   // of a node
	Invite string `json:"invite,omitempty"` // that another node made
}

// InviteRequest is the body of POST /admin/invites.
type InviteRequest struct {
	Expires string `json:"expires,omitempty"` // a duration of at most 24h, the default
}

// InviteView is an invite that was made. Its text is told once.
type InviteView struct {
	Invite  string    `json:"invite,omitempty"`
	Expires time.Time `json:"expires"`
	UsedBy  string    `json:"usedBy"` // peer id; "" while it is open
}

func (n *Node) openPairing() (err error) {
	id, err := p2p.PeerIDFromEd25519(n.nodeKey())
	if err != nil {
		return err
	}
	n.pairing, err = replication.NewPairing(replication.PairingOptions{
		Node: id, Addrs: n.frontAddrs, Store: n.store, Metrics: n.spaces.metrics, Log: n.log.With("part", "pairing"),
	})
	return err
}

func (n *Node) adminNodes(r *http.Request) (int, any, error) {
	out := []NodeView{}
	pairs, err := n.store.Paired(r.Context())
	if err != nil {
		return 0, nil, err
	}
	for _, p := range pairs {
		out = append(out, NodeView{Peer: p.Peer, Addrs: p.Addrs, Back: p.Back, Since: stamp(p.Since), Source: "paired", Silent: n.spaces.asker.silentSince(p.Peer)})
	}
	for _, text := range n.cfg.P2P.Bootstrap {
		to, err := parseTarget(text)
		if err != nil || to.front.ID.String() == n.frontID() || slices.ContainsFunc(out, func(v NodeView) bool { return v.Peer == to.front.ID.String() }) {
			continue
		}
		id := to.front.ID.String()
		out = append(out, NodeView{Peer: id, Addrs: texts(to.front.Addrs), Source: "bootstrap", Silent: n.spaces.asker.silentSince(id)})
	}
	return http.StatusOK, out, nil
}

// silentSince is since when a named node gives no answer.
func (a *asker) silentSince(id string) *time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, x := range a.nodes {
		if x.front.ID.String() == id {
			return stamp(x.silent)
		}
	}
	return nil
}

// errPairIsolated refuses what would tell two Spaces' entrances to be of one node.
func (n *Node) errPairIsolated() error {
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
	var p capstore.PairedNode
	var err error
	switch {
	case q.Addr != "" && q.Invite == "":
		p, err = n.pairAddr(r.Context(), q.Addr)
	case q.Invite != "" && q.Addr == "":
		p, err = n.pairInvite(r.Context(), q.Invite)
	default:
		err = fmt.Errorf("expected addr or invite: %w", tinycloud.ErrInvalid)
	}
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, NodeView{Peer: p.Peer, Addrs: p.Addrs, Back: p.Back, Since: stamp(p.Since), Source: "paired"}, nil
}

// pairAddr has this node ask another one, which learns nothing of that but the questions.
func (n *Node) pairAddr(ctx context.Context, text string) (p capstore.PairedNode, err error) {
	to, err := parseTarget(text)
	if err != nil {
		return p, err
	}
	switch {
	case to.space != "":
		return p, fmt.Errorf("addr: %s is of a Space: its node's address ends in /p2p/%s: %w", text, to.front.ID, tinycloud.ErrInvalid)
	case to.front.ID.String() == n.frontID():
		return p, fmt.Errorf("addr: %s is this node: %w", text, tinycloud.ErrInvalid)
	}
	return n.pair(ctx, capstore.PairedNode{Peer: to.front.ID.String(), Addrs: texts(to.front.Addrs)})
}

func (n *Node) pair(ctx context.Context, p capstore.PairedNode) (capstore.PairedNode, error) {
	if err := n.store.Pair(ctx, p); err != nil {
		return p, err
	}
	return n.pairedNode(ctx, p.Peer)
}

func (n *Node) pairedNode(ctx context.Context, id string) (capstore.PairedNode, error) {
	pairs, err := n.store.Paired(ctx)
	if i := slices.IndexFunc(pairs, func(p capstore.PairedNode) bool { return p.Peer == id }); i >= 0 {
		return pairs[i], err
	}
	return capstore.PairedNode{}, errors.Join(err, fmt.Errorf("%s is not paired: %w", id, tinycloud.ErrNotFound))
}

// pairInvite shows an invite to the node that made it.
func (n *Node) pairInvite(ctx context.Context, text string) (p capstore.PairedNode, err error) {
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
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	s, err := front.NewStream(ctx, peer.AddrInfo{ID: i.Node, Addrs: i.Addrs}, replication.PairProtocol)
	if err != nil {
		return p, fmt.Errorf("invite: its node is out of reach: %w", errors.Join(err, tinycloud.ErrUnavailable))
	}
	if p, err = n.pairing.Use(ctx, s, &i); err != nil {
		return p, err
	}
	return n.pairedNode(ctx, p.Peer)
}

func (n *Node) adminUnpair(r *http.Request) (int, any, error) {
	id := r.PathValue("peer")
	p, err := n.pairedNode(r.Context(), id)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, NodeView{Peer: id, Addrs: p.Addrs, Back: p.Back, Since: stamp(p.Since), Source: "paired"}, n.store.Unpair(r.Context(), id)
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
	id, err := p2p.PeerIDFromEd25519(n.nodeKey())
	if err != nil {
		return 0, nil, err
	}
	i, err := replication.NewInvite(id, n.frontAddrs(), time.Now().Add(life))
	if err != nil {
		return 0, nil, err
	}
	stored, err := n.store.AddInvite(r.Context(), i.ID(), life)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, InviteView{Invite: i.Text(), Expires: stored.Expires}, nil
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
