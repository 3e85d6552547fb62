package encryption

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/did"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cbor"
)

// recordKind is what a record says.
type recordKind uint64

// Kinds of record. The first three carry the token by which the owner, or whom he gave the right to, had it done.
const (
	recordCreate recordKind = 1 + iota // a network and the first version of its key
	recordRotate                       // a later version
	recordRevoke                       // the network is over
	recordMember                       // a host holds a key
	recordTaken                        // a node took a key over from elsewhere: without a token, so only its friends believe it
)

// Bounds of a record.
const (
	MaxRecord  = 96 << 10 // bytes
	maxVersion = 1 << 20  // of a key
	recordSize = 13       // fields
)

// record is one statement about a network. It proves itself: whoever has it can check it without asking anybody, but for
// what a member and a taken-over key need besides (docs/encryption.md, "Several hosts").
type record struct {
	kind      recordKind
	network   tinycloud.NetworkID
	version   int64       // of the key; 0 for a revocation
	public    []byte      // likewise; empty
	at        int64       // unix nanoseconds
	node      hostlog.Key // who signs it
	host      hostlog.Key // Space key of a member; zero else
	threshold threshold   // of what makes a network
	token     []byte
	chain     [][]byte // what the token rests on
	sig       hostlog.Signature
	hostSig   hostlog.Signature // of a member by its Space key; zero else
}

// contexts begin what is signed.
const recordContext = "tinycloud/encryption/record/1\x00"

// unsigned is the record without its signatures.
func (r *record) unsigned() []byte {
	b := cbor.AppendHead(nil, cbor.Array, recordSize-2)
	b = cbor.AppendHead(b, cbor.Uint, uint64(r.kind))
	b = cbor.AppendText(b, r.network.String())
	b = cbor.AppendHead(b, cbor.Uint, uint64(r.version))
	b = cbor.AppendBytes(b, r.public)
	b = cbor.AppendHead(b, cbor.Uint, uint64(r.at))
	b = cbor.AppendBytes(b, r.node[:])
	b = cbor.AppendBytes(b, r.host[:])
	b = cbor.AppendHead(b, cbor.Uint, uint64(uint32(r.threshold.N)))
	b = cbor.AppendHead(b, cbor.Uint, uint64(uint32(r.threshold.T)))
	b = cbor.AppendBytes(b, r.token)
	b = cbor.AppendHead(b, cbor.Array, uint64(len(r.chain)))
	for _, t := range r.chain {
		b = cbor.AppendBytes(b, t)
	}
	return b
}

// encode is the record's one spelling.
func (r *record) encode() []byte {
	b := cbor.AppendHead(nil, cbor.Array, 3)
	b = cbor.AppendBytes(b, r.unsigned())
	b = cbor.AppendBytes(b, r.sig[:])
	return cbor.AppendBytes(b, r.hostSig[:])
}

// id is the same however it is signed.
func (r *record) id() tinycloud.Hash { return tinycloud.Sum(r.unsigned()) }

func (r *record) signed() []byte { return append([]byte(recordContext), r.unsigned()...) }

// decodeRecord reads a record in its one spelling, and checks its form. The error is of class [tinycloud.ErrInvalid].
func decodeRecord(b []byte) (*record, error) {
	if len(b) > MaxRecord {
		return nil, fmt.Errorf("record of %d bytes: %w", len(b), tinycloud.ErrInvalid)
	}
	outer := dag.NewReader(b)
	if outer.Count(cbor.Array, 3) != 3 {
		outer.Fail("record")
	}
	inner := outer.Bytes()
	r := &record{sig: hostlog.Signature(fixed(outer, len(hostlog.Signature{}))), hostSig: hostlog.Signature(fixed(outer, len(hostlog.Signature{})))}
	if err := outer.End(); err != nil {
		return nil, err
	}
	if err := r.read(dag.NewReader(inner)); err != nil {
		return nil, err
	}
	if err := r.form(); err != nil {
		return nil, fmt.Errorf("record: %v: %w", err, tinycloud.ErrInvalid)
	}
	return r, nil
}

func (r *record) read(in *dag.Reader) error {
	if in.Count(cbor.Array, recordSize-2) != recordSize-2 {
		in.Fail("record")
	}
	r.kind = recordKind(in.Head(cbor.Uint))
	text := in.Text()
	r.version = int64(min(in.Head(cbor.Uint), maxVersion+1))
	r.public = bytes.Clone(in.Bytes())
	at := in.Head(cbor.Uint)
	r.node, r.host = hostlog.Key(fixed(in, len(hostlog.Key{}))), hostlog.Key(fixed(in, len(hostlog.Key{})))
	n, t := in.Head(cbor.Uint), in.Head(cbor.Uint)
	r.token = bytes.Clone(in.Bytes())
	for range in.Count(cbor.Array, hostlog.MaxChain) {
		r.chain = append(r.chain, bytes.Clone(in.Bytes()))
	}
	if n > 1<<32-1 || t > 1<<32-1 || at > 1<<62 {
		in.Fail("number out of range")
	}
	r.at, r.threshold = int64(at), threshold{int64(int32(uint32(n))), int64(int32(uint32(t)))}
	if err := in.End(); err != nil {
		return err
	}
	id, err := tinycloud.ParseNetworkID(text)
	if err != nil || id.String() != text {
		return fmt.Errorf("record of network %.100q: %w", text, tinycloud.ErrInvalid)
	}
	r.network = id
	return nil
}

// fixed reads a byte string of a length; on failure it returns that many zeros.
func fixed(in *dag.Reader, n int) []byte {
	b := in.Bytes()
	if len(b) != n {
		in.Fail("byte string of another length")
		return make([]byte, n)
	}
	return b
}

// form checks which fields there are.
func (r *record) form() error {
	key := r.kind != recordRevoke
	asked := r.kind <= recordRevoke
	makes := r.kind == recordCreate || r.kind == recordTaken
	switch {
	case r.kind < recordCreate || r.kind > recordTaken:
		return fmt.Errorf("unknown kind %d", r.kind)
	case key != (len(r.public) == keySize) || !key && len(r.public) != 0:
		return fmt.Errorf("public key of %d bytes", len(r.public))
	case key != (r.version > 0) || r.version > maxVersion,
		r.kind == recordCreate && r.version != 1, r.kind == recordRotate && r.version < 2:
		return fmt.Errorf("version %d", r.version)
	case asked != (len(r.token) > 0) || !asked && len(r.chain) > 0:
		return fmt.Errorf("token of %d bytes", len(r.token))
	case (r.kind == recordMember) != (r.host != hostlog.Key{}), (r.kind == recordMember) != (r.hostSig != hostlog.Signature{}):
		return fmt.Errorf("a Space key of who is no member, or none of who is")
	case !makes && r.threshold != threshold{}:
		return fmt.Errorf("threshold")
	}
	return nil
}

// makesKey reports whether the record says that there is a key.
func (r *record) makesKey() bool {
	return r.kind == recordCreate || r.kind == recordRotate || r.kind == recordTaken
}

// sign signs as the node, and as the Space key of a member.
func (r *record) sign(node, host ed25519.PrivateKey) {
	r.sig = hostlog.Signature(ed25519.Sign(node, r.signed()))
	if host != nil {
		r.hostSig = hostlog.Signature(ed25519.Sign(host, r.signed()))
	}
}

// time is when the record says that it was made.
func (r *record) time() time.Time { return time.Unix(0, r.at).UTC() }

// nodeDID is the node's name towards clients.
func nodeDID(k hostlog.Key) string { return did.EncodeEd25519(k[:]) }
