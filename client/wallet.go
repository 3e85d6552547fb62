package client

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"github.com/fxamacker/cbor/v2"
	"golang.org/x/crypto/sha3"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

const (
	signatureSize = 65 // r ‖ s ‖ v
	stampFormat   = "2006-01-02T15:04:05.000Z"
	recapPrefix   = "urn:recap:"
	sentence      = "I further authorize the stated URI to perform the following actions on my behalf:"
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

func keccak(parts ...[]byte) []byte {
	h := sha3.NewLegacyKeccak256()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// Address is the account with its EIP-55 checksum.
func (w *Wallet) Address() string {
	return tinycloud.ChecksumAddress([20]byte(keccak(w.key.PubKey().SerializeUncompressed()[1:])[12:]))
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
	digest := keccak(fmt.Appendf(nil, "\x19Ethereum Signed Message:\n%d", len(text)), []byte(text))
	compact := ecdsa.SignCompact(w.key, digest, false) // v ‖ r ‖ s
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
	address, ok := strings.CutPrefix(string(g.Owner), "did:pkh:eip155:1:")
	if !ok {
		return "", fmt.Errorf("owner %q is no Ethereum account: %w", g.Owner, tinycloud.ErrUnsupported)
	}
	if len(g.Abilities) == 0 {
		return "", fmt.Errorf("a grant of nothing: %w", tinycloud.ErrInvalid)
	}
	recap, said, err := g.recap()
	if err != nil {
		return "", err
	}
	domain := g.Domain
	if domain == "" {
		domain = "localhost"
	}
	lines := []string{
		domain + " wants you to sign in with your Ethereum account:", address, "", said, "",
		"URI: " + g.Audience, "Version: 1", "Chain ID: 1", "Nonce: " + rand.Text(), "Issued At: " + time.Now().UTC().Format(stampFormat),
	}
	if !g.Expires.IsZero() {
		lines = append(lines, "Expiration Time: "+g.Expires.UTC().Format(stampFormat))
	}
	return strings.Join(append(lines, "Resources:", "- "+recap), "\n"), nil
}

// recap is the grant for programs, and the sentence that says the same (docs/protocol.md, "ReCap").
func (g Grant) recap() (urn, said string, err error) {
	att, n := map[string]map[string][]struct{}{}, 0
	said = sentence
	for _, resource := range slices.Sorted(maps.Keys(g.Abilities)) {
		att[resource] = map[string][]struct{}{}
		names, spaces := map[string][]string{}, []string{}
		for _, ability := range slices.Sorted(slices.Values(g.Abilities[resource])) {
			namespace, name, ok := strings.Cut(ability, "/")
			if !ok {
				return "", "", fmt.Errorf("ability %q: %w", ability, tinycloud.ErrInvalid)
			}
			att[resource][ability] = []struct{}{{}}
			if names[namespace] == nil {
				spaces = append(spaces, namespace)
			}
			names[namespace] = append(names[namespace], "'"+name+"'")
		}
		for _, namespace := range spaces {
			n++
			said += fmt.Sprintf(" (%d) '%s': %s for '%s'.", n, namespace, strings.Join(names[namespace], ", "), resource)
		}
	}
	b, err := json.Marshal(map[string]any{"att": att, "prf": []string{}})
	return recapPrefix + base64.RawURLEncoding.EncodeToString(b), said, err
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

var canonical = func() cbor.EncMode {
	mode, err := cbor.EncOptions{Sort: cbor.SortLengthFirst}.EncMode()
	if err != nil {
		panic(err) // the options are fixed
	}
	return mode
}()

// Complete makes the delegation of a text of [Grant.Text] and the owner's personal_sign of it.
func Complete(text string, signature []byte) (Delegation, error) {
	if len(signature) != signatureSize {
		return Delegation{}, fmt.Errorf("signature of %d bytes, expected %d: %w", len(signature), signatureSize, tinycloud.ErrInvalid)
	}
	p, err := fields(text)
	if err != nil {
		return Delegation{}, err
	}
	signature = slices.Clone(signature)
	if signature[64] < 2 { // as some wallets have it
		signature[64] += 27
	}
	b, err := canonical.Marshal(map[string]any{
		"h": map[string]string{"t": "eip4361"}, "p": p, "s": map[string]any{"t": "eip191", "s": signature},
	})
	return Delegation{Header: base64.URLEncoding.EncodeToString(b), ID: tinycloud.Sum(b)}, err
}

// fields reads a text as [Grant.Text] makes it.
func fields(text string) (map[string]any, error) {
	lines := strings.Split(text, "\n")
	bad := fmt.Errorf("not the text of a grant: %w", tinycloud.ErrInvalid)
	if len(lines) < 11 || lines[2] != "" || lines[4] != "" {
		return nil, bad
	}
	domain, ok := strings.CutSuffix(lines[0], " wants you to sign in with your Ethereum account:")
	if !ok {
		return nil, bad
	}
	p := map[string]any{"domain": domain, "iss": "did:pkh:eip155:1:" + lines[1], "statement": lines[3], "version": 1}
	resources := []string{}
	for _, line := range lines[5:] {
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "URI":
			p["aud"] = value
		case "Nonce":
			p["nonce"] = value
		case "Issued At":
			p["iat"] = value
		case "Expiration Time":
			p["exp"] = value
		case "Version", "Chain ID", "Resources:":
		default:
			resource, ok := strings.CutPrefix(line, "- ")
			if !ok {
				return nil, bad
			}
			resources = append(resources, resource)
		}
	}
	p["resources"] = resources
	return p, nil
}
