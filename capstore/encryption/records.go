package encryption

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// Bounds of what is kept of the records about an owner's networks.
const (
	maxMakers      = 512 // that make keys
	maxMadeBy      = 64  // of those, by one node of one network: a token lets it make as many as it likes
	maxRevocations = 64
	maxMembers     = 1024
	maxHeldBy      = 128 // of members, of one host
	MaxRecords     = maxMakers + maxRevocations + maxMembers
)

// set are the records about an owner's networks, or about one of them, in the order of their ids.
type set []*record

// readRecords reads those that a condition selects.
func readRecords(ctx context.Context, r reader, where string, args ...any) (out set, err error) {
	err = r.Each(ctx, func(scan func(dest ...any) error) error {
		var b []byte
		if err := scan(&b); err != nil {
			return err
		}
		x, err := decodeRecord(b)
		if err != nil {
			return fmt.Errorf("network_records: damaged row: %v: %w", err, tinycloud.ErrUnavailable)
		}
		out = append(out, x)
		return nil
	}, "SELECT record FROM network_records WHERE "+where+" ORDER BY id", args...)
	return out, err
}

func recordsOf(ctx context.Context, r reader, owner tinycloud.Principal) (set, error) {
	return readRecords(ctx, r, "owner = ?", string(owner))
}

func recordsAbout(ctx context.Context, r reader, id tinycloud.NetworkID) (set, error) {
	return readRecords(ctx, r, "network = ?", row(id))
}

// revoked reports whether a network is over.
func (s set) revoked(id tinycloud.NetworkID) bool {
	return slices.ContainsFunc(s, func(r *record) bool { return r.kind == recordRevoke && r.network == id })
}

// of reports whether a record is about a key.
func (r *record) of(id tinycloud.NetworkID, version int64, public []byte) bool {
	return r.network == id && r.version == version && bytes.Equal(r.public, public)
}

// makers are the records that say that there is a key, the one to be advertised first.
func (s set) makers() set {
	out := slices.DeleteFunc(slices.Clone(s), func(r *record) bool { return !r.makesKey() })
	slices.SortFunc(out, func(a, b *record) int {
		return cmp.Or(cmp.Compare(b.version, a.version), cmp.Compare(a.at, b.at), bytes.Compare(a.public, b.public))
	})
	return out
}

// holders are the members that hold a key.
func (s set) holders(id tinycloud.NetworkID, version int64, public []byte) (out set) {
	for _, r := range s {
		if r.kind == recordMember && r.of(id, version, public) {
			out = append(out, r)
		}
	}
	return out
}

// insert adds a proven record, and reports whether that is news. A revocation ends the network here. The error is of class
// [tinycloud.ErrBusy] when there are too many of its kind.
func insert(tx capstore.BesideTx, r *record) (added bool, err error) {
	id := r.id()
	var x int64
	if have, err := tx.One([]any{&x}, "SELECT 1 FROM network_records WHERE id = ?", id[:]); err != nil || have {
		return false, err
	}
	if err := roomFor(tx, r); err != nil {
		return false, err
	}
	by := r.node
	if r.kind == recordMember {
		by = r.host
	}
	err = tx.Add(capstore.Insert{Into: "network_records", Columns: "id owner network kind host record"},
		id[:], string(r.network.Owner()), row(r.network), int64(r.kind), by[:], r.encode())
	if err != nil || r.kind != recordRevoke {
		return err == nil, err
	}
	return true, tx.Exec("UPDATE networks SET state = ?, updated = ? WHERE id = ? AND state <> ?", stateRevoked, r.at, row(r.network), stateRevoked)
}

func roomFor(tx capstore.BesideTx, r *record) error {
	count := func(most int64, where string, args ...any) error {
		var n int64
		if _, err := tx.One([]any{&n}, "SELECT count(*) FROM network_records WHERE owner = ? AND "+where, append([]any{string(r.network.Owner())}, args...)...); err != nil {
			return err
		}
		if n >= most {
			return tinycloud.Refuse(tinycloud.ErrBusy, "%d records of this kind about the owner's networks are here, and that is the most", n)
		}
		return nil
	}
	switch r.kind {
	case recordRevoke:
		if err := count(1, "kind = ? AND network = ?", int64(r.kind), row(r.network)); err != nil {
			return err // one is enough
		}
		return count(maxRevocations, "kind = ?", int64(r.kind))
	case recordMember:
		if err := count(maxHeldBy, "kind = ? AND host = ?", int64(r.kind), r.host[:]); err != nil {
			return err
		}
		return count(maxMembers, "kind = ?", int64(r.kind))
	}
	if err := count(maxMadeBy, "kind NOT IN (?, ?) AND network = ? AND host = ?", int64(recordRevoke), int64(recordMember), row(r.network), r.node[:]); err != nil {
		return err
	}
	return count(maxMakers, "kind NOT IN (?, ?)", int64(recordRevoke), int64(recordMember))
}

// asked makes the record of what an invocation had done, nil when nobody else could check it: what it rests on is not
// here any more, or too long.
func (n *Networks) recordAsked(ctx context.Context, r record, t *token.Token) (*record, error) {
	chain, err := n.rows.RestsOn(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("encryption network: %w", err)
	}
	r.node, r.token, r.chain = n.key, t.Bytes, chain
	r.sign(n.o.Node, nil)
	if len(r.encode()) > MaxRecord || r.prove() != nil {
		return nil, nil
	}
	return &r, nil
}

