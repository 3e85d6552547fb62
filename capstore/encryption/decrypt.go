package encryption

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// Answer is a data key, sealed to whom the request names, and signed by the node. It marshals to the protocol's form.
type Answer struct {
	Type            string `json:"type"`
	TargetNode      string `json:"targetNode"`
	NetworkID       string `json:"networkId"`
	InvocationCID   string `json:"invocationCid"`
	KeyHash         string `json:"encryptedSymmetricKeyHash"`
	ReceiverKeyHash string `json:"receiverPublicKeyHash"`
	WrappedKey      []byte `json:"wrappedKey"` // base64
	Algorithm       string `json:"alg"`
	KeyVersion      int64  `json:"keyVersion"`
	RequestHash     string `json:"requestHash"`
	NodeID          string `json:"nodeId"`
	Signature       []byte `json:"nodeSignature,omitempty"` // base64; over the canonical form of the rest
}

// maxSealed bounds what is unsealed, in bytes. A sealed data key has 93.
const maxSealed = 4096

// maxLife is how long a request to decrypt may be valid, whatever other invocations may.
const maxLife = 300 * time.Second

// Decrypt unseals a data key and seals it to another (docs/protocol.md, "Encryption networks"). The same request may be
// made again until its token ends: what it is answered with opens for the one receiver alone.
func (n *Networks) Decrypt(ctx context.Context, t *token.Token, text string, body []byte) (*Answer, error) {
	if n.isElsewhere(t) {
		id, err := tinycloud.ParseNetworkID(text)
		if err != nil {
			return nil, errAudience()
		}
		return n.forward(ctx, t, id, body, false)
	}
	if err := n.admit(ctx, t); err != nil {
		return nil, err
	}
	id, err := tinycloud.ParseNetworkID(text)
	if err != nil {
		return nil, err
	}
	return n.decrypt(ctx, t, id, body, nil)
}

// DecryptInvoked is [Networks.Decrypt] for an invocation that names its network by its capabilities alone, and counts
// once. What it is refused for is of class [tinycloud.ErrForbidden], and leaves it unused.
func (n *Networks) DecryptInvoked(ctx context.Context, t *token.Token, body []byte) (*Answer, error) {
	id, err := networkOf(t)
	if err != nil {
		return nil, err
	}
	if n.isElsewhere(t) {
		a, err := n.forward(ctx, t, id, body, true)
		return a, refusedAs(err)
	}
	if err := n.admit(ctx, t); err != nil {
		return nil, forbidden(err)
	}
	var used error
	a, err := n.decrypt(ctx, t, id, body, func() error {
		used = n.o.Store.Burn(ctx, t)
		return used
	})
	if used != nil {
		return nil, used
	}
	return a, forbidden(err)
}

// forbidden gives refusals their class on the way of other invocations.
func forbidden(err error) error {
	var r *tinycloud.Refusal
	if errors.As(err, &r) && !errors.Is(r, tinycloud.ErrUnavailable) {
		return tinycloud.Refuse(tinycloud.ErrForbidden, "%s", r.Text)
	}
	return err
}

// refusedAs is [forbidden], but for what the host that answers said of an invocation that was used before.
func refusedAs(err error) error {
	if errors.Is(err, tinycloud.ErrConflict) {
		return err
	}
	return forbidden(err)
}

// readAnswer reads what another host answered.
func readAnswer(text []byte) (*Answer, error) {
	var a Answer
	if err := json.Unmarshal(text, &a); err != nil || a.Type != resultType {
		return nil, tinycloud.Refuse(tinycloud.ErrUnavailable, "The host that has the key gave no answer")
	}
	return &a, nil
}

// Decrypts reports whether an invocation asks to decrypt on a network.
func Decrypts(t *token.Token) bool {
	_, ok := named(t)
	return ok
}

