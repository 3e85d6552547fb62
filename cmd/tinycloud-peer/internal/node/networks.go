package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

// NetworkView is an encryption network. Arrays are never null.
type NetworkView struct {
	Network  string       `json:"network"`
	Owner    string       `json:"owner"`
	State    string       `json:"state"`    // active, rotating, revoked; elsewhere: no key of it is here
	Version  int64        `json:"version"`  // of the key that is advertised here; 0: none is
	Keys     int          `json:"keys"`     // that are held here
	Unopened int          `json:"unopened"` // keys on disk that this node's secret does not open
	Known    int          `json:"known"`    // keys that hosts tell of
	Alone    bool         `json:"alone"`    // no other host that is paired or approved has the key
	Outdated bool         `json:"outdated"` // a host that was removed has it: it should be rotated
	Holders  []HolderView `json:"holders"`
	Approved []string     `json:"approved"` // DIDs of nodes that get the owner's keys although they are not paired
}

// HolderView is a host that says it has the key.
type HolderView struct {
	Node    string `json:"node"` // DID
	PeerID  string `json:"peerId"`
	Alias   string `json:"alias"` // the operator's name of the node; "": none
	Host    string `json:"host"`  // DID in the owner's secrets
	Self    bool   `json:"self"`
	Trusted bool   `json:"trusted"` // paired, approved, or as encryption.share says
	Hosting bool   `json:"hosting"` // it is a host of the owner's secrets now
}

func (n *Node) networkView(ctx context.Context, o encryption.Overview) (NetworkView, error) {
	v := NetworkView{
		Network: o.ID.String(), Owner: string(o.ID.Owner()), State: o.State, Version: o.Version, Keys: o.Keys, Unopened: o.Unopened,
		Known: o.Known, Alone: o.Alone(), Outdated: o.Outdated(), Holders: []HolderView{}, Approved: []string{},
	}
	names, err := n.aliasNames(ctx)
	if err != nil {
		return v, err
	}
	for _, h := range o.Holders {
		x := HolderView{Node: h.Node, Host: h.Host, Self: h.Self, Trusted: h.Trusted, Hosting: h.Hosting}
		if key, err := hostkeys.ParseHostDID(h.Node); err == nil {
			if id, err := p2p.PeerIDFromEd25519(key); err == nil {
				x.PeerID, x.Alias = id.String(), names[id.String()]
			}
		}
		v.Holders = append(v.Holders, x)
	}
	approved, err := n.networks.Approved(ctx, o.ID.Owner())
	for _, k := range approved {
		v.Approved = append(v.Approved, k.String())
	}
	return v, err
}

// networkViews are the networks of an owner, or of all with "".
func (n *Node) networkViews(ctx context.Context, owner tinycloud.Principal) ([]NetworkView, error) {
	all, err := n.networks.Overview(ctx, owner)
	if err != nil {
		return nil, err
	}
	out := []NetworkView{}
	for _, o := range all {
		v, err := n.networkView(ctx, o)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func (n *Node) adminNetworks(r *http.Request) (int, any, error) {
	all, err := n.networkViews(r.Context(), "")
	return http.StatusOK, all, err
}

func pathNetwork(r *http.Request) (tinycloud.NetworkID, error) {
	return tinycloud.ParseNetworkID(r.PathValue("network"))
}

func (n *Node) adminNetwork(r *http.Request) (int, any, error) {
	id, err := pathNetwork(r)
	if err != nil {
		return 0, nil, err
	}
	return n.showNetwork(r.Context(), id)
}

func (n *Node) showNetwork(ctx context.Context, id tinycloud.NetworkID) (int, any, error) {
	o, err := n.networks.OverviewOf(ctx, id)
	if err != nil {
		return 0, nil, err
	}
	v, err := n.networkView(ctx, o)
	return http.StatusOK, v, err
}

// parseNode reads a node's peer id or DID.
func parseNode(text string) (k hostlog.Key, err error) {
	if strings.HasPrefix(text, "did:") {
		key, err := hostkeys.ParseHostDID(text)
		if err != nil {
			return k, err
		}
		return hostlog.Key(key), nil
	}
	id, err := peer.Decode(text)
	if err == nil {
		if key, err := p2p.Ed25519FromPeerID(id); err == nil {
			return hostlog.Key(key), nil
		}
	}
	return k, fmt.Errorf("node %.100q is neither a peer id nor a did:key: %w", text, tinycloud.ErrInvalid)
}

// adminShare approves a node for a network's owner, or takes that back.
func (n *Node) adminShare(yes bool) func(*http.Request) (int, any, error) {
	return func(r *http.Request) (int, any, error) {
		id, err := pathNetwork(r)
		if err != nil {
			return 0, nil, err
		}
		node, err := parseNode(r.PathValue("node"))
		if err != nil {
			return 0, nil, err
		}
		if node == hostlog.Key(n.nodeKey()) {
			return 0, nil, fmt.Errorf("node is this one: %w", tinycloud.ErrInvalid)
		}
		if _, err := n.networks.OverviewOf(r.Context(), id); err != nil {
			return 0, nil, err
		}
		if err := n.networks.Approve(r.Context(), id.Owner(), node, yes); err != nil {
			return 0, nil, err
		}
		n.log.InfoContext(r.Context(), "keys of encryption networks", "owner", id.Owner(), "node", node, "shared", yes)
		return n.showNetwork(r.Context(), id)
	}
}

// Rotation is what the owner of a network has to sign for this node to make a new version of its key, and, signed, the
// Authorization value of it.
type Rotation struct {
	SIWE   string `json:"siwe,omitempty"`
	Header string `json:"header,omitempty"`
}

func (n *Node) adminRotation(r *http.Request) (int, any, error) {
	id, err := pathNetwork(r)
	if err != nil {
		return 0, nil, err
	}
	if _, err := n.networks.OverviewOf(r.Context(), id); err != nil {
		return 0, nil, err
	}
	text, err := n.networks.RotateMessage(id, rand.Text())
	return http.StatusOK, Rotation{SIWE: text}, err
}

func (n *Node) adminRotate(r *http.Request) (int, any, error) {
	id, err := pathNetwork(r)
	if err != nil {
		return 0, nil, err
	}
	var q Rotation
	if err := decodeBody(r, &q); err != nil {
		return 0, nil, err
	}
	t, err := capstore.ParseDelegation(q.Header)
	if err != nil {
		return 0, nil, errors.Join(fmt.Errorf("header: %w", err), tinycloud.ErrInvalid)
	}
	// Who hangs up has asked for it all the same.
	if _, err := n.networks.RotateSigned(context.WithoutCancel(r.Context()), t, id); err != nil {
		return 0, nil, err
	}
	return n.showNetwork(r.Context(), id)
}
