package encryption

import (
	"context"
	"fmt"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// Rotate makes a new version of a network's key, by an invocation of the owner's, or of whom he gave the right to. What
// was sealed to earlier versions still opens.
func (n *Networks) Rotate(ctx context.Context, t *token.Token, text string) (Descriptor, error) {
	if err := n.admit(ctx, t); err != nil {
		return Descriptor{}, err
	}
	id, err := tinycloud.ParseNetworkID(text)
	if err != nil {
		return Descriptor{}, err
	}
	if err := n.administers(t, id, AbilityRotate, emptyHash); err != nil {
		return Descriptor{}, err
	}
	return n.rotate(ctx, t, id)
}

// maxText is how long a text may be valid by which the owner's wallet has a key rotated.
const maxText = time.Hour

// RotateSigned is [Networks.Rotate] by a text of [Networks.RotateMessage] that the owner's wallet signed.
func (n *Networks) RotateSigned(ctx context.Context, t *token.Token, id tinycloud.NetworkID) (Descriptor, error) {
	now := n.rows.Now()
	switch {
	case string(t.Audience) != n.node:
		return Descriptor{}, denied("the text is for another node")
	case t.Kind != token.Delegation || t.Signer != id.Owner():
		return Descriptor{}, denied("the text is not signed by the network's owner")
	case !t.ValidAt(now, 0) || t.Expires.IsZero() || t.Expires.Sub(now) > maxText:
		return Descriptor{}, denied("the text has expired, or is valid for too long")
	}
	if err := t.VerifySignature(); err != nil {
		return Descriptor{}, err
	}
	if err := asks(t, AbilityRotate, id); err != nil {
		return Descriptor{}, err
	}
	return n.rotate(ctx, t, id)
}

// RotateMessage returns the text by whose signature the owner of a network has a new version of its key made by this node.
func (n *Networks) RotateMessage(id tinycloud.NetworkID, nonce string) (string, error) {
	return capstore.OwnerMessage(id.Owner(), tinycloud.Principal(n.node), id.String(), AbilityRotate, nonce, n.rows.Now(), maxText/2)
}

func (n *Networks) rotate(ctx context.Context, t *token.Token, id tinycloud.NetworkID) (Descriptor, error) {
	if err := n.ready(ctx, id.Owner()); err != nil {
		return Descriptor{}, err
	}
	x, err := load(ctx, n.rows, id)
	switch {
	case err != nil:
		return Descriptor{}, fmt.Errorf("encryption network: %w", err)
	case x == nil:
		return Descriptor{}, errNone()
	}
	if err := x.usable(); err != nil {
		return Descriptor{}, err
	}
	if !slices.ContainsFunc(x.keys, n.opens) {
		return Descriptor{}, errLocked
	}
	last := x.keys[0].version
	if last >= maxVersion {
		return Descriptor{}, tinycloud.Refuse(tinycloud.ErrForbidden, "the network has too many versions")
	}
	k, err := n.generate(last + 1)
	if err != nil {
		return Descriptor{}, err
	}
	made, err := n.recordAsked(ctx, record{kind: recordRotate, network: id, version: k.version, public: k.public, at: n.rows.Now().UnixNano()}, t)
	if err != nil {
		return Descriptor{}, err
	}
	if made == nil {
		return Descriptor{}, tinycloud.Refuse(tinycloud.ErrInvalid, "other hosts could not check what the token rests on: it is too long, or not here")
	}
	err = n.rows.Update(ctx, true, func(tx capstore.BesideTx) error {
		now, err := load(ctx, inTx{tx}, id)
		if err != nil {
			return err
		}
		if now == nil || now.usable() != nil || now.keys[0].version != last {
			return tinycloud.Refuse(tinycloud.ErrConflict, "the network changed meanwhile")
		}
		if err := burn(tx, id.Owner(), t); err != nil {
			return err
		}
		if err := n.insertKey(tx, made, k, t); err != nil {
			return err
		}
		return tx.Exec("UPDATE networks SET updated = ? WHERE id = ?", made.at, row(id))
	})
	if err != nil {
		return Descriptor{}, err
	}
	n.changed(id.Owner())
	return n.Describe(ctx, id)
}
