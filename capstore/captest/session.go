package captest

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/did"
)

// SessionKey is an Ed25519 key that a wallet delegates to.
type SessionKey struct{ key ed25519.PrivateKey }

// NewSession returns the session key of a seed.
func NewSession(seed string) *SessionKey {
	return SessionOf(tinycloud.Sum([]byte("session " + seed)))
}

// RandomSession returns a new session key.
func RandomSession() *SessionKey { return SessionOf(random32()) }

// SessionOf returns the session key of an Ed25519 seed.
func SessionOf(seed [32]byte) *SessionKey { return &SessionKey{ed25519.NewKeyFromSeed(seed[:])} }

// Public returns the public key.
func (s *SessionKey) Public() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

// DID returns the key's did:key.
func (s *SessionKey) DID() tinycloud.Principal {
	return tinycloud.Principal(did.EncodeEd25519(s.Public()))
}

// URI returns the DID URL that names the key, did:key:X#X: the audience of a session's delegation.
func (s *SessionKey) URI() string {
	d := string(s.DID())
	return d + "#" + strings.TrimPrefix(d, "did:key:")
}

// TokenOptions say what a session key signs. Zero values take what is said beside them.
type TokenOptions struct {
	Caps      Caps
	Caveats   string // the list of caveats of every ability, as JSON: [{}]
	Att       string // the att object as JSON, in place of Caps and Caveats
	Proofs    []tinycloud.Hash
	Expires   time.Time // 60 seconds from now
	NotBefore time.Time // none
	Nonce     string    // urn:uuid: and a random version 4
	NoNonce   bool
	Facts     []json.RawMessage
	Algorithm string // EdDSA; another name is written, the signature stays Ed25519
	Audience  string // the key's own DID
	Issuer    string // the key's DID URL
}

// Invoke returns the Authorization header of an invocation.
func (s *SessionKey) Invoke(o TokenOptions) string {
	signed := encode64(s.header(o)) + "." + encode64(s.payload(o))
	return signed + "." + encode64(string(ed25519.Sign(s.key, []byte(signed))))
}

// Delegate returns the header of a delegation to another DID.
func (s *SessionKey) Delegate(audience tinycloud.Principal, o TokenOptions) string {
	o.Audience = string(audience)
	return s.Invoke(o)
}

// Revoke returns the header that revokes a delegation; proofs name the delegation that allows it, if
// the key itself is no party to the target.
func (s *SessionKey) Revoke(target tinycloud.Hash, o TokenOptions) string {
	o.Caps = Caps{"urn:cid:" + target.EventID(): {"tinycloud.delegation/revoke"}}
	return s.Invoke(o)
}

func encode64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func (s *SessionKey) header(o TokenOptions) string {
	x := base64.RawURLEncoding.EncodeToString(s.Public())
	return `{"alg":` + quote(or(o.Algorithm, did.EdDSA)) + `,"jwk":{"alg":"EdDSA","kty":"OKP","crv":"Ed25519","x":"` +
		x + `"},"typ":"JWT","ucv":"0.10.0"}`
}

func (s *SessionKey) payload(o TokenOptions) string {
	if o.Expires.IsZero() {
		o.Expires = time.Now().Add(time.Minute)
	}
	var b strings.Builder
	b.WriteString(`{"iss":` + quote(or(o.Issuer, s.URI())))
	b.WriteString(`,"aud":` + quote(or(o.Audience, string(s.DID()))))
	if !o.NotBefore.IsZero() {
		b.WriteString(`,"nbf":` + seconds(o.NotBefore))
	}
	b.WriteString(`,"exp":` + seconds(o.Expires))
	if !o.NoNonce {
		b.WriteString(`,"nnc":` + quote(or(o.Nonce, randomUUID())))
	}
	if o.Facts != nil {
		facts := make([]string, len(o.Facts))
		for i, f := range o.Facts {
			facts[i] = string(f)
		}
		b.WriteString(`,"fct":[` + strings.Join(facts, ",") + `]`)
	}
	proofs := make([]string, len(o.Proofs))
	for i, p := range o.Proofs {
		proofs[i] = quote(p.EventID())
	}
	b.WriteString(`,"prf":[` + strings.Join(proofs, ",") + `],"att":` + o.att() + `}`)
	return b.String()
}

func (o TokenOptions) att() string {
	if o.Att != "" {
		return o.Att
	}
	caveats := or(o.Caveats, "[{}]")
	var resources []string
	for _, uri := range slices.Sorted(maps.Keys(o.Caps)) {
		var abilities []string
		for _, a := range slices.Sorted(slices.Values(o.Caps[uri])) {
			abilities = append(abilities, quote(a)+":"+caveats)
		}
		resources = append(resources, quote(uri)+":{"+strings.Join(abilities, ",")+"}")
	}
	return "{" + strings.Join(resources, ",") + "}"
}

// seconds prints an instant as the SDK does: a number with a fraction only if there is one.
func seconds(t time.Time) string {
	if t.Nanosecond() == 0 {
		return strconv.FormatInt(t.Unix(), 10)
	}
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', -1, 64)
}

func quote(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic("captest: " + err.Error()) // a string always encodes
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func randomUUID() string {
	b := random32()
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:16])
	return "urn:uuid:" + strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// ID returns the id of the event that a header carries. It panics on what is no token.
func ID(header string) tinycloud.Hash {
	if strings.Contains(header, ".") {
		return tinycloud.Sum([]byte(header))
	}
	b, err := base64.URLEncoding.DecodeString(header)
	if err != nil {
		panic("captest: " + err.Error())
	}
	return tinycloud.Sum(b)
}
