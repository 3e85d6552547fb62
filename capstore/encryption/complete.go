package encryption

import (
	"context"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// stored is a network with what its records are made of.
type stored struct {
	network
	revocation []byte
	madeBy     [][]byte // of the keys, in their order; nil for one taken over
}

// complete makes the records that are missing of what is here: keys that were made before there were records, or taken
// over from another node's data, and revocations of that time.
func (n *Networks) complete(ctx context.Context, owner tinycloud.Principal) error {
	all, err := n.ofOwner(ctx, owner)
	if err != nil || len(all) == 0 {
		return err
	}
	have, err := recordsOf(ctx, n.rows, owner)
	if err != nil {
		return err
	}
	var missing set
	for _, x := range all {
		more, err := n.missing(ctx, x, have)
		if err != nil {
			return err
		}
		missing = append(missing, more...)
	}
	if len(missing) == 0 {
		return nil
	}
	return n.rows.Update(ctx, true, func(tx capstore.BesideTx) error {
		_, err := keep(tx, missing...)
		return err
	})
}

func (n *Networks) missing(ctx context.Context, x *stored, have set) (out set, err error) {
	made := func(r record, by []byte) (*record, error) {
		t, err := readToken(by)
		if err != nil {
			return nil, nil
		}
		return n.recordAsked(ctx, r, t)
	}
	if x.state == stateRevoked && len(x.revocation) > 0 && !have.revoked(x.id) {
		r, err := made(record{kind: recordRevoke, network: x.id, at: x.updated.UnixNano()}, x.revocation)
		if err != nil {
			return nil, err
		}
		if r != nil {
			out = append(out, r)
		}
	}
	for i, k := range x.keys {
		if !n.opens(k) {
			continue // it can't be held by a node that can't use it
		}
		if !slices.ContainsFunc(have, func(r *record) bool { return r.makesKey() && r.of(x.id, k.version, k.public) }) {
			var r *record
			if len(x.madeBy[i]) > 0 && k.version == 1 {
				r, err = made(record{kind: recordCreate, network: x.id, version: 1, public: k.public, at: k.created, threshold: x.threshold}, x.madeBy[i])
				if err != nil {
					return nil, err
				}
			}
			if r == nil {
				r = n.taken(x.id, x.threshold, k)
			}
			out = append(out, r)
		}
		if !slices.ContainsFunc(have, func(r *record) bool {
			return r.kind == recordMember && r.node == n.key && r.of(x.id, k.version, k.public)
		}) {
			out = append(out, n.member(x.id, k, n.rows.Now().UnixNano()))
		}
	}
	return out, nil
}

// ofOwner reads the networks of an owner that are here.
func (n *Networks) ofOwner(ctx context.Context, owner tinycloud.Principal) (out []*stored, err error) {
	var ids []tinycloud.NetworkID
	var revocations [][]byte
	err = n.rows.Each(ctx, func(scan func(dest ...any) error) error {
		var text string
		var b []byte
		if err := scan(&text, &b); err != nil {
			return err
		}
		id, err := tinycloud.ParseNetworkID(text)
		ids, revocations = append(ids, id), append(revocations, b)
		return err
	}, "SELECT network, revocation FROM networks WHERE owner = ? ORDER BY network", string(owner))
	if err != nil {
		return nil, err
	}
	for i, id := range ids {
		x, err := load(ctx, n.rows, id)
		if err != nil {
			return nil, err
		}
		if x == nil {
			continue
		}
		s := &stored{network: *x, revocation: revocations[i], madeBy: make([][]byte, len(x.keys))}
		for j, k := range x.keys {
			if _, err := n.rows.One(ctx, []any{&s.madeBy[j]}, "SELECT made_by FROM network_keys WHERE network = ? AND version = ? AND public_key = ?",
				row(id), k.version, k.public); err != nil {
				return nil, err
			}
		}
		out = append(out, s)
	}
	return out, nil
}
