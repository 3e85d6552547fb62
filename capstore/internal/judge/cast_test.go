package judge

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/multiformats/go-multibase"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/recap"
)

// Who plays in the tables: an owner with a Space, people, and hosts.
var (
	space      = must("tinycloud:pkh:eip155:1:0x7909FCE5b29c13566f0Ed0Bc27AC874316c5e581:default")
	otherSpace = must("tinycloud:pkh:eip155:1:0x7BD63AA37326a64d458559F44432103e3d6eEDE9:default")
	owner      = space.Owner()

	keyX, keyY, keyZ    = hostlog.Key{1}, hostlog.Key{2}, hostlog.Key{3}
	hostX, hostY, hostZ = didOf(keyX), didOf(keyY), didOf(keyZ)
)

const ann, ben, cat, mallory tinycloud.Principal = "did:example:ann", "did:example:ben", "did:example:cat", "did:example:mallory"

// start is the time that the tables count from.
var start = time.UnixMilli(noon)

func must(id string) tinycloud.SpaceID {
	s, err := tinycloud.ParseSpaceID(id)
	if err != nil {
		panic(err)
	}
	return s
}

func didOf(h hostlog.Key) tinycloud.Principal { return tinycloud.Principal(h.String()) }

// after is so many milliseconds after start.
func after(ms int64) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }

// can reads capabilities such as "kv/put on kv/a; kv/get on kv if [{"x":1}]". A resource is of the Space unless it is a
// whole URI.
func can(text string) (caps []recap.Capability) {
	for part := range strings.SplitSeq(text, "; ") {
		if part == "" {
			continue
		}
		part, caveats, has := strings.Cut(part, " if ")
		ability, on, _ := strings.Cut(part, " on ")
		if !strings.Contains(on, ":") {
			on = space.String() + "/" + on
		}
		r, err := tinycloud.ParseResource(on)
		if err != nil {
			panic(err)
		}
		c := recap.Capability{Resource: r, URI: on, Ability: "tinycloud." + ability}
		if has {
			c.Caveats = []byte(caveats)
		}
		caps = append(caps, c)
	}
	return caps
}

// An aspect is something that a token says beside who may do what.
type aspect func(*token.Token)

// by gives the proofs of a token.
func by(proofs ...*token.Token) aspect {
	return func(t *token.Token) {
		for _, p := range proofs {
			t.Proofs = append(t.Proofs, p.ID)
		}
	}
}

func from(at time.Time) aspect   { return func(t *token.Token) { t.NotBefore = at } }
func until(at time.Time) aspect  { return func(t *token.Token) { t.Expires = at } }
func issued(at time.Time) aspect { return func(t *token.Token) { t.IssuedAt = at } }

func made(t *token.Token, what []aspect) *token.Token {
	for _, a := range what {
		a(t)
	}
	t.ID = tinycloud.Sum(fmt.Append(nil, t.Kind, t.Signer, t.Audience, t.Caps, t.Proofs, t.NotBefore, t.Expires, t.IssuedAt, t.Target))
	return t
}

// grant is a delegation, good for ever.
func grant(signer, to tinycloud.Principal, caps string, what ...aspect) *token.Token {
	return made(&token.Token{Kind: token.Delegation, Signer: signer, Audience: to, Caps: can(caps)}, what)
}

// invoke is an invocation, good for ever.
func invoke(signer tinycloud.Principal, caps string, what ...aspect) *token.Token {
	return made(&token.Token{Kind: token.Invocation, Signer: signer, Audience: signer, Caps: can(caps)}, what)
}

// revoke is a revocation.
func revoke(signer tinycloud.Principal, target *token.Token, what ...aspect) *token.Token {
	return made(&token.Token{Kind: token.Revocation, Signer: signer, Target: target.ID}, what)
}

// hostBy lets a host in.
func hostBy(signer, host tinycloud.Principal, what ...aspect) *token.Token {
	return grant(signer, host, "space/host on space", what...)
}

func put(key string) []Asked { return []Asked{{Service: "kv", Path: key, Ability: token.AbilityPut}} }

func del(key string) []Asked { return []Asked{{Service: "kv", Path: key, Ability: token.AbilityDel}} }

// The tables have two histories beside each other: the epochs of branch 1, of which each builds on the one before, and
// likewise those of branch 2. Spot n of a branch is the only entry of its epoch n.

func epochOf(s Spot) tinycloud.Hash { return tinycloud.Sum(fmt.Append(nil, s)) }

// in is the place of an event in an epoch.
func in(branch uint32, n uint64, index int) Place {
	s := Spot{branch, n}
	return Place{Spot: s, Epoch: epochOf(s), Index: index}
}

// seenFrom is what an event of an epoch sees: what came before.
func seenFrom(branch uint32, n uint64, index int) Here {
	p := in(branch, n, index)
	h := Here{Epoch: p.Epoch, Index: index, Past: Clock{}, Spots: []Spot{p.Spot}}
	if n > 0 {
		h.Past[branch] = n - 1
	}
	return h
}

// known are facts that stand in epoch 0 of branch 1, and what stands elsewhere.
func known(tokens []*token.Token, elsewhere ...placed) *Facts {
	f := NewFacts(space)
	for i, t := range tokens {
		f.Add(t, in(1, 0, i))
	}
	for _, p := range elsewhere {
		f.Add(p.token, p.at)
	}
	return f
}

// placed is a token at a place.
type placed struct {
	token *token.Token
	at    Place
}

// stand puts tokens into epoch 0 of branch 1, behind its first event.
func stand(tokens []*token.Token) (out []placed) {
	for i, t := range tokens {
		out = append(out, placed{t, in(1, 0, 1+i)})
	}
	return out
}

// verdict compares one with what is expected: "" for none, or a part of why something is void.
func verdict(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("void: %v", err)
	case want != "" && err == nil:
		t.Errorf("valid, expected void: %s", want)
	case want != "" && (!strings.Contains(err.Error(), want) || !errors.Is(err, tinycloud.ErrUnauthorized)):
		t.Errorf("void: %v, expected: %s", err, want)
	}
}

// named says which of some tokens are meant.
func named(tokens map[string]*token.Token, is func(*token.Token) bool) []string {
	out := []string{}
	for name, t := range tokens {
		if is(t) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// earlySpelling is the DID of a host with its multicodec in one byte.
func earlySpelling(h hostlog.Key) tinycloud.Principal { return multikey(0xed, 0, h) }

// multikey is the DID of a key behind a multicodec of one or, unless the second is 0, two bytes.
func multikey(first, second byte, h hostlog.Key) tinycloud.Principal {
	b := []byte{first}
	if second != 0 {
		b = append(b, second)
	}
	text, err := multibase.Encode(multibase.Base58BTC, append(b, h[:]...))
	if err != nil {
		panic(err)
	}
	return tinycloud.Principal("did:key:" + text)
}