// member makes the record that this node holds a key.
func (n *Networks) member(id tinycloud.NetworkID, k key, at int64) *record {
	space, ok := tinycloud.SecretsOf(id.Owner())
	if !ok {
		return nil
	}
	private := n.rows.SpaceKey(space)
	r := &record{
		kind: recordMember, network: id, version: k.version, public: k.public, at: at,
		node: n.key, host: hostlog.Key(private.Public().(ed25519.PublicKey)),
	}
	r.sign(n.o.Node, private)
	return r
}

// taken makes the record of a key without a token.
func (n *Networks) taken(id tinycloud.NetworkID, th threshold, k key) *record {
	r := &record{kind: recordTaken, network: id, version: k.version, public: k.public, at: k.created, node: n.key, threshold: th}
	r.sign(n.o.Node, nil)
	return r
}

// keep adds records; those there are too many of are left out.
func keep(tx capstore.BesideTx, records ...*record) (news int, err error) {
	for _, r := range records {
		if r == nil {
			continue
		}
		added, err := insert(tx, r)
		if err != nil && !errors.Is(err, tinycloud.ErrBusy) {
			return news, err
		}
		if added {
			news++
			tx.Tell()
		}
	}
	return news, nil
}

// Have returns the ids of what is here to tell the other hosts of an owner's Space of secrets.
func (n *Networks) Have(ctx context.Context, space tinycloud.SpaceID) ([]tinycloud.Hash, error) {
	if err := n.complete(ctx, space.Owner()); err != nil {
		return nil, fmt.Errorf("encryption networks: %w", err)
	}
	all, err := recordsOf(ctx, n.rows, space.Owner())
	if err != nil {
		return nil, fmt.Errorf("encryption networks: %w", err)
	}
	out := make([]tinycloud.Hash, len(all))
	for i, r := range all {
		out[i] = r.id()
	}
	return out, nil
}

// Records returns those of the records about an owner's networks that a host lacks, in an order in which it can take them.
func (n *Networks) Records(ctx context.Context, space tinycloud.SpaceID, has []tinycloud.Hash) (out [][]byte, err error) {
	all, err := recordsOf(ctx, n.rows, space.Owner())
	if err != nil {
		return nil, fmt.Errorf("encryption networks: %w", err)
	}
	slices.SortStableFunc(all, func(a, b *record) int { return cmp.Compare(rank(a), rank(b)) })
	known := make(map[tinycloud.Hash]struct{}, len(has))
	for _, id := range has {
		known[id] = struct{}{}
	}
	for _, r := range all {
		if _, ok := known[r.id()]; !ok {
			out = append(out, r.encode())
		}
	}
	return out, nil
}

// rank puts members behind what they are members of.
func rank(r *record) int {
	if r.kind == recordMember {
		return 1
	}
	return 0
}

// Accept takes records over that another host of a Space of secrets sent. What does not prove itself is an error of class
// [tinycloud.ErrInvalid], [tinycloud.ErrForged] or [tinycloud.ErrUnauthorized], and nothing of it is kept; what this node
// only believes of others than the sender's kind, and what is too much, is passed over. It reports how much was news.
func (n *Networks) Accept(ctx context.Context, space tinycloud.SpaceID, records [][]byte) (news int, err error) {
	all := make(set, 0, len(records))
	for _, b := range records {
		r, err := decodeRecord(b)
		if err != nil {
			return 0, err
		}
		if r.network.Owner() != space.Owner() || !space.IsSecrets() {
			return 0, fmt.Errorf("record about a network of another owner: %w", tinycloud.ErrInvalid)
		}
		all = append(all, r)
	}
	if all, err = n.believed(ctx, space, all); err != nil || len(all) == 0 {
		return 0, err
	}
	for _, r := range all {
		if err := r.prove(); err != nil {
			return 0, err
		}
	}
	err = n.rows.Update(ctx, true, func(tx capstore.BesideTx) (err error) {
		news, err = keep(tx, all...)
		return err
	})
	if news > 0 {
		n.changed(space.Owner())
	}
	return news, err
}

// believed leaves out what is known, what rests on this node's trust in others that it has not, and members of keys that
// nobody told of.
func (n *Networks) believed(ctx context.Context, space tinycloud.SpaceID, all set) (set, error) {
	have, err := recordsOf(ctx, n.rows, space.Owner())
	if err != nil {
		return nil, fmt.Errorf("encryption networks: %w", err)
	}
	hosts, err := n.rows.HostsOf(ctx, space)
	if err != nil {
		return nil, err
	}
	known := map[tinycloud.Hash]bool{}
	for _, r := range have {
		known[r.id()] = true
	}
	slices.SortStableFunc(all, func(a, b *record) int { return cmp.Compare(rank(a), rank(b)) })
	var out set
	for _, r := range all {
		believed := !known[r.id()]
		switch r.kind {
		case recordTaken:
			trusted, err := n.trusts(ctx, space.Owner(), r.node)
			if err != nil {
				return nil, err
			}
			believed = believed && trusted
		case recordMember:
			_, hosting := hosts[r.host]
			made := func(m *record) bool { return m.makesKey() && m.of(r.network, r.version, r.public) }
			believed = believed && hosting && (slices.ContainsFunc(have, made) || slices.ContainsFunc(out, made))
		}
		if believed {
			known[r.id()] = true
			out = append(out, r)
		}
	}
	return out, nil
}