// named is the first network on which an invocation asks to decrypt.
func named(t *token.Token) (tinycloud.NetworkID, bool) {
	for _, c := range t.Caps {
		if id, ok := c.Resource.Network(); ok && c.Ability == AbilityDecrypt {
			return id, true
		}
	}
	return tinycloud.NetworkID{}, false
}

// networkOf is the one network on which an invocation asks to decrypt.
func networkOf(t *token.Token) (tinycloud.NetworkID, error) {
	id, _ := named(t)
	if asks(t, AbilityDecrypt, id) != nil {
		return id, tinycloud.Refuse(tinycloud.ErrForbidden, "decrypt invocation contains multiple networks")
	}
	return id, nil
}

// request is an admitted request to decrypt.
type request struct {
	asked
	token    *token.Token
	body     decryptBody
	facts    facts
	bodyHash string
	sealed   []byte // the data key
	receiver []byte // public key
}

// decrypt answers an admitted request. use, if there is one, is called before the answer is made.
func (n *Networks) decrypt(ctx context.Context, t *token.Token, id tinycloud.NetworkID, body []byte, use func() error) (*Answer, error) {
	r, err := readRequest(t, id, body)
	if err != nil {
		return nil, err
	}
	if err := n.ready(ctx, id.Owner()); err != nil {
		return nil, err
	}
	wrapped, outcome, err := n.decide(ctx, r)
	if err == nil && use != nil {
		if err := use(); err != nil {
			return nil, err
		}
	}
	if outcome != "" {
		if failed := n.audit(ctx, r.asked, outcome); failed != nil {
			return nil, failed // nobody gets a key of which nothing is known later
		}
	}
	if err != nil {
		return nil, err
	}
	return n.answer(r, wrapped)
}

func readRequest(t *token.Token, id tinycloud.NetworkID, body []byte) (*request, error) {
	d, err := parse(body)
	if err != nil {
		return nil, err
	}
	r := request{token: t, bodyHash: d.hash()}
	if r.body, err = readDecrypt(d); err != nil {
		return nil, err
	}
	if r.facts, err = findFacts(t.Facts, decryptFacts); err != nil {
		return nil, err
	}
	r.asked = asked{network: id, requester: t.Signer, hash: sha256.Sum256([]byte(t.ID.EventID() + r.bodyHash))}
	return &r, nil
}

// decide makes the checks in the protocol's order, and seals the data key. outcome is what is to be remembered of the
// decision, "" for nothing.
func (n *Networks) decide(ctx context.Context, r *request) (wrapped []byte, outcome string, err error) {
	switch {
	case r.body.kind != decryptType || r.facts.kind != decryptType:
		return nil, "", denied("invocation type is not a decrypt invocation")
	case r.facts.target != n.node || r.body.target != n.node:
		return nil, outcomeTarget, denied("invocation target node does not match this node")
	case r.facts.network != r.network || r.body.network != r.network:
		return nil, "", errOther()
	}
	if err := asks(r.token, AbilityDecrypt, r.network); err != nil {
		return nil, "", err
	}
	x, err := load(ctx, n.rows, r.network)
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("encryption network: %w", err)
	case x == nil:
		about, err := recordsAbout(ctx, n.rows, r.network)
		if err != nil {
			return nil, "", fmt.Errorf("encryption network: %w", err)
		}
		if about.revoked(r.network) {
			return nil, "", errRevoked()
		}
		return nil, "", errNone()
	}
	if err := x.usable(); err != nil {
		if x.state == stateRevoked {
			return nil, outcomeRevoked, err
		}
		return nil, outcomeState, err
	}
	keys := x.ofVersion(r.body.version)
	if len(keys) == 0 || r.facts.version != r.body.version || r.body.alg != Algorithm || r.facts.alg != Algorithm {
		return nil, "", denied("invocation alg / key version does not match network")
	}
	if err := timely(r.token, n.rows.Now()); err != nil {
		return nil, "", err
	}
	if outcome, err := r.check(); err != nil {
		return nil, outcome, err
	}
	wrapped, err = n.rewrap(keys, r.sealed, r.receiver)
	if err != nil {
		return nil, "", err
	}
	return wrapped, outcomeAllowed, nil
}

