package encryption

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"fmt"
	"io"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// opens reports whether a stored key opens with this node's secret: another node's backup has keys that don't.
func (n *Networks) opens(k key) bool {
	private, err := n.private(k)
	clear(private)
	return err == nil
}

// private opens a stored key. The caller clears it.
func (n *Networks) private(k key) ([]byte, error) {
	private, err := open(n.o.Seal[:], k.sealed)
	if err != nil || len(private) != keySize {
		clear(private)
		return nil, errLocked
	}
	return private, nil
}

var errLocked = fmt.Errorf("a stored key of an encryption network does not open with this node's secret: %w", tinycloud.ErrUnavailable)

// own is this node as a host of a Space.
func (n *Networks) own(space tinycloud.SpaceID) hostlog.Party {
	return hostlog.Party{Host: hostlog.Key(n.rows.SpaceKey(space).Public().(ed25519.PublicKey)), Node: n.key}
}

// Give answers the announcement of another host of a Space of secrets, by its key there, with the key that it asks for. The error is of class
// [tinycloud.ErrForbidden] when it is not to have it, and [tinycloud.ErrNotFound] when it is not held here.
func (n *Networks) Give(ctx context.Context, space tinycloud.SpaceID, host hostlog.Key, text []byte) ([]byte, error) {
	a, err := decodeAsk(text)
	if err != nil {
		return nil, err
	}
	switch {
	case !space.IsSecrets() || a.space != space || a.network.Owner() != space.Owner(), a.to.Host != host, a.from != n.own(space):
		return nil, fmt.Errorf("announcement to another host, or about another network: %w", tinycloud.ErrForged)
	}
	if err := a.proves(); err != nil {
		return nil, err
	}
	if err := n.mayHave(ctx, space, a.to); err != nil {
		return nil, err
	}
	x, err := load(ctx, n.rows, a.network)
	if err != nil {
		return nil, fmt.Errorf("encryption network: %w", err)
	}
	if x == nil || x.state == stateRevoked {
		return nil, errNone()
	}
	for _, k := range x.keys {
		if k.version != a.version || !bytes.Equal(k.public, a.public) {
			continue
		}
		private, err := n.private(k)
		if err != nil {
			return nil, err
		}
		defer clear(private)
		return a.give(n.o.Rand, private)
	}
	return nil, errNone()
}

// mayHave refuses keys to who is no host that the owner signed for himself, or is not trusted by the operator.
func (n *Networks) mayHave(ctx context.Context, space tinycloud.SpaceID, to hostlog.Party) error {
	hosts, err := n.rows.HostsOf(ctx, space)
	if err != nil {
		return err
	}
	if !hosts[to.Host] {
		return tinycloud.Refuse(tinycloud.ErrForbidden, "the owner did not sign for that host himself")
	}
	switch trusted, err := n.trusts(ctx, space.Owner(), to.Node); {
	case err != nil:
		return err
	case !trusted:
		return tinycloud.Refuse(tinycloud.ErrForbidden, "the node is neither paired nor approved")
	}
	return nil
}

// Want is a key that another host holds and this one lacks. It is used once.
type Want struct {
	n         *Networks
	a         ask
	made      *record
	transport *ecdh.PrivateKey
}

// Ask is the announcement to send to the holder.
func (w *Want) Ask() []byte { return w.a.encode() }

// Wants returns the keys to ask another host of a Space of secrets for: those of which it says, by its Space key and that
// of a node that this one trusts, that it holds them.
func (n *Networks) Wants(ctx context.Context, space tinycloud.SpaceID, host hostlog.Key) (out []hostlog.KeyWant, err error) {
	all, err := recordsOf(ctx, n.rows, space.Owner())
	if err != nil {
		return nil, fmt.Errorf("encryption networks: %w", err)
	}
	for _, r := range all.makers() {
		if all.revoked(r.network) {
			continue
		}
		node, ok := all.heldAt(r, host)
		if !ok || node == n.key {
			continue
		}
		if trusted, err := n.trusts(ctx, space.Owner(), node); err != nil || !trusted {
			if err != nil {
				return nil, err
			}
			continue
		}
		held, err := n.holds(ctx, r)
		if err != nil {
			return nil, err
		}
		if held {
			continue
		}
		w, err := n.want(space, hostlog.Party{Host: host, Node: node}, r)
		if err != nil {
			return nil, err
		}
		out = append(out, w)
	}
	return out, nil
}

