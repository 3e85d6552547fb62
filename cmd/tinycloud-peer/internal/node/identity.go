package node

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
)

// goOn is what an operator may do who meets the data of another node.
const goOn = "bring that secret back, or go on as a new node, which owners have to host their spaces on again and which cannot open " +
	"what was sealed for the other (encryption networks, webhooks): start it once with --new-identity"

// loadKeys reads the secret. One that is missing is made, but not beside the data of a node that had one.
func (n *Node) loadKeys(ctx context.Context) error {
	if !n.o.NewIdentity {
		if err := n.checkMissing(ctx); err != nil {
			return err
		}
	}
	secret, warnings, err := n.cfg.ResolveSecret()
	if err != nil {
		return fmt.Errorf("keys.secret: %w", err)
	}
	for _, w := range warnings {
		n.log.WarnContext(ctx, "configuration", "warning", w.String())
	}
	n.keys, err = hostkeys.New(secret.Bytes())
	if err != nil {
		return fmt.Errorf("keys.secret: %w", err)
	}
	return nil
}

func (n *Node) checkMissing(ctx context.Context) error {
	missing, err := n.cfg.SecretMissing()
	if err != nil || !missing {
		return err
	}
	o, err := capstore.FindOwner(ctx, databaseOf(n.cfg), n.log)
	if err != nil || o.None() {
		return err
	}
	if o.Host == "" && !n.shared() {
		return nil // it had nothing yet that rests on its secret
	}
	return fmt.Errorf("keys.secret: %s is missing, and the data in storage.database are of the node %s: %s", n.cfg.SecretFile(), o, goOn)
}

// CheckAdopted refuses keys that are to be those of a node whose secret is missing, beside its data.
func CheckAdopted(ctx context.Context, cfg config.Config, keys *hostkeys.Static) error {
	missing, err := cfg.SecretMissing()
	if err != nil || !missing {
		return err
	}
	o, err := capstore.FindOwner(ctx, databaseOf(cfg), nil)
	if me := didOf(keys); err == nil && o.Node != "" && o.Host != "" && o.Node != me {
		err = &capstore.OtherNodeError{Owner: o, Node: me}
	}
	return err
}

// identity is whose data the database has to hold.
func (n *Node) identity() capstore.Identity {
	return capstore.Identity{Node: didOf(n.keys), New: n.o.NewIdentity}
}

// otherNode adds to a refusal what may be done.
func (n *Node) otherNode(err error) error {
	if other := (*capstore.OtherNodeError)(nil); errors.As(err, &other) {
		return fmt.Errorf("%w: %s", err, goOn)
	}
	return err
}

// databaseOf is the database as capstore names it.
func databaseOf(cfg config.Config) string {
	switch d := cfg.Storage.Database; {
	case d.InMemory():
		return capstore.InMemory
	case d.Scheme() != config.SQLite:
		return d.DSN()
	default:
		return d.Path()
	}
}

// didOf is the DID of the node that has a secret.
func didOf(keys *hostkeys.Static) string {
	return hostkeys.DIDKey(keys.NodeKey().Public().(ed25519.PublicKey))
}
