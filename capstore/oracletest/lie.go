package oracletest

import (
	"crypto/ed25519"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
)

// Lie is a log entry as a host may sign it that follows no rule.
type Lie struct {
	Space   tinycloud.SpaceID
	Key     ed25519.PrivateKey // of the host
	N       uint64
	Prev    tinycloud.Hash
	At      time.Time
	Parents []tinycloud.Hash // of its epoch
	Event   []byte           // the one token of its epoch
	Write   *Write
	Delete  *Delete
	Ops     [][]byte // other operations, of any service
}

// Write is an operation that the event of a lie is said to have brought.
type Write struct {
	Key   string
	Value []byte
}

// Delete is another.
type Delete struct {
	Key     string
	Version *capstore.Position // nil: none is named
}

// Sign returns the entry with all it names.
func (l Lie) Sign() hostlog.Bundle {
	b := hostlog.Bundle{Events: [][]byte{l.Event}}
	ref := dag.EventRef{Event: tinycloud.Sum(l.Event)}
	add := func(op dag.Op) { b.Ops, ref.Ops = append(b.Ops, op.Encode()), append(ref.Ops, op.ID()) }
	if w := l.Write; w != nil {
		hash := tinycloud.Sum(w.Value)
		add(dag.Op{Key: w.Key, Value: hash, Metadata: map[string]string{}})
		b.Values = []hostlog.Value{{Hash: hash, Bytes: w.Value}}
	}
	if d := l.Delete; d != nil {
		op := dag.Op{Key: d.Key, Delete: true}
		if v := d.Version; v != nil {
			op.Version = &dag.Version{Seq: v.Seq, Epoch: v.Epoch, Index: v.Index}
		}
		add(op)
	}
	for _, op := range l.Ops {
		b.Ops, ref.Ops = append(b.Ops, op), append(ref.Ops, tinycloud.Sum(op))
	}
	b.Epoch = dag.Epoch{Parents: l.Parents, Events: []dag.EventRef{ref}}.Encode()
	b.Entry = hostlog.Entry{
		Space: l.Space, Host: hostlog.Key(l.Key.Public().(ed25519.PublicKey)), N: l.N, Prev: l.Prev,
		Epoch: tinycloud.Sum(b.Epoch), At: l.At.UnixMilli(),
	}
	digest := b.Entry.Digest()
	b.Sig = hostlog.Signature(ed25519.Sign(l.Key, append([]byte("tinycloud/hostlog/1"), digest[:]...)))
	return b
}
