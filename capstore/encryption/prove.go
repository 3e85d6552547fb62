package encryption

import (
	"fmt"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// AbilityRotate is to have a new version of a network's key made.
const AbilityRotate = "tinycloud.encryption/network.rotate"

// abilities are what the token of a record has to ask for.
var abilities = map[recordKind]string{recordCreate: AbilityCreate, recordRotate: AbilityRotate, recordRevoke: AbilityRevoke}

// prove checks what a record proves itself: its signatures, and that its token, made for the node that signs, asks for
// what was done, by somebody who had the right, at a time within the token's window. It reads no clock and no store, so
// that all hosts find the same.
func (r *record) prove() error {
	signed := r.signed()
	if !r.node.Signed(signed, r.sig) {
		return fmt.Errorf("record: signature of the node: %w", tinycloud.ErrForged)
	}
	if r.kind == recordMember && !r.host.Signed(signed, r.hostSig) {
		return fmt.Errorf("record: signature of the space key: %w", tinycloud.ErrForged)
	}
	if len(r.token) == 0 {
		return nil
	}
	t, err := readToken(r.token)
	if err != nil {
		return err
	}
	if err := t.VerifySignature(); err != nil {
		return err
	}
	known, err := verified(r.chain)
	if err != nil {
		return err
	}
	return r.granted(t, known)
}

// readToken reads the token of a record: an invocation, or a text that the owner's wallet signed.
func readToken(b []byte) (*token.Token, error) { return token.Decode(b, true) }

// verified reads the delegations of a chain.
func verified(chain [][]byte) (map[tinycloud.Hash]*token.Token, error) {
	out := map[tinycloud.Hash]*token.Token{}
	for _, b := range chain {
		p, err := token.Decode(b, false)
		if err != nil {
			return nil, err
		}
		if err := p.VerifySignature(); err != nil {
			return nil, err
		}
		if p.Kind == token.Delegation {
			out[p.ID] = p
		}
	}
	return out, nil
}

// begins is when a token begins. One that does not say so begins when it was issued or, if it does not say that, as long
// before its end as one may live: the earliest key is the one that is advertised.
func begins(t *token.Token) time.Time {
	switch {
	case !t.NotBefore.IsZero():
		return t.NotBefore
	case !t.IssuedAt.IsZero():
		return t.IssuedAt
	}
	return t.Expires.Add(-maxLife)
}

func (r *record) granted(t *token.Token, known map[tinycloud.Hash]*token.Token) error {
	ability := abilities[r.kind]
	no := func(why string) error { return fmt.Errorf("record: %s: %w", why, tinycloud.ErrUnauthorized) }
	audience, ok := hostlog.KeyOf(t.Audience)
	switch {
	case !ok || audience != r.node:
		return no("the token is for another node")
	case t.Expires.IsZero():
		return no("the token never ends")
	case !t.ValidAt(r.time(), judge.Slack), r.time().Before(begins(t).Add(-judge.Slack)):
		return no("it was made outside the token's window")
	}
	if err := asks(t, ability, r.network); err != nil {
		return no("the token asks for something else")
	}
	if t.Kind == token.Invocation {
		f, err := findFacts(t.Facts, adminFacts)
		if err != nil || f.kind != adminType || f.action != ability || f.network != r.network || f.target != nodeDID(r.node) {
			return no("the token's facts are of something else")
		}
	} else if r.kind != recordRotate || t.Kind != token.Delegation || t.Signer != r.network.Owner() {
		return no("the token is no invocation")
	}
	s := judge.NewSearch(func(id tinycloud.Hash) *token.Token { return known[id] }).At(r.time())
	for _, c := range t.Caps {
		if c.Ability == ability && !s.Justified(t, c) {
			return no("the token's signer had no right to that")
		}
	}
	return nil
}
