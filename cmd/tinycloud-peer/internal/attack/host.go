package attack

import (
	"crypto/ed25519"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cbor"
)

// Log is the log of a host that signs whatever it likes. N, Prev and Last may be set by hand: they are what the next
// bundle follows.
type Log struct {
	Space tinycloud.SpaceID
	Key   ed25519.PrivateKey
	N     uint64
	Prev  tinycloud.Hash
	Last  tinycloud.Hash // epoch
}

// Event is what an epoch holds: a token and the operations it makes.
type Event struct {
	Token []byte
	Ops   [][]byte
}

// Say makes the next bundle of the log, for an epoch of some events.
func (l *Log) Say(at time.Time, parents []tinycloud.Hash, events ...Event) hostlog.Bundle {
	var b hostlog.Bundle
	for _, e := range events {
		b.Events = append(b.Events, e.Token)
		b.Ops = append(b.Ops, e.Ops...)
	}
	b.Epoch = Epoch(parents, events...)
	l.sign(&b, at)
	return b
}

// Claim makes the next bundle of the log, for the epoch of another host's bundle.
func (l *Log) Claim(at time.Time, of hostlog.Bundle) hostlog.Bundle {
	l.sign(&of, at)
	return of
}

func (l *Log) sign(b *hostlog.Bundle, at time.Time) {
	b.Entry = hostlog.Entry{
		Space: l.Space, Host: hostlog.Key(l.Key.Public().(ed25519.PublicKey)), N: l.N, Prev: l.Prev,
		Epoch: tinycloud.Sum(b.Epoch), At: at.UnixMilli(),
	}
	digest := b.Entry.Digest()
	b.Sig = hostlog.Signature(ed25519.Sign(l.Key, append([]byte("tinycloud/hostlog/1"), digest[:]...)))
	l.N, l.Prev, l.Last = l.N+1, digest, b.Entry.Epoch
}

// Epoch is the DAG-CBOR of an epoch.
func Epoch(parents []tinycloud.Hash, events ...Event) []byte {
	b := append([]byte{0xa2}, "\x67parents"...)
	b = cbor.AppendHead(b, cbor.Array, uint64(len(parents)))
	for _, p := range parents {
		b = link(b, tinycloud.CBORCodec, p)
	}
	b = append(b, "\x66events"...)
	b = cbor.AppendHead(b, cbor.Array, uint64(len(events)))
	for _, e := range events {
		if len(e.Ops) > 0 {
			b = cbor.AppendHead(b, cbor.Array, uint64(1+len(e.Ops)))
		}
		b = link(b, tinycloud.RawCodec, tinycloud.Sum(e.Token))
		for _, op := range e.Ops {
			b = link(b, tinycloud.CBORCodec, tinycloud.Sum(op))
		}
	}
	return b
}

// Write is the operation that gives a key a value.
func Write(key string, value tinycloud.Hash) []byte {
	b := append([]byte{0xa3}, "\x63key"...)
	b = cbor.AppendText(b, key)
	b = link(append(b, "\x65value"...), tinycloud.CBORCodec, value)
	return append(b, "\x68metadata\xa0"...)
}

// Delete is the operation that removes the write at a place in the history.
func Delete(key string, seq uint64, epoch tinycloud.Hash, index uint64) []byte {
	b := append([]byte{0xa2}, "\x63key"...)
	b = cbor.AppendText(b, key)
	b = append(append(b, "\x67version"...), 0x83)
	return cbor.AppendHead(link(cbor.AppendHead(b, cbor.Uint, seq), tinycloud.CBORCodec, epoch), cbor.Uint, index)
}

func link(b []byte, codec uint64, h tinycloud.Hash) []byte {
	return append(append(b, 0xd8, 0x2a, 0x58, 0x25, 0x00, 0x01, byte(codec), 0x1e, 0x20), h[:]...)
}
