// Package wiretest writes and reads what goes between hosts, for tests of those who do.
package wiretest

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/libp2p/go-libp2p/core/network"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

// Frame puts a length before a message.
func Frame(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }

// HelloNonce is the frame with which a responder begins.
func HelloNonce(n [32]byte) []byte { return Frame(Encoded(wire.Nonce{Nonce: n})) }

// HelloProof is the frame with which a side proves itself.
func HelloProof(nonce, tag [32]byte, chain [][]byte) []byte {
	return Frame(Encoded(wire.Proof{Nonce: nonce, Tag: tag, Chain: chain}))
}

// Proof is the same in the version of a handshake; the second one tells something encoded.
func Proof(n wire.Nonces, tag [32]byte, chain [][]byte, told []byte) []byte {
	if n.Version == wire.HelloProtocol {
		return Frame(Encoded(wire.ProofFields{Nonce: n.Dialer, Tag: tag, Chain: chain, Told: told}))
	}
	return HelloProof(n.Dialer, tag, chain)
}

// Told is what a host tells of its release.
func Told(h hostlog.Hello) []byte {
	b, err := wire.EncodeTold(h)
	if err != nil {
		panic(err)
	}
	return b
}

// FieldsNonce is the first frame of the second version.
func FieldsNonce(n [32]byte) []byte { return Frame(Encoded(wire.NonceFields{Nonce: n})) }

// TryGreeting decodes a frame of the second version of the handshake, and returns the known part encoded again, nil
// when it is none.
func TryGreeting(b []byte) (again []byte, err error) {
	var p wire.ProofFields
	if err = wire.Decode(b, &p); err == nil {
		return Encoded(p), nil
	}
	var n wire.NonceFields // every proof is one, too
	if err = wire.Decode(b, &n); err == nil {
		return Encoded(n), nil
	}
	return nil, err
}

// NonceOf reads the nonce of a responder's first frame.
func NonceOf(frame []byte) (n [32]byte, err error) {
	_, k := binary.Uvarint(frame)
	var m wire.Nonce
	if err = wire.Decode(frame[k:], &m); err != nil {
		var m wire.NonceFields
		err = wire.Decode(frame[k:], &m)
		return m.Nonce, err
	}
	return m.Nonce, nil
}

// Encoded is a message in its one spelling.
func Encoded(v any) []byte {
	b, err := wire.Encode(v)
	if err != nil {
		panic(err)
	}
	return b
}

// OpenFrame begins a round, SameFrame ends one.
func OpenFrame(hash tinycloud.Hash) []byte {
	return Frame(Encoded(wire.Message{Open: &wire.Open{Now: time.Now().UnixMilli(), Hash: hash}}))
}

// OpenFrameAt begins a round at another time.
func OpenFrameAt(at time.Time, hash tinycloud.Hash) []byte {
	return Frame(Encoded(wire.Message{Open: &wire.Open{Now: at.UnixMilli(), Hash: hash}}))
}

// HaveFrame asks for what a host without entries lacks.
func HaveFrame() []byte { return Frame(Encoded(wire.Message{Have: &wire.Have{}})) }

// DoneFrame ends a stream of batches.
func DoneFrame() []byte {
	return Frame(Encoded(wire.Message{Done: &wire.State{Now: time.Now().UnixMilli()}}))
}

// TipsFrame answers open.
func TipsFrame(tips []hostlog.Tip) []byte {
	return Frame(Encoded(wire.Message{Tips: &wire.Tips{Now: time.Now().UnixMilli(), Tips: wire.PackTips(tips)}}))
}

// BatchMessage is a gossip message.
func BatchMessage(bundles ...hostlog.Bundle) []byte {
	m, err := wire.PackBundles(bundles)
	if err != nil {
		panic(err)
	}
	return Encoded(wire.Message{Batch: m})
}

