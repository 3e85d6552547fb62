package replication

import (
	"context"
	"errors"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/locate"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

const maxFinds = 64 // nodes that a finder met and that were not asked yet, or answered

// nodeTarget is what is known of a node that is asked for its peer of the Space. It never changes.
type nodeTarget struct {
	private bool    // a finder met it: only the rendezvous secret may be used
	leads   peer.ID // its Space peer; "" when it has not answered
}

// viaFront says whether addresses are those of a Space peer and not of a node.
func viaFront(ai peer.AddrInfo) bool {
	return slices.ContainsFunc(ai.Addrs, func(a ma.Multiaddr) bool {
		_, err := a.ValueForProtocol(ma.P_CIRCUIT)
		return err == nil
	})
}

// Found tells of a node that a finder met under the rendezvous name of the Space: it is asked for its Space
// peer. It never blocks.
func (r *Replica) Found(node peer.AddrInfo) {
	if r.o.Locate == nil || len(node.Addrs) == 0 || len(node.Addrs) > maxAddrs || viaFront(node) {
		return
	}
	if _, err := wire.HostOf(node.ID); err != nil {
		return
	}
	r.dialer.find(node)
}

func (d *dialer) find(node peer.AddrInfo) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.finds[node.ID]; !known && len(d.finds) >= maxFinds {
		return
	}
	d.finds[node.ID] = node.Addrs
	if x := d.targets[node.ID]; x != nil && x.node != nil && x.node.leads == "" && x.failures == 0 {
		x.next = now()
	}
	d.reload = true
	d.wake.Give()
}

// lead adds what finders met to the targets, and the Space peers that nodes answered with. d.mu is held.
func (d *dialer) lead(found targets) {
	for id, addrs := range d.finds {
		x := found.at(id)
		x.addrs = append(x.addrs, addrs...)
		if x.node == nil {
			x.node = &nodeTarget{private: true}
		}
	}
	for id, x := range found {
		old := d.targets[id]
		if x.node == nil || old == nil || old.node == nil || old.node.leads == "" {
			continue
		}
		x.node = &nodeTarget{private: x.node.private, leads: old.node.leads}
		led := found.at(old.node.leads)
		led.joins = append(led.joins, x.joins...)
		for _, a := range x.addrs {
			led.addrs = append(led.addrs, a.Encapsulate(ma.StringCast("/p2p/"+id.String()+"/p2p-circuit")))
		}
	}
}

// nodeTarget returns what is known of a node, nil when the target is a Space peer.
func (d *dialer) nodeTarget(id peer.ID) *nodeTarget {
	d.mu.Lock()
	defer d.mu.Unlock()
	if x := d.targets[id]; x != nil {
		return x.node
	}
	return nil
}

// located says whether a target is a node that needs not be asked: the host it led to is connected, or rests.
func (r *Replica) located(id peer.ID) bool {
	node := r.dialer.nodeTarget(id)
	return node != nil && node.leads != "" && (r.authorised(node.leads) != nil || slices.Contains(r.dialer.resting(), node.leads))
}

// askNode asks a node for its peer of the Space. It is asked again from time to time while that is not
// connected: it may have another key by then.
func (r *Replica) askNode(ctx context.Context, ai peer.AddrInfo, node *nodeTarget) {
	askCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	leads, err := r.o.Locate(askCtx, ai, node.private)
	if err == nil && leads == r.self {
		err = errGone
	}
	joins := r.dialer.answered(ai.ID, leads, err)
	if err == nil || ctx.Err() != nil {
		return
	}
	r.log.DebugContext(ctx, "node does not tell its peer of the space", "node", ai.ID, "error", err)
	state := JoinUnreachable
	if errors.Is(err, locate.ErrNone) {
		state = JoinNone
	} else if errors.Is(err, tinycloud.ErrUnauthorized) || errors.Is(err, tinycloud.ErrForged) {
		state = JoinRefused
	}
	r.setJoins(ctx, joins, state, err)
}

// answered notes what a node said and returns the joins that name it.
func (d *dialer) answered(id, leads peer.ID, err error) []string {
	joins := d.tried(id, err, false)
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.targets[id]
	if x == nil || x.node == nil {
		return joins
	}
	if err != nil {
		if x.failures > 3 && len(x.joins) == 0 {
			delete(d.finds, id) // until it is found again
			d.reload = true
		}
		return joins
	}
	x.failures, x.next = 0, now().Add(dialEvery)
	x.node = &nodeTarget{private: x.node.private, leads: leads}
	d.reload = true
	d.wake.Give()
	return joins
}
