package encryption

import (
	"context"
	"fmt"
	"io"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// MaxNetworks is how many networks an owner may have here.
const MaxNetworks = 16

// administers checks that a token asks to do to a network, with a body of some hash, what is done.
func (n *Networks) administers(t *token.Token, id tinycloud.NetworkID, ability, bodyHash string) error {
	f, err := findFacts(t.Facts, adminFacts)
	switch {
	case err != nil:
		return err
	case f.kind != adminType:
		return denied("invocation type is not a decrypt invocation")
	case f.target != n.node:
		return denied("invocation target node does not match this node")
	case f.network != id:
		return errOther()
	case f.action != ability:
		return denied("decrypt action not permitted")
	}
	if err := asks(t, ability, id); err != nil {
		return err
	}
	if f.bodyHash != bodyHash {
		return denied("invocation hash mismatch: bodyHash")
	}
	if t.Nonce == "" {
		return invalid("missing nonce")
	}
	return nil
}

// Create makes a network for an owner of whom a Space is hosted here (docs/protocol.md, "Encryption networks"). The
// error is of class [tinycloud.ErrConflict] when there is one, revoked or not.
func (n *Networks) Create(ctx context.Context, t *token.Token, body []byte) (Descriptor, error) {
	if err := n.admit(ctx, t); err != nil {
		return Descriptor{}, err
	}
	d, err := parse(body)
	if err != nil {
		return Descriptor{}, err
	}
	b, err := readCreate(d)
	if err != nil {
		return Descriptor{}, err
	}
	if err := n.administers(t, b.id, AbilityCreate, d.hash()); err != nil {
		return Descriptor{}, err
	}
	switch hosts, err := n.rows.Hosts(ctx, b.id.Owner()); {
	case err != nil:
		return Descriptor{}, fmt.Errorf("encryption network: %w", err)
	case !hosts:
		return Descriptor{}, denied("no space of the owner is hosted here")
	}
	if err := n.askFirst(ctx, b.id); err != nil {
		return Descriptor{}, err
	}
	k, err := n.generate(1)
	if err != nil {
		return Descriptor{}, err
	}
	made, err := n.recordAsked(ctx, record{kind: recordCreate, network: b.id, version: k.version, public: k.public, at: n.rows.Now().UnixNano(), threshold: b.threshold}, t)
	if err != nil {
		return Descriptor{}, err
	}
	if made == nil { // it can't be proven to others, who have to believe this node
		k.created = n.rows.Now().UnixNano()
		made = n.taken(b.id, b.threshold, k)
	}
	var refused error
	err = n.rows.Update(ctx, true, func(tx capstore.BesideTx) (err error) {
		if refused = burn(tx, b.id.Owner(), t); refused != nil {
			return refused
		}
		// What is refused from here on has used its nonce.
		if refused, err = mayCreate(tx, b.id); refused != nil || err != nil {
			return err
		}
		return n.insert(tx, made, k, t)
	})
	if refused != nil || err != nil {
		return Descriptor{}, first(refused, err)
	}
	n.changed(b.id.Owner())
	return n.Describe(ctx, b.id)
}

// askFirst has the other hosts be asked for a network that is not here before one is made. It is refused while it is not
// known whether one of them has it, and when one has it that does not hand it over.
func (n *Networks) askFirst(ctx context.Context, id tinycloud.NetworkID) error {
	x, err := load(ctx, n.rows, id)
	if err != nil {
		return fmt.Errorf("encryption network: %w", err)
	}
	if x != nil {
		return nil // a conflict, once the nonce is used
	}
	answered, silent := n.ask(ctx, id.Owner())
	if x, err = load(ctx, n.rows, id); err != nil || x != nil {
		return err
	}
	switch d, err := n.ofOthers(ctx, id, answered); {
	case err != nil:
		return err
	case d != nil:
		return tinycloud.Refuse(tinycloud.ErrConflict, "network already exists")
	}
	return silent
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// generate makes a key pair, sealed.
func (n *Networks) generate(version int64) (key, error) {
	private := make([]byte, keySize)
	defer clear(private)
	if _, err := io.ReadFull(n.o.Rand, private); err != nil {
		return key{}, fmt.Errorf("encryption network: random: %w", err)
	}
	pub, err := public(private)
	if err != nil {
		return key{}, err
	}
	sealed, err := box(n.o.Rand, n.o.Seal[:], private)
	return key{version: version, public: pub, sealed: sealed}, err
}

// mayCreate refuses a network that there is, and one too many.
func mayCreate(tx capstore.BesideTx, id tinycloud.NetworkID) (refused, err error) {
	var x int
	if ok, err := tx.One([]any{&x}, "SELECT 1 FROM networks WHERE id = ?", row(id)); err != nil || ok {
		if ok {
			refused = tinycloud.Refuse(tinycloud.ErrConflict, "network already exists")
		}
		return refused, err
	}
	if ok, err := tx.One([]any{&x}, "SELECT 1 FROM network_records WHERE network = ? AND kind = ?", row(id), int64(recordRevoke)); err != nil || ok {
		if ok {
			refused = tinycloud.Refuse(tinycloud.ErrConflict, "network already exists")
		}
		return refused, err
	}
	if _, err := tx.One([]any{&x}, "SELECT count(*) FROM networks WHERE owner = ?", string(id.Owner())); err != nil {
		return nil, err
	}
	if x >= MaxNetworks {
		refused = tinycloud.Refuse(tinycloud.ErrForbidden, "the owner has %d encryption networks here, and that is the most", x)
	}
	return refused, nil
}

// insert stores a new network with its key, and the records that tell of both.
func (n *Networks) insert(tx capstore.BesideTx, made *record, k key, t *token.Token) error {
	id := made.network
	err := tx.Add(capstore.Insert{Into: "networks", Columns: "id network owner name state threshold_n threshold_t created updated audited"},
		row(id), id.String(), string(id.Owner()), id.Name(), stateActive, made.threshold.N, made.threshold.T, made.at, made.at, 0)
	if err != nil {
		return err
	}
	return n.insertKey(tx, made, k, t)
}

func (n *Networks) insertKey(tx capstore.BesideTx, made *record, k key, t *token.Token) error {
	err := tx.Add(capstore.Insert{Into: "network_keys", Columns: "network version public_key sealed created creator made_by"},
		row(made.network), k.version, k.public, k.sealed, made.at, n.node, t.Bytes)
	if err != nil {
		return err
	}
	_, err = keep(tx, made, n.member(made.network, k, made.at))
	return err
}

// emptyHash is of the body that a revocation has not: {}.
var emptyHash = digest([]byte("{}"))

// Revoke ends a network for good. Its keys stay, and nobody gets anything by them.
func (n *Networks) Revoke(ctx context.Context, t *token.Token, text string) error {
	if err := n.admit(ctx, t); err != nil {
		return err
	}
	id, err := tinycloud.ParseNetworkID(text)
	if err != nil {
		return err
	}
	if err := n.administers(t, id, AbilityRevoke, emptyHash); err != nil {
		return err
	}
	r, err := n.recordAsked(ctx, record{kind: recordRevoke, network: id, at: n.rows.Now().UnixNano()}, t)
	if err != nil {
		return err
	}
	err = n.rows.Update(ctx, false, func(tx capstore.BesideTx) error {
		x, err := load(ctx, inTx{tx}, id)
		if err != nil {
			return err
		}
		if x == nil {
			return n.revokeElsewhere(ctx, tx, r, t, id)
		}
		if err := burn(tx, id.Owner(), t); err != nil || x.state == stateRevoked {
			return err
		}
		err = tx.Exec("UPDATE networks SET state = ?, updated = ?, revocation = ? WHERE id = ?",
			stateRevoked, tx.Now().UnixNano(), t.Bytes, row(id))
		if err != nil {
			return err
		}
		_, err = keep(tx, r)
		return err
	})
	if err == nil {
		n.changed(id.Owner())
	}
	return err
}

// revokeElsewhere revokes a network of which no key is here, but which other hosts tell of.
func (n *Networks) revokeElsewhere(ctx context.Context, tx capstore.BesideTx, r *record, t *token.Token, id tinycloud.NetworkID) error {
	about, err := recordsAbout(ctx, inTx{tx}, id)
	if err != nil {
		return err
	}
	if len(about.makers()) == 0 || r == nil {
		return errNone()
	}
	if err := burn(tx, id.Owner(), t); err != nil || about.revoked(id) {
		return err
	}
	_, err = keep(tx, r)
	return err
}
