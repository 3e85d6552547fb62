package client

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
)

// tokenLife is how long a token may be used; hosts take 300 s at most.
const tokenLife = time.Minute

// Session is a key of an app, with the delegation by which a wallet lets it act. It marshals to JSON, which holds the key:
// keep it as a secret.
type Session struct {
	key ed25519.PrivateKey
	// Delegation is what the session rests on; the zero value is none yet.
	Delegation Delegation
}

// NewSession makes a key.
func NewSession() *Session {
	_, key, _ := ed25519.GenerateKey(rand.Reader) // never fails
	return &Session{key: key}
}

// SessionOf returns the session of an Ed25519 seed.
func SessionOf(seed [32]byte) *Session { return &Session{key: ed25519.NewKeyFromSeed(seed[:])} }

// DID is the key's did:key.
func (s *Session) DID() tinycloud.Principal {
	return tinycloud.Principal(hostkeys.DIDKey(s.key.Public().(ed25519.PublicKey)))
}

// URI is the DID URL of the key, the audience of its delegation.
func (s *Session) URI() string {
	did := string(s.DID())
	return did + "#" + strings.TrimPrefix(did, "did:key:")
}

// Token signs an invocation of one ability on one resource, for one request.
func (s *Session) Token(resource, ability string) string {
	return s.invocation(map[string][]string{resource: {ability}})
}

// invocation is Token of several resources.
func (s *Session) invocation(abilities map[string][]string) string {
	return s.sign(string(s.DID()), abilities, time.Now().Add(tokenLife))
}

// Delegate gives abilities of the session to another DID: who has them rests on what the session has.
func (s *Session) Delegate(audience tinycloud.Principal, abilities map[string][]string, expires time.Time) Delegation {
	header := s.sign(string(audience), abilities, expires)
	return Delegation{Header: header, ID: tinycloud.Sum([]byte(header))}
}

func (s *Session) sign(audience string, abilities map[string][]string, expires time.Time) string {
	att := map[string]map[string][]struct{}{}
	for resource, all := range abilities {
		att[resource] = map[string][]struct{}{}
		for _, a := range all {
			att[resource][a] = []struct{}{{}}
		}
	}
	proofs := []string{}
	if !s.Delegation.ID.IsZero() {
		proofs = append(proofs, s.Delegation.ID.EventID())
	}
	signed := part(map[string]any{"alg": "EdDSA", "typ": "JWT", "ucv": "0.10.0"}) + "." + part(map[string]any{
		"iss": s.URI(), "aud": audience, "exp": expires.Unix(), "nnc": rand.Text(), "prf": proofs, "att": att,
	})
	return signed + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(s.key, []byte(signed)))
}

func part(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("client: " + err.Error()) // texts and numbers always encode
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// stored is a session in JSON.
type stored struct {
	Seed       []byte `json:"seed"`
	Delegation string `json:"delegation"`
	ID         []byte `json:"id"`
}

// MarshalJSON holds the key.
func (s *Session) MarshalJSON() ([]byte, error) {
	return json.Marshal(stored{s.key.Seed(), s.Delegation.Header, s.Delegation.ID[:]})
}

// UnmarshalJSON reads what MarshalJSON made.
func (s *Session) UnmarshalJSON(b []byte) error {
	var x stored
	if err := json.Unmarshal(b, &x); err != nil {
		return err
	}
	if len(x.Seed) != ed25519.SeedSize || len(x.ID) != len(tinycloud.Hash{}) {
		return fmt.Errorf("session: a seed of %d bytes and an id of %d: %w", len(x.Seed), len(x.ID), tinycloud.ErrInvalid)
	}
	s.key, s.Delegation = ed25519.NewKeyFromSeed(x.Seed), Delegation{x.Delegation, tinycloud.Hash(x.ID)}
	return nil
}