// heldAt returns the node of a host that says it holds a key.
func (s set) heldAt(r *record, host hostlog.Key) (hostlog.Key, bool) {
	for _, m := range s.holders(r.network, r.version, r.public) {
		if m.host == host {
			return m.node, true
		}
	}
	return hostlog.Key{}, false
}

// holds reports whether the private half of a key is here, and opens.
func (n *Networks) holds(ctx context.Context, r *record) (bool, error) {
	k := key{version: r.version, public: r.public}
	ok, err := n.rows.One(ctx, []any{&k.sealed}, "SELECT sealed FROM network_keys WHERE network = ? AND version = ? AND public_key = ?",
		row(r.network), r.version, r.public)
	if err != nil {
		return false, fmt.Errorf("encryption networks: %w", err)
	}
	return ok && n.opens(k), nil
}

func (n *Networks) want(space tinycloud.SpaceID, from hostlog.Party, made *record) (*Want, error) {
	var seed [keySize]byte
	defer clear(seed[:])
	if _, err := io.ReadFull(n.o.Rand, seed[:]); err != nil {
		return nil, fmt.Errorf("encryption network: random: %w", err)
	}
	transport, err := ecdh.X25519().NewPrivateKey(seed[:])
	if err != nil {
		return nil, err
	}
	w := &Want{n: n, made: made, transport: transport, a: ask{
		space: space, network: made.network, version: made.version, public: made.public,
		to: n.own(space), from: from, transport: transport.PublicKey().Bytes(),
	}}
	w.a.sign(n.rows.SpaceKey(space), n.o.Node)
	return w, nil
}

// Take keeps what the holder answered with. When it returns, the key is durable, and so is the record that it is held
// here; nobody is told before. That it is here already is no error.
func (w *Want) Take(ctx context.Context, given []byte) error {
	n := w.n
	private, err := w.a.take(w.transport, given)
	if err != nil {
		return err
	}
	defer clear(private)
	sealed, err := box(n.o.Rand, n.o.Seal[:], private)
	if err != nil {
		return err
	}
	err = n.rows.Update(ctx, true, func(tx capstore.BesideTx) error {
		k := key{version: w.made.version, public: w.made.public, sealed: sealed, created: w.made.at}
		if err := n.adopt(ctx, tx, w.made, k); err != nil {
			return err
		}
		_, err := keep(tx, n.member(w.made.network, k, tx.Now().UnixNano()))
		return err
	})
	if err == nil {
		n.changed(w.made.network.Owner())
	}
	return err
}

// adopt stores a key that a record tells of, and its network if it is new.
func (n *Networks) adopt(ctx context.Context, tx capstore.BesideTx, made *record, k key) error {
	id := row(made.network)
	have, err := load(ctx, inTx{tx}, made.network)
	if err != nil {
		return err
	}
	about, err := recordsAbout(ctx, inTx{tx}, made.network)
	if err != nil {
		return err
	}
	state := stateActive
	if about.revoked(made.network) {
		state = stateRevoked
	}
	switch {
	case have == nil:
		err = tx.Add(capstore.Insert{Into: "networks", Columns: "id network owner name state threshold_n threshold_t created updated audited"},
			id, made.network.String(), string(made.network.Owner()), made.network.Name(), state, about.threshold(made).N, about.threshold(made).T, made.at, made.at, 0)
	case made.at < have.created.UnixNano():
		err = tx.Exec("UPDATE networks SET created = ? WHERE id = ?", made.at, id)
	case made.at > have.updated.UnixNano() && have.state != stateRevoked:
		err = tx.Exec("UPDATE networks SET updated = ? WHERE id = ?", made.at, id)
	}
	if err != nil {
		return err
	}
	var token any // NULL of a key that was taken over
	if len(made.token) > 0 {
		token = made.token
	}
	return tx.Add(capstore.Insert{Into: "network_keys", Columns: "network version public_key sealed created creator made_by", Key: "network version public_key", Replace: true},
		id, k.version, k.public, k.sealed, k.created, nodeDID(made.node), token)
}

// threshold is what the network was made with, as far as is known.
func (s set) threshold(made *record) threshold {
	if made.kind != recordRotate {
		return made.threshold
	}
	makers := s.makers()
	for i := len(makers) - 1; i >= 0; i-- {
		if makers[i].kind != recordRotate {
			return makers[i].threshold
		}
	}
	return threshold{1, 1}
}
