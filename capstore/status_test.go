package capstore_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/zeebo/blake3"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
)

// A general codec, with the order of DAG-CBOR, comes to the same state hash.
func TestStateHash(t *testing.T) {
	c := newClock()
	o := newOwner(t, "alice", c)
	s := openNew(t, "one", c)
	o.hostOn(s)
	s.delegate(o.header)
	var want []any
	metadata := map[string]string{
		"content-type": "text/plain", "content-language": "dé",
		kv.MetaPrefix + "b": "1", kv.MetaPrefix + "aa": "", kv.MetaPrefix + "long": strings.Repeat("v", 300),
	}
	for _, key := range []string{"a", "b/c", "long/" + strings.Repeat("k", 70)} {
		op := putOp(o.space, key, "value of "+key)
		op.Metadata = metadata
		tok := o.invoke(t, key, "tinycloud.kv/put")
		if err := s.Admit(t.Context(), tok); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(t.Context(), tok, ops(op), nil); err != nil {
			t.Fatal(err)
		}
		want = append(want, []any{key, []byte(tinycloud.Sum([]byte("value of " + key)).Multihash()), metadata})
	}
	mode, err := cbor.EncOptions{Sort: cbor.SortLengthFirst}.EncMode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := mode.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	sum := blake3.Sum256(b)
	if st := s.status(o.space); st.Keys != 3 || st.StateHash != hex.EncodeToString(sum[:]) {
		t.Errorf("%d keys with state hash %s, want %x", st.Keys, st.StateHash, sum)
	}
}
