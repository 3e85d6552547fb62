package replication

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/protocol"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// The frames of the handshake. In version 2 they are maps, to which newer releases may add fields; each side also tells
// what its release is about.

// nonceMessage and proofMessage are those of version 1.
type nonceMessage struct {
	_     struct{} `cbor:",toarray"`
	Nonce [32]byte
}

type proofMessage struct {
	_     struct{} `cbor:",toarray"`
	Nonce [32]byte
	Tag   [32]byte
	Chain [][]byte // this host's delegation and its proofs
}

// nonceFields and proofFields are those of version 2.
type nonceFields struct {
	Nonce [32]byte `cbor:"nonce"`
}

type proofFields struct {
	Nonce [32]byte `cbor:"nonce"`
	Tag   [32]byte `cbor:"tag"`
	Chain [][]byte `cbor:"chain"`
	Told  []byte   `cbor:"told"` // encoded toldFields; in bytes, so that the tag covers fields that are not known here too
}

// toldFields is what a side tells of its release.
type toldFields struct {
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

// encodeTold encodes what a host tells.
func encodeTold(h hostlog.Hello) ([]byte, error) {
	t := toldFields{Rules: h.Rules}
	for _, s := range h.Services {
		t.Services = append(t.Services, toldService{Name: s.Name, Version: s.Version})
	}
	return wire.encode(t)
}

// decodeTold decodes what a host told. A host that tells of itself has rules.
func decodeTold(b []byte) (h hostlog.Hello, err error) {
	if len(b) > maxTold {
		return h, fmt.Errorf("%d bytes about a release: %w", len(b), tinycloud.ErrInvalid)
	}
	var t toldFields
	if err := wire.decode(b, &t); err != nil {
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

// proof is what a side shows in the handshake, in either version.
type proof struct {
	nonce, tag [32]byte
	chain      [][]byte
	told       []byte // nil in version 1
}

// greeting is the stream of a handshake.
type greeting struct {
	*helloStream
	version protocol.ID
}

// tells reports whether its sides tell of themselves.
func (g *greeting) tells() bool { return g.version != FirstHello }

func (g *greeting) sendNonce(n [32]byte) error {
	if !g.tells() {
		return g.send(nonceMessage{Nonce: n})
	}
	return g.send(nonceFields{Nonce: n})
}

func (g *greeting) receiveNonce() ([32]byte, error) {
	if !g.tells() {
		var m nonceMessage
		err := g.receive(&m)
		return m.Nonce, err
	}
	var m nonceFields
	err := g.receive(&m)
	return m.Nonce, err
}

func (g *greeting) sendProof(p *proof) error {
	if !g.tells() {
		return g.send(proofMessage{Nonce: p.nonce, Tag: p.tag, Chain: p.chain})
	}
	return g.send(proofFields{Nonce: p.nonce, Tag: p.tag, Chain: p.chain, Told: p.told})
}

func (g *greeting) receiveProof() (*proof, error) {
	if !g.tells() {
		var m proofMessage
		err := g.receive(&m)
		return &proof{nonce: m.Nonce, tag: m.Tag, chain: m.Chain}, err
	}
	var m proofFields
	err := g.receive(&m)
	return &proof{nonce: m.Nonce, tag: m.Tag, chain: m.Chain, told: m.Told}, err
}
