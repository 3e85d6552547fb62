package cacao

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/siwe"
)

// The two types a CACAO may have here.
const (
	headerType    = "eip4361"
	signatureType = "eip191"
)

type wireToken struct {
	Header    wireHeader    `cbor:"h"`
	Payload   wirePayload   `cbor:"p"`
	Signature wireSignature `cbor:"s"`
}

type wireHeader struct {
	Type string `cbor:"t"`
}

type wirePayload struct {
	Issuer    string   `cbor:"iss"`
	Audience  string   `cbor:"aud"`
	Domain    string   `cbor:"domain"`
	Scheme    *string  `cbor:"scheme,omitempty"`
	Version   uint64   `cbor:"version"`
	Nonce     string   `cbor:"nonce"`
	IssuedAt  string   `cbor:"iat"`
	Expires   *string  `cbor:"exp,omitempty"`
	NotBefore *string  `cbor:"nbf,omitempty"`
	Statement *string  `cbor:"statement,omitempty"`
	RequestID *string  `cbor:"request_id,omitempty"`
	Resources []string `cbor:"resources,omitempty"`
}

type wireSignature struct {
	Bytes []byte `cbor:"s"`
	Type  string `cbor:"t"`
}

// encoding sorts map keys by length, then bytes, as DAG-CBOR does.
var encoding = must(cbor.EncOptions{
	Sort:        cbor.SortLengthFirst,
	IndefLength: cbor.IndefLengthForbidden,
	TagsMd:      cbor.TagsForbidden,
}.EncMode())

var decoding = must(cbor.DecOptions{
	DupMapKey:         cbor.DupMapKeyEnforcedAPF,
	IndefLength:       cbor.IndefLengthForbidden,
	TagsMd:            cbor.TagsForbidden,
	ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	MaxNestedLevels:   4,
	MaxArrayElements:  siwe.MaxResources,
	MaxMapPairs:       16,
}.DecMode())

func must[M any](mode M, err error) M {
	if err != nil {
		panic("cacao: CBOR options: " + err.Error()) // constants above, so only ever at start
	}
	return mode
}

func toWire(m *siwe.Message, sig [siwe.SignatureSize]byte) wireToken {
	return wireToken{
		Header:    wireHeader{headerType},
		Signature: wireSignature{sig[:], signatureType},
		Payload: wirePayload{
			Issuer:    string(m.Principal()),
			Audience:  m.URI,
			Domain:    m.Domain,
			Scheme:    optional(m.Scheme),
			Version:   1,
			Nonce:     m.Nonce,
			IssuedAt:  m.IssuedAt,
			Expires:   optional(m.Expires),
			NotBefore: optional(m.NotBefore),
			Statement: m.Statement,
			RequestID: m.RequestID,
			Resources: m.Resources,
		},
	}
}

// message takes over what [siwe.Message] can hold; the comparison with the canonical bytes finds what
// it cannot, such as a lower-case address or an empty scheme.
func (p *wirePayload) message() (*siwe.Message, error) {
	issuer, err := tinycloud.ParsePrincipal(p.Issuer)
	if err != nil {
		return nil, err
	}
	chain, account, ok := issuer.EIP155()
	if !ok || p.Version != 1 {
		return nil, fmt.Errorf("issuer %q or version %d: %w", issuer, p.Version, tinycloud.ErrInvalid)
	}
	m := &siwe.Message{
		Scheme:    text(p.Scheme),
		Domain:    p.Domain,
		Address:   account,
		Statement: p.Statement,
		URI:       p.Audience,
		ChainID:   chain,
		Nonce:     p.Nonce,
		IssuedAt:  p.IssuedAt,
		Expires:   text(p.Expires),
		NotBefore: text(p.NotBefore),
		RequestID: p.RequestID,
		Resources: p.Resources,
	}
	return m, m.Check()
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
