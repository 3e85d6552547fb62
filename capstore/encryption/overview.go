package encryption

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// Holder is a host that says it has the key of a network that is advertised here.
type Holder struct {
	Node    string // DID
	Host    string // DID in the owner's secrets
	Self    bool
	Trusted bool // keys go to it and come from it
	Hosting bool // it is a host of the owner's secrets now
}

// Overview is what an operator is told of a network.
type Overview struct {
	ID       tinycloud.NetworkID
	State    string
	Version  int64 // that is advertised; 0 when no key is held
	Keys     int   // that are held here
	Unopened int   // of those on disk, that this node's secret does not open
	Known    int   // that hosts tell of
	Holders  []Holder
}

// Alone reports whether the key would be lost with this node: no other host that is trusted and reached by the owner's
// word has it.
func (o Overview) Alone() bool {
	return o.State != stateRevoked && o.Keys > 0 && !slices.ContainsFunc(o.Holders, func(h Holder) bool { return !h.Self && h.Hosting && h.Trusted })
}

// Outdated reports whether a host that was removed from the owner's secrets has the key that is advertised: what is
// encrypted from now on is safe from it once the key is rotated.
func (o Overview) Outdated() bool {
	return o.State != stateRevoked && o.Keys > 0 && slices.ContainsFunc(o.Holders, func(h Holder) bool { return !h.Self && !h.Hosting })
}

// Overview returns the networks that are known here: of one owner, or of all with "".
func (n *Networks) Overview(ctx context.Context, owner tinycloud.Principal) (out []Overview, err error) {
	ids, err := n.known(ctx, owner)
	if err != nil {
		return nil, fmt.Errorf("encryption networks: %w", err)
	}
	for _, id := range ids {
		o, err := n.overview(ctx, id)
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

// OverviewOf returns one. The error is of class [tinycloud.ErrNotFound] when it is not known here.
func (n *Networks) OverviewOf(ctx context.Context, id tinycloud.NetworkID) (Overview, error) {
	o, err := n.overview(ctx, id)
	if err == nil && o.State == "" {
		err = errNone()
	}
	return o, err
}

// known are the ids of networks that are here or of which records tell.
func (n *Networks) known(ctx context.Context, owner tinycloud.Principal) (out []tinycloud.NetworkID, err error) {
	where, args := "", []any{}
	if owner != "" {
		where, args = " WHERE owner = ?", []any{string(owner)}
	}
	seen := map[tinycloud.NetworkID]bool{}
	add := func(id tinycloud.NetworkID) {
		if !seen[id] {
			seen[id] = true
			out = append(out, id)
		}
	}
	err = n.rows.Each(ctx, func(scan func(dest ...any) error) error {
		var text string
		if err := scan(&text); err != nil {
			return err
		}
		id, err := tinycloud.ParseNetworkID(text)
		add(id)
		return err
	}, "SELECT network FROM networks"+where, args...)
	if err != nil {
		return nil, err
	}
	kinds := "kind NOT IN (?, ?)"
	args = append([]any{int64(recordMember), int64(recordRevoke)}, args...)
	if owner != "" {
		kinds += " AND owner = ?"
	}
	makers, err := readRecords(ctx, n.rows, kinds, args...)
	for _, r := range makers {
		add(r.network)
	}
	slices.SortFunc(out, func(a, b tinycloud.NetworkID) int { return strings.Compare(a.String(), b.String()) })
	return out, err
}

func (n *Networks) overview(ctx context.Context, id tinycloud.NetworkID) (o Overview, err error) {
	o.ID = id
	x, err := load(ctx, n.rows, id)
	if err != nil {
		return o, fmt.Errorf("encryption network: %w", err)
	}
	about, err := recordsAbout(ctx, n.rows, id)
	if err != nil {
		return o, fmt.Errorf("encryption network: %w", err)
	}
	makers := about.makers()
	o.Known = len(makers)
	if x != nil {
		o.State = x.state
		held := slices.DeleteFunc(slices.Clone(x.keys), func(k key) bool { return !n.opens(k) })
		o.Keys, o.Unopened = len(held), len(x.keys)-len(held)
		if len(held) > 0 {
			o.Version = held[0].version
			o.Holders, err = n.holdersOf(ctx, id, about, held[0])
			return o, err
		}
	}
	switch {
	case about.revoked(id):
		o.State = stateRevoked
	case o.State == "" && len(makers) > 0:
		o.State = "elsewhere" // no key of it is here
	}
	if len(makers) > 0 {
		o.Holders, err = n.holdersOf(ctx, id, about, key{version: makers[0].version, public: makers[0].public})
	}
	return o, err
}

// holdersOf are those that say they hold a key, this node first.
func (n *Networks) holdersOf(ctx context.Context, id tinycloud.NetworkID, about set, k key) (out []Holder, err error) {
	hosts, err := n.hostsOf(ctx, id.Owner())
	if err != nil {
		return nil, err
	}
	members := about.holders(id, k.version, k.public)
	slices.SortFunc(members, func(a, b *record) int {
		if (a.node == n.key) != (b.node == n.key) {
			if a.node == n.key {
				return -1
			}
			return 1
		}
		return bytes.Compare(a.host[:], b.host[:])
	})
	seen := map[hostlog.Key]bool{}
	for _, r := range members {
		if seen[r.host] {
			continue
		}
		seen[r.host] = true
		h := Holder{Node: nodeDID(r.node), Host: nodeDID(r.host), Self: r.node == n.key}
		_, h.Hosting = hosts[r.host]
		if h.Trusted, err = n.trusts(ctx, id.Owner(), r.node); err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, nil
}