// Spell decodes a message and encodes what it means again: batches bundle by bundle.
func Spell(space tinycloud.SpaceID, b []byte) (kind string, again []byte, err error) {
	m, err := wire.DecodeMessage(b)
	if err != nil {
		return "", nil, err
	}
	if m.Batch != nil {
		bundles, err := m.Batch.Bundles(space)
		if err != nil {
			return "", nil, err
		}
		if m.Batch, err = wire.PackBundles(bundles); err != nil {
			return "", nil, err
		}
		kind = "batch"
	}
	again, err = wire.Encode(m)
	return kind, again, err
}

// ReadFrames reads frames until an error.
func ReadFrames(s interface {
	wire.Deadliner
	Read([]byte) (int, error)
	Write([]byte) (int, error)
}, limit int,
) (frames [][]byte, err error) {
	f := wire.NewFramer(s, limit, 30*time.Second, func(int, int) {})
	for {
		b, err := f.Read()
		if err != nil {
			return frames, err
		}
		frames = append(frames, b)
	}
}

// Bundles reads a batch.
func Bundles(space tinycloud.SpaceID, b []byte) ([]hostlog.Bundle, error) {
	m, err := wire.DecodeMessage(b)
	if err != nil {
		return nil, err
	}
	return m.Batch.Bundles(space)
}

// SampleMessages has one message of each kind.
func SampleMessages() map[string][]byte {
	h := tinycloud.Sum([]byte("x"))
	tips := wire.PackTips([]hostlog.Tip{{Host: hostlog.Key(h), N: 300, Digest: h}, {N: 1}})
	return map[string][]byte{
		"open":     Encoded(wire.Message{Open: &wire.Open{Now: 1, Hash: h}}),
		"same":     Encoded(wire.Message{Same: &wire.State{Now: 1, Joining: true}}),
		"tips":     Encoded(wire.Message{Tips: &wire.Tips{Now: 1, Tips: tips, More: true}}),
		"have":     Encoded(wire.Message{Have: &wire.Have{Tips: tips, Ahead: true}}),
		"part":     Encoded(wire.Message{Part: &wire.Part{Data: []byte("abc"), Last: true}}),
		"ack":      Encoded(wire.Message{Ack: &wire.Ack{Durable: 7}}),
		"done":     Encoded(wire.Message{Done: &wire.State{Now: 1}}),
		"locate":   Encoded(wire.Message{Locate: &wire.Locate{Hashes: []tinycloud.Hash{h}}}),
		"located":  Encoded(wire.Message{Located: &wire.Located{Values: []wire.Location{{Size: -1}, {Size: 9, Manifest: h}}}}),
		"hosts":    Encoded(wire.Message{Hosts: &wire.Hosts{Records: [][]byte{[]byte("r")}, Generation: 1, Secret: h}}),
		"share":    Encoded(wire.Message{Share: &wire.Share{Have: tips, Goal: tips}}),
		"span":     Encoded(wire.Message{Span: &wire.Span{First: 0, Last: -1}}),
		"rest":     Encoded(wire.Message{Rest: &wire.Rest{Hash: h}}),
		"sums":     Encoded(wire.Message{Sums: &wire.Sums{Sums: []wire.Sum{{Service: "sql", Subject: "db", State: h, Content: h}}}}),
		"announce": Encoded(wire.Message{Announce: &wire.Announce{Entries: []wire.AnnouncedEntry{{Entry: []byte("e"), Sig: []byte("s")}}}}),
	}
}

// PairFrame is the frame in which an invite is shown.
func PairFrame(nonce, secret, tag [32]byte, addrs ...string) []byte {
	return Frame(Encoded(wire.Pair{Nonce: nonce, Secret: secret, Tag: tag, Addrs: addrs}))
}

// PairAnswer is the frame that answers it.
func PairAnswer(tag [32]byte, addrs ...string) []byte {
	return Frame(Encoded(wire.PairAnswer{Tag: tag, Addrs: addrs}))
}

// SpellPair decodes a frame of pairing and encodes what it means again.
func SpellPair(b []byte) (again [][]byte) {
	var q wire.Pair
	if wire.Decode(b, &q) == nil {
		again = append(again, Encoded(q))
	}
	var a wire.PairAnswer
	if wire.Decode(b, &a) == nil {
		again = append(again, Encoded(a))
	}
	return again
}

