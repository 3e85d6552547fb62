package captest

import (
	"crypto/rand"
	"encoding/base64"
	"strings"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cacao"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/recap"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/siwe"
)

// Caps are abilities by resource.
type Caps map[string][]string

// list returns the capabilities in no particular order, written as given even if they are no
// resources.
func (c Caps) list() []recap.Capability {
	var out []recap.Capability
	for uri, abilities := range c {
		for _, a := range abilities {
			out = append(out, recap.Capability{URI: uri, Ability: a})
		}
	}
	return out
}

// Wallet is an Ethereum account on chain 1.
type Wallet struct{ key *secp256k1.PrivateKey }

// NewWallet returns the wallet of a seed.
func NewWallet(seed string) *Wallet {
	return WalletOf(tinycloud.Sum([]byte("wallet " + seed)))
}

// RandomWallet returns a new wallet.
func RandomWallet() *Wallet { return WalletOf(random32()) }

// WalletOf returns the wallet of a private key.
func WalletOf(key [32]byte) *Wallet { return &Wallet{secp256k1.PrivKeyFromBytes(key[:])} }

func random32() (b [32]byte) {
	rand.Read(b[:]) // never fails
	return b
}

// Account returns the account's address.
func (w *Wallet) Account() [20]byte { return siwe.Account(w.key.PubKey()) }

// Address returns the account's address with its checksum.
func (w *Wallet) Address() string { return tinycloud.ChecksumAddress(w.Account()) }

// DID returns the account's did:pkh.
func (w *Wallet) DID() tinycloud.Principal {
	return tinycloud.Principal("did:pkh:eip155:1:" + w.Address())
}

// Space returns the wallet's Space of a name. It panics on a name that cannot stand in a Space id.
func (w *Wallet) Space(name string) tinycloud.SpaceID {
	id, err := tinycloud.ParseSpaceID("tinycloud:" + strings.TrimPrefix(string(w.DID()), "did:") + ":" + name)
	if err != nil {
		panic("captest: " + err.Error())
	}
	return id
}

// DelegationOptions say what a wallet signs. Zero values take what is said beside them.
type DelegationOptions struct {
	Audience  string // the delegatee: a session's URI, a wallet's or a host's DID
	Caps      Caps
	Proofs    []tinycloud.Hash
	NotBefore time.Time // none
	Expires   time.Time // none: valid for ever
	IssuedAt  time.Time // now
	Nonce     string    // random
	Statement string    // only what tells of the capabilities, if there are any
	Domain    string    // example.com
}

// SignDelegation returns the Authorization header of a delegation.
func (w *Wallet) SignDelegation(o DelegationOptions) string { return w.Sign(o.message(w.Account())) }

// SignHost returns the header of the delegation by which the owner hosts a Space at a host.
func (w *Wallet) SignHost(space tinycloud.SpaceID, hostDID string) string {
	return w.SignDelegation(HostOptions(space, hostDID))
}

// HostOptions returns what [Wallet.SignHost] signs, for a caller that wants other times.
func HostOptions(space tinycloud.SpaceID, hostDID string) DelegationOptions {
	return DelegationOptions{
		Audience: hostDID,
		Caps:     Caps{space.String() + "/space": {"tinycloud.space/host"}},
	}
}

// SignRevocation returns the header that revokes a delegation.
func (w *Wallet) SignRevocation(target tinycloud.Hash) string {
	return w.SignDelegation(DelegationOptions{Audience: "ucan:" + target.EventID()})
}

// Sign returns the header of any message, signed as it is.
func (w *Wallet) Sign(m *siwe.Message) string {
	return cacao.Header(cacao.Encode(m, w.signText(m.Text())))
}

// SignText returns the wallet's personal_sign of a text: r ‖ s ‖ v with v 27 or 28.
func (w *Wallet) SignText(text []byte) []byte {
	sig := w.signText(text)
	return sig[:]
}

func (w *Wallet) signText(text []byte) (sig [siwe.SignatureSize]byte) {
	digest := siwe.Digest(text)
	compact := ecdsa.SignCompact(w.key, digest[:], false) // v ‖ r ‖ s
	copy(sig[:], compact[1:])
	sig[64] = compact[0]
	return sig
}

const stampFormat = "2006-01-02T15:04:05.000Z"

func (o DelegationOptions) message(account [20]byte) *siwe.Message {
	m := &siwe.Message{
		Domain:   or(o.Domain, "example.com"),
		Address:  account,
		URI:      o.Audience,
		ChainID:  1,
		Nonce:    or(o.Nonce, randomNonce()),
		IssuedAt: o.IssuedAt.UTC().Format(stampFormat),
	}
	if o.IssuedAt.IsZero() {
		m.IssuedAt = time.Now().UTC().Format(stampFormat)
	}
	if !o.NotBefore.IsZero() {
		m.NotBefore = o.NotBefore.UTC().Format(stampFormat)
	}
	if !o.Expires.IsZero() {
		m.Expires = o.Expires.UTC().Format(stampFormat)
	}
	statement := o.Statement
	if caps := o.Caps.list(); len(caps) > 0 {
		statement = strings.TrimPrefix(statement+" "+recap.Statement(caps), " ")
		m.Resources = []string{recap.Encode(caps, o.Proofs)}
	}
	if statement != "" {
		m.Statement = &statement
	}
	return m
}

func or(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}

func randomNonce() string {
	b := random32()
	return base64.RawURLEncoding.EncodeToString(b[:12])
}