// timely checks the window of a token in whole seconds.
func timely(t *token.Token, at time.Time) error {
	now := at.Unix()
	switch {
	case t.Expires.Unix() <= now, t.Expires.Unix()-now > int64(maxLife/time.Second):
		return denied("invocation expired")
	case !t.NotBefore.IsZero() && t.NotBefore.Unix() > now:
		return denied("invocation not yet valid")
	}
	return nil
}

// check decodes the keys and compares them, and the body, with what was signed.
func (r *request) check() (outcome string, err error) {
	if r.sealed, err = decode64(r.body.key); err != nil {
		return "", err
	}
	if r.receiver, err = decode64(r.body.receiver); err != nil {
		return "", err
	}
	if h := hashText(r.body.receiver); r.body.receiverKeyHash != h || r.facts.receiverKeyHash != h {
		return outcomeSender, denied("invocation hash mismatch: receiverPublicKeyHash")
	}
	if h := hashText(r.body.key); r.body.keyHash != h || r.facts.keyHash != h {
		return outcomeKey, denied("invocation hash mismatch: encryptedSymmetricKeyHash")
	}
	if r.facts.bodyHash != r.bodyHash {
		return outcomeBody, denied("invocation hash mismatch: bodyHash")
	}
	if len(r.sealed) > maxSealed {
		return "", tinycloud.Refuse(tinycloud.ErrInvalid, "sealed key of %d bytes, at most %d", len(r.sealed), maxSealed)
	}
	return "", nil
}

// decode64 reads base64 of which there is one spelling.
func decode64(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") { // which the base64 package would skip
		return nil, tinycloud.Refuse(tinycloud.ErrInvalid, "invalid base64")
	}
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, tinycloud.Refuse(tinycloud.ErrInvalid, "invalid base64")
	}
	return b, nil
}

// rewrap unseals a data key with the one of some keys to which it was sealed, and seals it to another. That none fits is
// the client's fault, as is a key that is none.
func (n *Networks) rewrap(keys []key, sealed, receiver []byte) ([]byte, error) {
	var failed error
	for _, k := range keys {
		data, err := n.unseal(k, sealed)
		if err != nil {
			failed = err
			continue
		}
		defer clear(data)
		out, err := wrap(n.o.Rand, receiver, data)
		if errors.Is(err, errPublic) {
			return nil, tinycloud.Refuse(tinycloud.ErrInvalid, "%v", err)
		}
		return out, err
	}
	if errors.Is(failed, errBox) || errors.Is(failed, errOpen) || errors.Is(failed, errPublic) {
		return nil, tinycloud.Refuse(tinycloud.ErrInvalid, "%v", failed)
	}
	return nil, failed
}

// unseal opens what was sealed to one of a network's keys.
func (n *Networks) unseal(k key, sealed []byte) ([]byte, error) {
	private, err := n.private(k)
	if err != nil {
		return nil, err
	}
	defer clear(private)
	return unwrap(private, sealed)
}

// answer signs.
func (n *Networks) answer(r *request, wrapped []byte) (*Answer, error) {
	a := Answer{
		Type: resultType, TargetNode: n.node, NetworkID: r.network.String(), InvocationCID: r.token.ID.EventID(),
		KeyHash: r.body.keyHash, ReceiverKeyHash: r.body.receiverKeyHash, WrappedKey: wrapped, Algorithm: Algorithm,
		KeyVersion: r.body.version, RequestHash: hex.EncodeToString(r.hash[:]), NodeID: n.node,
	}
	signed, err := canonicalOf(a)
	if err != nil {
		return nil, fmt.Errorf("encryption network: sign: %w", err)
	}
	a.Signature = ed25519.Sign(n.o.Node, signed)
	return &a, nil
}
