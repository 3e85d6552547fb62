package encryption

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// States of a network. The protocol knows more, in which a network can't be used.
const (
	stateActive   = "active"
	stateRotating = "rotating"
	stateRevoked  = "revoked"
)

// network is a network as it is stored.
type network struct {
	id               tinycloud.NetworkID
	state            string
	threshold        threshold
	created, updated time.Time
	keys             []key // that are held, the advertised one first
}

// key is one of a network's key pairs.
type key struct {
	version int64
	public  []byte
	sealed  []byte // the private key
	created int64  // unix nanoseconds
}

// row is the id of a network in the database.
func row(id tinycloud.NetworkID) []byte {
	h := tinycloud.Sum([]byte(id.String()))
	return h[:]
}

// reader reads rows, in a transaction or not.
type reader interface {
	One(ctx context.Context, dest []any, query string, args ...any) (ok bool, err error)
	Each(ctx context.Context, f func(scan func(dest ...any) error) error, query string, args ...any) error
}

// inTx reads in a transaction, whose statements end with the writer and not with a reader's context.
type inTx struct{ capstore.BesideTx }

func (x inTx) One(_ context.Context, dest []any, query string, args ...any) (bool, error) {
	return x.BesideTx.One(dest, query, args...)
}

func (x inTx) Each(_ context.Context, f func(scan func(dest ...any) error) error, query string, args ...any) error {
	return x.BesideTx.Each(f, query, args...)
}

// load returns a network with the keys that are held of it, nil when there is none.
func load(ctx context.Context, r reader, id tinycloud.NetworkID) (*network, error) {
	x := network{id: id}
	var created, updated int64
	ok, err := r.One(ctx, []any{&x.state, &x.threshold.N, &x.threshold.T, &created, &updated},
		"SELECT state, threshold_n, threshold_t, created, updated FROM networks WHERE id = ?", row(id))
	if err != nil || !ok {
		return nil, err
	}
	x.created, x.updated = time.Unix(0, created).UTC(), time.Unix(0, updated).UTC()
	err = r.Each(ctx, func(scan func(dest ...any) error) error {
		var k key
		err := scan(&k.version, &k.public, &k.sealed, &k.created)
		x.keys = append(x.keys, k)
		return err
	}, "SELECT version, public_key, sealed, created FROM network_keys WHERE network = ? AND sealed IS NOT NULL", row(id))
	slices.SortFunc(x.keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(b.version, a.version), cmp.Compare(a.created, b.created), bytes.Compare(a.public, b.public))
	})
	return &x, err
}

// ofVersion are the keys of a version that are held.
func (x *network) ofVersion(v int64) []key {
	return slices.DeleteFunc(slices.Clone(x.keys), func(k key) bool { return k.version != v })
}

// usable refuses to decrypt for a network that is revoked, or not ready.
func (x *network) usable() error {
	switch x.state {
	case stateActive, stateRotating:
		return nil
	case stateRevoked:
		return errRevoked()
	}
	return tinycloud.Refuse(tinycloud.ErrConflict, "network is not active (state: %s)", x.state)
}

func errRevoked() error { return denied("network has been revoked") }

// member is a node that holds a network's key.
type member struct {
	NodeID string `json:"nodeId"`
	Role   string `json:"role"`
}

// backend is what keys are held by, in the protocol's words.
const backend = "local-one-of-one"

// Descriptor is what clients have to know of a network. It marshals to the protocol's form.
type Descriptor struct {
	NetworkID  string    `json:"networkId"`
	OwnerDID   string    `json:"ownerDid"`
	Name       string    `json:"name"`
	Members    []member  `json:"members"`
	Threshold  threshold `json:"threshold"`
	State      string    `json:"state"`
	PublicKey  []byte    `json:"publicEncryptionKey"` // base64
	Algorithm  string    `json:"alg"`
	KeyVersion int64     `json:"keyVersion"`
	KeyBackend string    `json:"keyBackend"`
	CreatedAt  time.Time `json:"createdAt"`
	UpdatedAt  time.Time `json:"updatedAt"`
}

// Record is what discovery tells of a network.
type Record struct {
	NetworkID  string `json:"networkId"`
	OwnerDID   string `json:"ownerDid"`
	Name       string `json:"name"`
	Algorithm  string `json:"alg"`
	KeyVersion int64  `json:"keyVersion"`
	PublicKey  []byte `json:"publicEncryptionKey"`
	State      string `json:"state"`
	KeyBackend string `json:"keyBackend"`
}

// describe is a pure function of what is stored, so that hosts which store the same say the same of all but themselves.
func (n *Networks) describe(x *network, others set) Descriptor {
	k := x.keys[0]
	members := []member{{n.node, "primary"}}
	for _, r := range others {
		members = append(members, member{nodeDID(r.node), "share"})
	}
	return Descriptor{
		NetworkID: x.id.String(), OwnerDID: string(x.id.Owner()), Name: x.id.Name(),
		Members: members, Threshold: x.threshold, State: x.state,
		PublicKey: k.public, Algorithm: Algorithm, KeyVersion: k.version, KeyBackend: backend,
		CreatedAt: x.created, UpdatedAt: x.updated,
	}
}

// Describe returns a network of which a key is held here, or one that ofOthers finds. The error is of class
// [tinycloud.ErrNotFound] when there is none, and of class [tinycloud.ErrUnavailable] while that is not known yet.
func (n *Networks) Describe(ctx context.Context, id tinycloud.NetworkID) (Descriptor, error) {
	d, locked := n.described(ctx, id)
	if d != nil {
		return *d, nil
	}
	if locked != nil && !errors.Is(locked, errLocked) {
		return Descriptor{}, locked
	}
	answered, silent := n.ask(ctx, id.Owner())
	if d, locked = n.described(ctx, id); d != nil {
		return *d, nil
	}
	d, err := n.ofOthers(ctx, id, answered)
	switch {
	case err != nil:
		return Descriptor{}, err
	case d != nil:
		return *d, nil
	case locked != nil:
		return Descriptor{}, locked
	case silent != nil:
		return Descriptor{}, silent
	}
	return Descriptor{}, errNone()
}

// described describes a network of which a key is here; nil when there is none. The error is errLocked when none of those
// that are here opens.
func (n *Networks) described(ctx context.Context, id tinycloud.NetworkID) (*Descriptor, error) {
	x, err := load(ctx, n.rows, id)
	if err != nil {
		return nil, fmt.Errorf("encryption network: %w", err)
	}
	if x == nil || len(x.keys) == 0 {
		return nil, nil
	}
	held := slices.DeleteFunc(slices.Clone(x.keys), func(k key) bool { return !n.opens(k) })
	if len(held) == 0 {
		return nil, errLocked // another host may have it
	}
	x.keys = held
	about, err := recordsAbout(ctx, n.rows, id)
	if err != nil {
		return nil, fmt.Errorf("encryption network: %w", err)
	}
	others, err := n.trusted(ctx, id, about.holders(id, x.keys[0].version, x.keys[0].public))
	if err != nil {
		return nil, err
	}
	d := n.describe(x, others)
	return &d, nil
}

// Discover returns what discovery tells of an owner's network.
func (n *Networks) Discover(ctx context.Context, id tinycloud.NetworkID) (Record, error) {
	d, err := n.Describe(ctx, id)
	return Record{d.NetworkID, d.OwnerDID, d.Name, d.Algorithm, d.KeyVersion, d.PublicKey, d.State, d.KeyBackend}, err
}