// SampleBundles makes bundles of two hosts, with a fork, that only look like the real thing.
func SampleBundles(space tinycloud.SpaceID) []hostlog.Bundle {
	var out []hostlog.Bundle
	prev := map[int]hostlog.Tip{}
	for i, step := range []struct {
		host int
		fork bool
	}{{0, false}, {0, false}, {1, false}, {0, false}, {0, true}, {1, false}} {
		epoch := fmt.Appendf(nil, "epoch %d", i)
		e := hostlog.Entry{Space: space, Host: hostlog.Key{byte(step.host + 1)}, Epoch: tinycloud.Sum(epoch), At: int64(1000 * i)}
		if p, ok := prev[step.host]; ok {
			e.N, e.Prev = p.N+1, p.Digest
		}
		if step.fork {
			e.N, e.Prev = 1, out[0].Entry.Digest()
		}
		prev[step.host] = hostlog.Tip{N: e.N, Digest: e.Digest()}
		b := hostlog.Bundle{Entry: e, Epoch: epoch, Events: [][]byte{fmt.Appendf(nil, "event %d", i)}, Ops: [][]byte{{1}, {2}}}
		b.Sig[0] = byte(i)
		if i == 2 {
			v := []byte("a small value")
			b.Values = []hostlog.Value{{Hash: tinycloud.Sum(v), Bytes: v}}
			b.Large = []hostlog.Large{{Hash: tinycloud.Sum([]byte("l")), Size: 5 << 20, Manifest: tinycloud.Sum([]byte("m"))}}
		}
		out = append(out, b)
	}
	im := hostlog.Bundle{
		Entry: hostlog.Entry{Space: space, Host: hostlog.Key{9}, At: 70},
		Imported: []hostlog.Imported{
			{At: 3, Epoch: []byte("taken over"), Events: [][]byte{[]byte("read")}, Ops: [][]byte{}},
			{At: 70, Epoch: []byte("later"), Events: [][]byte{[]byte("put")}, Ops: [][]byte{{1}}},
		},
	}
	im.Entry.Import = hostlog.ImportHash(im.Imported)
	return append(out, im)
}

// Reduced is a message without the fields that another one does not have, byte for byte: what is left has one spelling.
func Reduced(t *testing.T, b, to []byte) []byte {
	t.Helper()
	if bytes.Equal(b, to) {
		return b
	}
	var all, some map[string]cbor.RawMessage
	if err := errors.Join(cbor.Unmarshal(b, &all), cbor.Unmarshal(to, &some)); err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	out := append([]byte{}, to[0])
	for _, name := range slices.SortedFunc(maps.Keys(some), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
	}) {
		out = append(append(append(out, 0x60|byte(len(name))), name...), all[name]...)
	}
	return out
}

// WithField adds a field to an encoded message.
func WithField(t testing.TB, b []byte, name string, value any) []byte {
	t.Helper()
	var all map[string]cbor.RawMessage
	raw, err := cbor.Marshal(value)
	if err = errors.Join(err, cbor.Unmarshal(b, &all)); err != nil {
		t.Fatal(err)
	}
	all[name] = raw
	mode, err := cbor.EncOptions{Sort: cbor.SortLengthFirst}.EncMode()
	if err != nil {
		t.Fatal(err)
	}
	out, err := mode.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Besiege opens streams to a node without end, as it seems, and checks that some of them are heard and not all.
func Besiege(t *testing.T, open func() (network.Stream, error)) {
	t.Helper()
	heard := 0
	for range 200 {
		s, err := open()
		if err != nil {
			continue // reset while it was opened
		}
		_ = s.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := s.Read(make([]byte, 1)); err == nil {
			heard++
		}
		_ = s.Reset()
	}
	if heard == 0 || heard > 100 {
		t.Errorf("%d of 200 streams were heard", heard)
	}
}
