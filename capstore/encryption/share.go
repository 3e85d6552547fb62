package encryption

import (
	"context"
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// Share says to which hosts that the owner signed for himself his keys are handed over.
type Share string

// Values of encryption.share.
const (
	SharePaired Share = "paired" // to those whose nodes are paired, or approved by the operator
	ShareHosts  Share = "hosts"  // to all
	ShareOff    Share = "off"    // to none, and none are taken
)

// maxApproved bounds the nodes that are approved for an owner.
const maxApproved = 64

// trusts reports whether an owner's keys may go to a node and come from it, once the owner made it a host.
func (n *Networks) trusts(ctx context.Context, owner tinycloud.Principal, node hostlog.Key) (bool, error) {
	switch {
	case node == n.key:
		return true, nil
	case n.o.Share == ShareOff:
		return false, nil
	case n.o.Share == ShareHosts, n.o.Paired != nil && n.o.Paired(node):
		return true, nil
	}
	var x int64
	ok, err := n.rows.One(ctx, []any{&x}, "SELECT 1 FROM network_approved WHERE owner = ? AND node = ?", string(owner), node[:])
	if err != nil {
		return false, fmt.Errorf("encryption networks: %w", err)
	}
	return ok, nil
}

// Approve lets a node have an owner's keys once the owner made it a host of his secrets, although it is not paired; or
// takes that back: then it keeps what it has.
func (n *Networks) Approve(ctx context.Context, owner tinycloud.Principal, node hostlog.Key, yes bool) error {
	if yes && n.o.Share == ShareOff {
		return tinycloud.Refuse(tinycloud.ErrForbidden, "encryption.share is %s", ShareOff)
	}
	err := n.rows.Update(ctx, yes, func(tx capstore.BesideTx) error {
		if !yes {
			return tx.Exec("DELETE FROM network_approved WHERE owner = ? AND node = ?", string(owner), node[:])
		}
		var x int64
		if _, err := tx.One([]any{&x}, "SELECT count(*) FROM network_approved WHERE owner = ?", string(owner)); err != nil {
			return err
		}
		if x >= maxApproved {
			return tinycloud.Refuse(tinycloud.ErrBusy, "%d nodes are approved for the owner, and that is the most", x)
		}
		return tx.Add(capstore.Insert{Into: "network_approved", Columns: "owner node since", Key: "owner node"},
			string(owner), node[:], tx.Now().UnixMilli())
	})
	if err == nil {
		n.changed(owner)
	}
	return err
}

// Approved returns the nodes that are approved for an owner.
func (n *Networks) Approved(ctx context.Context, owner tinycloud.Principal) (out []hostlog.Key, err error) {
	err = n.rows.Each(ctx, func(scan func(dest ...any) error) error {
		var b []byte
		if err := scan(&b); err != nil {
			return err
		}
		if len(b) != len(hostlog.Key{}) {
			return fmt.Errorf("network_approved: damaged row: %w", tinycloud.ErrUnavailable)
		}
		out = append(out, hostlog.Key(b))
		return nil
	}, "SELECT node FROM network_approved WHERE owner = ? ORDER BY node", string(owner))
	return out, err
}

func (n *Networks) changed(owner tinycloud.Principal) {
	if n.o.Changed != nil {
		n.o.Changed(owner)
	}
}
