package client

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cacao"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/recap"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/siwe"
)

const (
	mainnet     = 1 // chain of the accounts
	stampFormat = "2006-01-02T15:04:05.000Z"
)

// Wallet is an Ethereum account on chain 1, the owner of Spaces.
type Wallet struct{ key *secp256k1.PrivateKey }

// NewWallet returns the wallet of a private key.
func NewWallet(key [32]byte) *Wallet { return &Wallet{secp256k1.PrivKeyFromBytes(key[:])} }

// ParseWallet reads a private key of 64 hex digits, with or without 0x.
func ParseWallet(text string) (*Wallet, error) {
	b, err := hex.DecodeString(strings.TrimPrefix(strings.TrimSpace(text), "0x"))
	if err != nil || len(b) != 32 {
		return nil, errors.New("not a private key of 64 hex digits") // which it does not repeat
	}
	return NewWallet([32]byte(b)), nil
}

// RandomWallet makes an account.
func RandomWallet() *Wallet {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails
	return NewWallet(key)
}

// Address is the account with its EIP-55 checksum.
func (w *Wallet) Address() string {
	return tinycloud.ChecksumAddress(siwe.Account(w.key.PubKey()))
}

// DID is the account's did:pkh.
func (w *Wallet) DID() tinycloud.Principal {
	return tinycloud.Principal("did:pkh:eip155:1:" + w.Address())
}

// Space returns the account's Space of a name.
func (w *Wallet) Space(name string) (tinycloud.SpaceID, error) {
	return tinycloud.ParseSpaceID("tinycloud:pkh:eip155:1:" + w.Address() + ":" + name)
}

// PersonalSign is the signature that wallets make by personal_sign.
func (w *Wallet) PersonalSign(text string) []byte {
	digest := siwe.Digest([]byte(text))
	compact := ecdsa.SignCompact(w.key, digest[:], false) // v ‖ r ‖ s
	return append(compact[1:], compact[0])
}

// Delegate signs a grant.
func (w *Wallet) Delegate(g Grant) (Delegation, error) {
	g.Owner = w.DID()
	text, err := g.Text()
	if err != nil {
		return Delegation{}, err
	}
	return Complete(text, w.PersonalSign(text))
}

// Grant is what an owner gives to somebody.
type Grant struct {
	Owner    tinycloud.Principal // did:pkh:eip155:1:…; a [Wallet] sets it
	Audience string              // a session's URI, or the DID of a host or of another wallet
	// Abilities are those on each resource, such as "<Space>/kv": {"tinycloud.kv/get"}.
	Abilities map[string][]string
	Expires   time.Time // zero: never
	Domain    string    // of the app, which wallets show; "" means localhost
}

// HostGrant is what makes a node a host of a Space: did is what the node says of itself, see [Space.HostDID].
func HostGrant(space tinycloud.SpaceID, did string) Grant {
	return Grant{Audience: did, Abilities: map[string][]string{space.String() + "/space": {"tinycloud.space/host"}}}
}

// Text is what the owner signs: an EIP-4361 text, each time another.
func (g Grant) Text() (string, error) {
	chain, account, ok := g.Owner.EIP155()
	if !ok || chain != mainnet {
		return "", fmt.Errorf("owner %q is no Ethereum account: %w", g.Owner, tinycloud.ErrUnsupported)
	}
	var caps []recap.Capability
	for _, resource := range slices.Sorted(maps.Keys(g.Abilities)) {
		for _, ability := range g.Abilities[resource] {
			if !strings.Contains(ability, "/") {
				return "", fmt.Errorf("ability %q: %w", ability, tinycloud.ErrInvalid)
			}
			caps = append(caps, recap.Capability{URI: resource, Ability: ability})
		}
	}
	if len(caps) == 0 {
		return "", fmt.Errorf("a grant of nothing: %w", tinycloud.ErrInvalid)
	}
	statement := recap.Statement(caps)
	m := siwe.Message{
		Domain: cmp.Or(g.Domain, "localhost"), Address: account, Statement: &statement, URI: g.Audience, ChainID: chain,
		Nonce: rand.Text(), IssuedAt: time.Now().UTC().Format(stampFormat), Resources: []string{recap.Encode(caps, nil)},
	}
	if !g.Expires.IsZero() {
		m.Expires = g.Expires.UTC().Format(stampFormat)
	}
	if err := m.Check(); err != nil {
		return "", err
	}
	return string(m.Text()), nil
}

// Delegation is a delegation that was signed.
type Delegation struct {
	Header string         // of Authorization
	ID     tinycloud.Hash // of its bytes
}

// DelegationOf is that of a header that was signed elsewhere.
func DelegationOf(header string) (Delegation, error) {
	if strings.Contains(header, ".") {
		return Delegation{header, tinycloud.Sum([]byte(header))}, nil
	}
	b, err := base64.URLEncoding.DecodeString(header)
	if err != nil {
		return Delegation{}, fmt.Errorf("delegation: %v: %w", err, tinycloud.ErrInvalid)
	}
	return Delegation{header, tinycloud.Sum(b)}, nil
}

// Complete makes the delegation of a text of [Grant.Text] and the owner's personal_sign of it.
func Complete(text string, signature []byte) (Delegation, error) {
	if len(signature) != siwe.SignatureSize {
		return Delegation{}, fmt.Errorf("signature of %d bytes, expected %d: %w", len(signature), siwe.SignatureSize, tinycloud.ErrInvalid)
	}
	m, err := siwe.Parse([]byte(text))
	if err != nil {
		return Delegation{}, err
	}
	sig := [siwe.SignatureSize]byte(signature)
	if sig[64] < 2 { // as some wallets have it
		sig[64] += 27
	}
	b := cacao.Encode(m, sig)
	return Delegation{Header: cacao.Header(b), ID: tinycloud.Sum(b)}, nil
}
