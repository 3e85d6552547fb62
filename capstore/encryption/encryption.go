package encryption

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// Options configure [Networks].
type Options struct {
	Store *capstore.Store
	Node  ed25519.PrivateKey // signs answers; its DID is the audience of requests
	Seal  [32]byte           // under which private keys are stored
	Rand  io.Reader          // nil: that of crypto/rand

	Share     Share                       // "": [SharePaired]
	Paired    func(node hostlog.Key) bool // whether a node is paired; nil: none is
	AnyPaired func() bool                 // whether any node is; nil: none is
	Others    Others                      // nil: there are none
	// Changed is told that the records of an owner, or what is trusted for him, changed; it must not block. It may be nil.
	Changed func(owner tinycloud.Principal)
}

// Networks are the networks of a node. Its methods may be called concurrently.
type Networks struct {
	o    Options
	rows capstore.Beside
	node string // DID
	key  hostlog.Key
}

// New returns the networks whose rows are in the store.
func New(o Options) *Networks {
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	key := hostlog.Key(o.Node.Public().(ed25519.PublicKey))
	return &Networks{o: o, rows: o.Store.Beside(), node: nodeDID(key), key: key}
}

// admit judges an invocation as far as every request here is: it is for this node, and its signer has what it names.
func (n *Networks) admit(ctx context.Context, t *token.Token) error {
	if string(t.Audience) != n.node {
		return errAudience()
	}
	return n.entitled(ctx, t)
}

// entitled judges whether the signer has what it names.
func (n *Networks) entitled(ctx context.Context, t *token.Token) error {
	err := n.o.Store.AdmitReusable(ctx, t)
	var r *tinycloud.Refusal
	if errors.As(err, &r) && errors.Is(r, tinycloud.ErrNotFound) {
		return denied("%s", r.Text) // of a Space that the token names too; what is not found here is a network
	}
	return err
}

func denied(format string, args ...any) error {
	return tinycloud.Refuse(tinycloud.ErrUnauthorized, format, args...)
}

// asks checks that a token names an ability, and on nothing but one network.
func asks(t *token.Token, ability string, id tinycloud.NetworkID) error {
	named := false
	for _, c := range t.Caps {
		if c.Ability != ability {
			continue
		}
		if of, ok := c.Resource.Network(); !ok || of != id {
			return errOther()
		}
		named = true
	}
	if !named {
		return denied("decrypt action not permitted")
	}
	return nil
}

func errAudience() error { return denied("invocation audience does not match this node") }

func errOther() error { return denied("invocation references a different network") }

func errNone() error { return tinycloud.Refuse(tinycloud.ErrNotFound, "network not found") }
