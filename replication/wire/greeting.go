package wire

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/protocol"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// The frames of the handshake. In version 2 they are maps, to which newer releases may add fields; each side also tells
// what its release is about.

// Nonce and Proof are those of version 1.
type Nonce struct {
	_     struct{} `cbor:",toarray"`
	Nonce [32]byte
}

// Proof shows that a side is a host, in version 1.
type Proof struct {
	_     struct{} `cbor:",toarray"`
	Nonce [32]byte
	Tag   [32]byte
	Chain [][]byte // this host's delegation and its proofs
}

// NonceFields and ProofFields are those of version 2.
type NonceFields struct {
	Nonce [32]byte `cbor:"nonce"`
}

// ProofFields is the same in version 2.
type ProofFields struct {
	Nonce [32]byte `cbor:"nonce"`
	Tag   [32]byte `cbor:"tag"`
	Chain [][]byte `cbor:"chain"`
	Told  []byte   `cbor:"told"` // encoded Told; in bytes, so that the tag covers fields that are not known here too
}

// Told is what a side tells of its release.
type Told struct {
	Rules    uint64        `cbor:"rules"`
	Services []toldService `cbor:"services"`
}

type toldService struct {
	_       struct{} `cbor:",toarray"`
	Name    string
	Version uint64
}

// maxTold bounds what is told, in bytes.
const maxTold = 4 << 10

// EncodeTold encodes what a host tells.
func EncodeTold(h hostlog.Hello) ([]byte, error) {
	t := Told{Rules: h.Rules}
	for _, s := range h.Services {
		t.Services = append(t.Services, toldService{Name: s.Name, Version: s.Version})
	}
	return Encode(t)
}

// DecodeTold decodes what a host told. A host that tells of itself has rules.
func DecodeTold(b []byte) (h hostlog.Hello, err error) {
	if len(b) > maxTold {
		return h, fmt.Errorf("%d bytes about a release: %w", len(b), tinycloud.ErrInvalid)
	}
	var t Told
	if err := Decode(b, &t); err != nil {
		return h, err
	}
	if t.Rules == 0 {
		return h, fmt.Errorf("release without rules: %w", tinycloud.ErrInvalid)
	}
	h.Rules = t.Rules
	for _, s := range t.Services {
		h.Services = append(h.Services, hostlog.Service{Name: s.Name, Version: s.Version})
	}
	return h, h.Check()
}

// OwnProof is what a side shows in the handshake, in either version.
type OwnProof struct {
	Nonce, Tag [32]byte
	Chain      [][]byte
	Told       []byte // nil in version 1
}

// Greeting is the stream of a handshake.
type Greeting struct {
	*Exchange
	Version protocol.ID
}

// Tells reports whether its sides tell of themselves.
func (g *Greeting) Tells() bool { return g.Version != FirstHello }

// SendNonce sends the nonce of the one that was dialed.
func (g *Greeting) SendNonce(n [32]byte) error {
	if !g.Tells() {
		return g.Send(Nonce{Nonce: n})
	}
	return g.Send(NonceFields{Nonce: n})
}

// ReceiveNonce reads that.
func (g *Greeting) ReceiveNonce() ([32]byte, error) {
	if !g.Tells() {
		var m Nonce
		err := g.Receive(&m)
		return m.Nonce, err
	}
	var m NonceFields
	err := g.Receive(&m)
	return m.Nonce, err
}

// SendProof sends what a side shows.
func (g *Greeting) SendProof(p *OwnProof) error {
	if !g.Tells() {
		return g.Send(Proof{Nonce: p.Nonce, Tag: p.Tag, Chain: p.Chain})
	}
	return g.Send(ProofFields{Nonce: p.Nonce, Tag: p.Tag, Chain: p.Chain, Told: p.Told})
}

// ReceiveProof reads that.
func (g *Greeting) ReceiveProof() (*OwnProof, error) {
	if !g.Tells() {
		var m Proof
		err := g.Receive(&m)
		return &OwnProof{Nonce: m.Nonce, Tag: m.Tag, Chain: m.Chain}, err
	}
	var m ProofFields
	err := g.Receive(&m)
	return &OwnProof{Nonce: m.Nonce, Tag: m.Tag, Chain: m.Chain, Told: m.Told}, err
}
