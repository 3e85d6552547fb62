package node

import (
	"context"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/keys"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

// The hosts of a Space of secrets tell each other of its owner's encryption networks, beside its history. With each such
// Space whose peer is open goes a keeper, which does that.

// openKeeper makes the keeper of a Space of secrets.
func (s *spaces) openKeeper(space tinycloud.SpaceID, a *active) (err error) {
	if !space.IsSecrets() {
		return nil
	}
	a.keeper, err = keys.New(keys.Options{
		Space: space, Store: s.n.networks, JoinTimeout: s.n.cfg.P2P.JoinTimeout, Metrics: s.keyMetrics, Log: s.log,
		Dial: func(ctx context.Context, id peer.ID) (keys.Stream, error) {
			return a.peer.NewStream(ctx, id, wire.KeysProtocol)
		},
	})
	return err
}

// peers is who is told of connected peers; nil but for a Space of secrets.
func (a *active) peers() interface {
	Greeted(id peer.ID)
	Lost(id peer.ID)
} {
	if a.keeper == nil {
		return nil
	}
	return a.keeper
}

// serveKeys answers other hosts' questions.
func (a *active) serveKeys(ctx context.Context) {
	if a.keeper != nil {
		a.peer.Handle(wire.KeysProtocol, func(s network.Stream) { a.keeper.Serve(ctx, s.Conn().RemotePeer(), s) })
	}
}

// keep runs the keeper until the context ends.
func (a *active) keep(ctx context.Context) *sync.WaitGroup {
	var running sync.WaitGroup
	if a.keeper != nil {
		running.Go(func() { a.keeper.Run(ctx) })
	}
	return &running
}

// secretsHosts are the other hosts of Spaces of secrets.
type secretsHosts struct{ s *spaces }

// keeper returns the keeper of a Space, which is woken for that; nil when this process does not replicate.
func (h secretsHosts) keeper(ctx context.Context, space tinycloud.SpaceID) *keys.Keeper {
	a := h.s.get(space)
	if a == nil && h.s.ask(ctx, request{space: space, rest: h.s.trialAfter}) {
		a = h.s.get(space)
	}
	if a == nil {
		return nil
	}
	return a.keeper
}

// Ask asks those that can be reached. In a process that does not replicate nobody can be: what the one that does has
// heard is in the database.
func (h secretsHosts) Ask(ctx context.Context, space tinycloud.SpaceID) ([]hostlog.Key, error) {
	others, err := h.s.n.networks.OtherHosts(ctx, space)
	if err != nil || len(others) == 0 || h.s.n.alone() {
		return nil, err
	}
	k := h.keeper(ctx, space)
	if k == nil {
		return nil, nil
	}
	return k.Ask(ctx)
}

// Forward has a host answer a client's request.
func (h secretsHosts) Forward(ctx context.Context, space tinycloud.SpaceID, host hostlog.Key, q hostlog.DecryptRequest) ([]byte, error) {
	k := h.keeper(ctx, space)
	if k == nil {
		return nil, tinycloud.Refuse(tinycloud.ErrUnavailable, "The host that has the key cannot be reached now")
	}
	return k.Forward(ctx, host, q)
}

// secretsChanged tells the other hosts of an owner's secrets that there is something new. It does not block.
func (s *spaces) secretsChanged(owner tinycloud.Principal) {
	space, ok := tinycloud.SecretsOf(owner)
	if !ok {
		return
	}
	if a := s.get(space); a != nil && a.keeper != nil {
		a.keeper.Stir()
	}
	s.wakeUp(space, s.restAfter)
}

// stirKeepers does that for all owners: others are trusted than before, or another process changed something.
func (s *spaces) stirKeepers() {
	for _, a := range s.snapshot() {
		if a.keeper != nil {
			a.keeper.Stir()
		}
	}
}

// pairedWith reports whether a node is paired. Entrances of Spaces that are to share nothing are not paired.
func (n *Node) pairedWith(node hostlog.Key) bool {
	id, err := p2p.PeerIDFromEd25519(node[:])
	return err == nil && !n.cfg.P2P.Isolated && n.store.PairedWith(id.String())
}
