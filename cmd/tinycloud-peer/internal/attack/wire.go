package attack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/zeebo/blake3"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// Names on the wire.
const (
	HelloProtocol = "/tinycloud/hello/1"
	SecondHello   = "/tinycloud/hello/2"
	SyncProtocol  = "/tinycloud/sync/1"
	WhereProtocol = "/tinycloud/where/1"
	PairProtocol  = "/tinycloud/pair/1"
	Topic         = "tinycloud/1"
	Bitswap       = "/tinycloud/ipfs/bitswap/1.2.0"
)

// Frame puts a length before bytes.
func Frame(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }

// byteReader reads single bytes without reading ahead.
type byteReader struct{ io.Reader }

func (r byteReader) ReadByte() (byte, error) {
	var b [1]byte
	_, err := io.ReadFull(r.Reader, b[:])
	return b[0], err
}

// ReadFrame reads one frame of at most limit bytes.
func ReadFrame(r io.Reader, limit int) ([]byte, error) {
	n, err := binary.ReadUvarint(byteReader{r})
	if err != nil {
		return nil, err
	}
	if n > uint64(limit) {
		return nil, fmt.Errorf("frame of %d bytes", n)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return b, err
}

// Message encodes what goes in a frame: a name with its parts in order.
func Message(name string, parts ...any) []byte { return encode(map[string]any{name: parts}) }

// encode is canonical: the library sorts what has to be sorted.
func encode(v any) []byte {
	mode, err := cbor.EncOptions{Sort: cbor.SortLengthFirst, NilContainers: cbor.NilContainerAsEmpty}.EncMode()
	if err != nil {
		panic(err) // the options are constants
	}
	b, err := mode.Marshal(v)
	if err != nil {
		panic(err) // what tests encode can be encoded
	}
	return b
}

// Parse reads a frame's message.
func Parse(b []byte) (name string, parts []cbor.RawMessage, err error) {
	var m map[string][]cbor.RawMessage
	if err := cbor.Unmarshal(b, &m); err != nil {
		return "", nil, err
	}
	for name, parts := range m {
		return name, parts, nil
	}
	return "", nil, errors.New("empty message")
}

// Open is the request for a round.
func Open(hash tinycloud.Hash) []byte { return Frame(Message("open", time.Now().UnixMilli(), hash[:])) }

// HaveNothing asks for all that a host without entries lacks.
func HaveNothing() []byte { return Frame(Message("have", []any{}, false, false, false)) }

// Locate asks where values are.
func Locate(hashes ...tinycloud.Hash) []byte {
	list := make([][]byte, len(hashes))
	for i := range hashes {
		list[i] = hashes[i][:]
	}
	return Frame(Message("locate", list))
}

// Tag is the keyed hash that binds a handshake to its Space, peers and nonces.
func Tag(space tinycloud.SpaceID, dialer, responder peer.ID, ofDialer, ofResponder [32]byte, role string) (tag [32]byte) {
	key := blake3.Sum256([]byte(space.String()))
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err) // the key has the right length
	}
	for _, part := range []string{"tinycloud/hello/1", string(dialer), string(responder), string(ofDialer[:]), string(ofResponder[:]), role} {
		_, _ = h.WriteString(part)
	}
	h.Sum(tag[:0])
	return tag
}

func proofFrame(nonce, tag [32]byte, chain [][]byte) []byte {
	return Frame(encode([]any{nonce[:], tag[:], chain}))
}

func nonceOf(frame []byte) (nonce [32]byte, err error) {
	var parts [][]byte
	if err := cbor.Unmarshal(frame, &parts); err != nil {
		return nonce, err
	}
	if len(parts) != 1 || len(parts[0]) != 32 {
		return nonce, errors.New("no nonce")
	}
	return [32]byte(parts[0]), nil
}

// Batch is the message with bundles, each with its place spelled out unless it follows its host's bundle before it.
func Batch(bundles ...hostlog.Bundle) []byte {
	index, last := map[hostlog.Key]int{}, map[hostlog.Key]hostlog.Entry{}
	var hosts [][]byte
	var entries []any
	for _, b := range bundles {
		e := b.Entry
		i, known := index[e.Host]
		if !known {
			i = len(hosts)
			index[e.Host] = i
			hosts = append(hosts, e.Host[:])
		}
		link := []any{}
		if before := last[e.Host]; !known || e.N != before.N+1 || e.Prev != before.Digest() {
			link = append(link, []any{e.N, e.Prev[:]})
		}
		last[e.Host] = e
		var values [][]byte
		for _, v := range b.Values {
			values = append(values, v.Bytes)
		}
		large := []any{}
		for _, l := range b.Large {
			large = append(large, []any{l.Hash[:], l.Size, l.Manifest[:]})
		}
		entries = append(entries, []any{i, link, e.At, b.Sig[:], b.Epoch, list(b.Events), list(b.Ops), list(values), large, []any{}})
	}
	return Message("batch", hosts, entries)
}

// list is never null.
func list(b [][]byte) [][]byte { return append([][]byte{}, b...) }
