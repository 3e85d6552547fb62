package hostlog_test

import (
	"bytes"
	"testing"

	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/node/basicnode"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

func entries() []hostlog.Entry {
	space := captest.NewWallet("alice").Space("default")
	return []hostlog.Entry{
		{Space: space, Host: hostlog.Key{1}, Epoch: tinycloud.Sum(nil), At: 1},
		{Space: space, Host: hostlog.Key{2}, N: 1, Prev: tinycloud.Sum([]byte("prev")), Epoch: tinycloud.Sum(nil), At: 1795392000000},
		{Space: space, Host: hostlog.Key{3}, N: 1 << 40, Prev: tinycloud.Sum([]byte("prev")), Epoch: tinycloud.Sum(nil), At: 70000},
		{Space: space, Host: hostlog.Key{4}, Import: tinycloud.Sum([]byte("list")), At: 70000},
		{Space: space, Host: hostlog.Key{4}, N: 1, Prev: tinycloud.Sum([]byte("prev")), Import: tinycloud.Sum(nil), At: 70000},
	}
}

func TestEntryIsCanonicalDAGCBOR(t *testing.T) {
	for _, e := range entries() {
		b := e.Encode()
		nb := basicnode.Prototype.Any.NewBuilder()
		if err := dagcbor.Decode(nb, bytes.NewReader(b)); err != nil {
			t.Fatalf("entry %d: %v", e.N, err)
		}
		var again bytes.Buffer
		if err := dagcbor.Encode(nb.Build(), &again); err != nil || !bytes.Equal(again.Bytes(), b) {
			t.Errorf("entry %d: a DAG-CBOR codec encodes it otherwise: %v", e.N, err)
		}
		got, err := hostlog.DecodeEntry(b)
		if err != nil || got != e {
			t.Errorf("decoded %+v, %v; want %+v", got, err, e)
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	for _, e := range entries() {
		f.Add(e.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := hostlog.DecodeEntry(b)
		if err == nil && !bytes.Equal(e.Encode(), b) {
			t.Errorf("%x decodes but encodes as %x", b, e.Encode())
		}
	})
}

// FuzzDecodeImport asks for the lists of import entries what FuzzDecodeEntry asks for entries.
func FuzzDecodeImport(f *testing.F) {
	f.Add(hostlog.EncodeList([]hostlog.Listed{{At: 1, Epoch: tinycloud.Hash{'a'}}, {At: 1795392000000, Epoch: tinycloud.Hash{'b'}}}))
	f.Add(hostlog.EncodeList([]hostlog.Listed{{}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		decoded, err := hostlog.DecodeList(b)
		again := hostlog.EncodeList(decoded)
		if err == nil && !bytes.Equal(again, b) {
			t.Errorf("%x decodes but encodes as %x", b, again)
		}
		nb := basicnode.Prototype.Any.NewBuilder()
		if err == nil && dagcbor.Decode(nb, bytes.NewReader(b)) != nil {
			t.Errorf("%x is no DAG-CBOR", b)
		}
	})
}
