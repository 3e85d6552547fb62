package dag_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/node/basicnode"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
)

func hash(tb testing.TB, text string) (h tinycloud.Hash) {
	tb.Helper()
	if n, err := hex.Decode(h[:], []byte(text)); err != nil || n != 32 {
		tb.Fatalf("hash %q: %v", text, err)
	}
	return h
}

func unhex(tb testing.TB, text string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

const value = "9a6c5a6e655bf64c1d499faae99bb3f2705bb4e5c97ae4f78015fd68814a8df3"

// goldenOps and goldenEpochs are protocol appendix A.5.
var goldenOps = []struct{ name, bytes, id string }{
	{"put", "a3636b65796c646f63732f6f6e652e7478746576616c7565d82a58250001711e20" + value + "686d65746164617461a16c636f6e74656e742d747970656a746578742f706c61696e", "166f3e16ff9446b3a043886615819e381d41eda3ac798217fc444f782fa32169"},
	{"del", "a2636b65796c646f63732f6f6e652e7478746776657273696f6ef6", "206744cf90208f2cfb91bc43c6d8864bb5bacccf67e7ac6d7cb29390badb4c2d"},
	{"metadata by length", "a3636b6579616b6576616c7565d82a58250001711e20ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f686d65746164617461a463782d61613164686f737461686c636f6e74656e742d747970656a746578742f706c61696e6e636f6e74656e742d6c656e6774686135", "4af69e42b3cfb4895d6aec6a5ae3073be660e7f0475fb5d357b791327a92b9f1"},
}

var goldenEpochs = []struct{ name, bytes, id string }{
	{"host", "a267706172656e747380666576656e747381d82a58250001551e2009692813e551aeb4b3df373074296105c9ee42b42b4ea336e22ae2d9f0d74cae", "87e6c0fcbf23e536d77f8c9863a5b0709be0883c8172092ec63b283a881507a9"},
	{"session", "a267706172656e747381d82a58250001711e2087e6c0fcbf23e536d77f8c9863a5b0709be0883c8172092ec63b283a881507a9666576656e747381d82a58250001551e20dd56fbfa51802f38a0c113d969912bfd705c6e15790b05211566c7f4275d65cd", "a79e8addeacbec68e855edc7bc1e4b77a8cfcf33c791d14170460e6e6d5e2402"},
	{"put", "a267706172656e747381d82a58250001711e20a79e8addeacbec68e855edc7bc1e4b77a8cfcf33c791d14170460e6e6d5e2402666576656e74738182d82a58250001551e20f2a5bd7dbd3f50a186238241704e3cf5065279e5d88634c5411a19e5e87b67b0d82a58250001711e20166f3e16ff9446b3a043886615819e381d41eda3ac798217fc444f782fa32169", "a5a866f3f6de606bed6425a314ec3242f629c5a0b1a48b9b80631a599ba2026e"},
	{"get", "a267706172656e747381d82a58250001711e20a5a866f3f6de606bed6425a314ec3242f629c5a0b1a48b9b80631a599ba2026e666576656e747381d82a58250001551e201373ad00a46e75c14e20044b94cbde9da3354edfb117178ce1404bad883e9b29", "eb2142b17f341c192f70d833c6c82e7a23fc563e84cd37e716009dacfde38acb"},
	{"del", "a267706172656e747381d82a58250001711e20eb2142b17f341c192f70d833c6c82e7a23fc563e84cd37e716009dacfde38acb666576656e74738182d82a58250001551e2024d7b5bf383f6c9abbdb2b04c4a063f8681624c59cbac99f78a345b6f5abc12ed82a58250001711e20206744cf90208f2cfb91bc43c6d8864bb5bacccf67e7ac6d7cb29390badb4c2d", "50f568aeb6935efe396f41e501fd91e20e88ede32b15bc682aa2e1aa819cf54f"},
}

func TestGolden(t *testing.T) {
	for _, g := range goldenOps {
		op, err := dag.DecodeOp(unhex(t, g.bytes))
		if err != nil {
			t.Errorf("operation %s: %v", g.name, err)
			continue
		}
		if got := hex.EncodeToString(op.Encode()); got != g.bytes || op.ID().String() != g.id {
			t.Errorf("operation %s: %s, id %s", g.name, got, op.ID())
		}
	}
	for _, g := range goldenEpochs {
		e, err := dag.DecodeEpoch(unhex(t, g.bytes))
		if err != nil {
			t.Errorf("epoch %s: %v", g.name, err)
			continue
		}
		if got := hex.EncodeToString(e.Encode()); got != g.bytes || e.ID().String() != g.id {
			t.Errorf("epoch %s: %s, id %s", g.name, got, e.ID())
		}
	}
	put := dag.Op{Key: "docs/one.txt", Value: tinycloud.Sum([]byte("hello tinycloud")), Metadata: map[string]string{"content-type": "text/plain"}}
	if got := hex.EncodeToString(put.Encode()); got != goldenOps[0].bytes {
		t.Errorf("put is %s", got)
	}
	del := dag.Op{Key: "docs/one.txt", Delete: true}
	if got := hex.EncodeToString(del.Encode()); got != goldenOps[1].bytes {
		t.Errorf("del is %s", got)
	}
}

// recorded is an epoch of the running reference's database.
type recorded struct {
	From, ID string
	Parents  []string
	Events   []struct {
		Event string
		Ops   []struct {
			Key, Value string
			Delete     bool
			Metadata   map[string]string
		}
	}
}

func database(tb testing.TB) []recorded {
	tb.Helper()
	b, err := os.ReadFile("testdata/epochs.json")
	if err != nil {
		tb.Fatal(err)
	}
	var all []recorded
	if err := json.Unmarshal(b, &all); err != nil {
		tb.Fatal(err)
	}
	if len(all) != 87+36 {
		tb.Fatalf("%d epochs", len(all))
	}
	return all
}

// build makes the epoch of a record and returns its operations beside it.
func (r recorded) build(tb testing.TB) (e dag.Epoch, ops []dag.Op) {
	tb.Helper()
	for _, p := range r.Parents {
		e.Parents = append(e.Parents, hash(tb, p))
	}
	for _, ev := range r.Events {
		ref := dag.EventRef{Event: hash(tb, ev.Event)}
		for _, o := range ev.Ops {
			op := dag.Op{Key: o.Key, Delete: o.Delete, Metadata: o.Metadata}
			if !o.Delete {
				op.Value = hash(tb, o.Value)
			}
			ops = append(ops, op)
			ref.Ops = append(ref.Ops, op.ID())
		}
		e.Events = append(e.Events, ref)
	}
	return e, ops
}

func TestReferenceDatabase(t *testing.T) {
	operations := 0
	for i, r := range database(t) {
		e, ops := r.build(t)
		if got := e.ID().String(); got != r.ID {
			t.Errorf("epoch %d of %s: id %s, want %s", i, r.From, got, r.ID)
		}
		back, err := dag.DecodeEpoch(e.Encode())
		if diff := cmp.Diff(e, back); err != nil || diff != "" {
			t.Errorf("epoch %d of %s: %v %s", i, r.From, err, diff)
		}
		wellFormed(t, e.Encode())
		for _, op := range ops {
			operations++
			back, err := dag.DecodeOp(op.Encode())
			if diff := cmp.Diff(op, back); err != nil || diff != "" {
				t.Errorf("operation on %s: %v %s", op.Key, err, diff)
			}
			wellFormed(t, op.Encode())
		}
	}
	if operations < 50 {
		t.Errorf("only %d operations", operations)
	}
}

// wellFormed asks an independent decoder whether b is DAG-CBOR in all but the order of keys.
func wellFormed(tb testing.TB, b []byte) {
	tb.Helper()
	nb := basicnode.Prototype.Any.NewBuilder()
	if err := (dagcbor.DecodeOptions{AllowLinks: true}).Decode(nb, bytes.NewReader(b)); err != nil {
		tb.Errorf("%v in %x", err, b)
	}
}

func TestEpochRefuses(t *testing.T) {
	const link = "d82a58250001551e20" + value
	const op = "d82a58250001711e20" + value
	for _, tt := range []struct{ name, bytes string }{
		{"empty", ""},
		{"three fields", "a3" + goldenEpochs[0].bytes[2:]},
		{"cut short", goldenEpochs[0].bytes[:len(goldenEpochs[0].bytes)-2]},
		{"trailing byte", goldenEpochs[0].bytes + "00"},
		{"sorted fields", "a2666576656e74738067706172656e747380"},
		{"long head", "b80267706172656e747380666576656e747380"},
		{"indefinite list", "a267706172656e74739fff666576656e747380"},
		{"parents in two bytes", "a267706172656e74739800666576656e747380"},
		{"parents without end", "a267706172656e74739bffffffffffffffff"},
		{"parents over the bound", "a267706172656e7473991001" + strings.Repeat(op, 0x1001) + "666576656e747380"},
		{"parent of the raw codec", "a267706172656e747381" + link + "666576656e747380"},
		{"event of the CBOR codec", "a267706172656e747380666576656e747381" + op},
		{"event alone in a list", "a267706172656e747380666576656e74738181" + link},
		{"empty list as event", "a267706172656e747380666576656e74738180"},
		{"operation of the raw codec", "a267706172656e747380666576656e74738182" + link + link},
		{"sha2-256 link", "a267706172656e747381d82a5825000171122" + "0" + value + "666576656e747380"},
		{"list of nothing", "80"},
		{"break", "ff"},
	} {
		if e, err := dag.DecodeEpoch(unhex(t, tt.bytes)); !errors.Is(err, tinycloud.ErrInvalid) {
			t.Errorf("%s: %v, %v", tt.name, e, err)
		}
	}
	if _, err := dag.DecodeEpoch(make([]byte, dag.MaxEpochSize+1)); !errors.Is(err, tinycloud.ErrInvalid) {
		t.Errorf("too large: %v", err)
	}
	many := dag.Epoch{Parents: make([]tinycloud.Hash, dag.MaxParents), Events: make([]dag.EventRef, dag.MaxEvents)}
	if back, err := dag.DecodeEpoch(many.Encode()); err != nil || len(back.Parents) != dag.MaxParents {
		t.Errorf("at the bounds: %v", err)
	}
}

func TestOpRefuses(t *testing.T) {
	head := "a3636b6579616b6576616c7565d82a58250001711e20" + value + "686d65746164617461"
	for _, tt := range []struct{ name, bytes string }{
		{"empty", ""},
		{"one field", "a1636b6579616b"},
		{"four fields", "a4" + head[2:] + "a0"},
		{"another field", "a2636b6579616b6776657273696f6ff6"},
		{"key as bytes", "a2636b6579416b6776657273696f6ef6"},
		{"key not UTF-8", "a2636b657961ff6776657273696f6ef6"},
		{"key too long to be", "a2636b65797bffffffffffffffff"},
		{"version undefined", "a2636b6579616b6776657273696f6ef7"},
		{"version of two parts", "a2636b6579616b6776657273696f6e8201d82a58250001711e20" + value},
		{"version negative", "a2636b6579616b6776657273696f6e8320d82a58250001711e20" + value + "00"},
		{"version in two bytes", "a2636b6579616b6776657273696f6e831801d82a58250001711e20" + value + "00"},
		{"value of the raw codec", strings.Replace(head, "000171", "000155", 1) + "a0"},
		{"metadata a list", head + "80"},
		{"metadata twice", head + "a2616161316161" + "6132"},
		{"metadata unsorted", head + "a2616261316161" + "6132"},
		{"metadata longer first", head + "a2626161613161" + "626132"},
		{"metadata a number", head + "a1616101"},
		{"metadata without end", head + "bbffffffffffffffff"},
		{"trailing byte", head + "a0" + "00"},
	} {
		if o, err := dag.DecodeOp(unhex(t, tt.bytes)); !errors.Is(err, tinycloud.ErrInvalid) {
			t.Errorf("%s: %v, %v", tt.name, o, err)
		}
	}
	if _, err := dag.DecodeOp(make([]byte, dag.MaxOpSize+1)); !errors.Is(err, tinycloud.ErrInvalid) {
		t.Errorf("too large: %v", err)
	}
	if _, err := dag.DecodeOp(unhex(t, head+"a0")); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func TestOpRoundTrip(t *testing.T) {
	h := hash(t, value)
	long := map[string]string{}
	for _, n := range []int{0, 1, 23, 24, 255, 256, 300} {
		long[strings.Repeat("k", n)] = strings.Repeat("v", n)
	}
	for _, op := range []dag.Op{
		{Value: h},
		{Key: "k", Value: h, Metadata: long},
		{Key: "ü", Delete: true, Version: &dag.Version{}},
		{Key: "k", Delete: true, Version: &dag.Version{Seq: 23, Epoch: h, Index: 24}},
		{Key: "k", Delete: true, Version: &dag.Version{Seq: 255, Epoch: h, Index: 256}},
		{Key: "k", Delete: true, Version: &dag.Version{Seq: 65535, Epoch: h, Index: 65536}},
		{Key: "k", Delete: true, Version: &dag.Version{Seq: math.MaxUint32, Epoch: h, Index: math.MaxUint32 + 1}},
		{Key: "k", Delete: true, Version: &dag.Version{Seq: math.MaxInt64, Epoch: h}},
		{Key: strings.Repeat("k", 60000), Delete: true},
	} {
		back, err := dag.DecodeOp(op.Encode())
		if diff := cmp.Diff(op, back, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
		wellFormed(t, op.Encode())
	}
}

func FuzzDecodeEpoch(f *testing.F) {
	for _, g := range goldenEpochs {
		f.Add(unhex(f, g.bytes))
	}
	for _, r := range database(f)[:20] {
		e, _ := r.build(f)
		f.Add(e.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := dag.DecodeEpoch(b)
		if err != nil {
			if e.Parents != nil || e.Events != nil {
				t.Error("epoch beside an error")
			}
			return
		}
		if !bytes.Equal(e.Encode(), b) {
			t.Errorf("%x encodes as %x", b, e.Encode())
		}
		wellFormed(t, b)
	})
}

func FuzzDecodeOp(f *testing.F) {
	for _, g := range goldenOps {
		f.Add(unhex(f, g.bytes))
	}
	f.Add(dag.Op{Key: "k", Delete: true, Version: &dag.Version{Seq: 1000, Index: 7}}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := dag.DecodeOp(b)
		if err != nil {
			return
		}
		if !bytes.Equal(o.Encode(), b) {
			t.Errorf("%x encodes as %x", b, o.Encode())
		}
		if o.Version == nil || o.Version.Seq <= math.MaxInt64 && o.Version.Index <= math.MaxInt64 {
			wellFormed(t, b)
		}
	})
}

func BenchmarkEpoch(b *testing.B) {
	e, err := dag.DecodeEpoch(unhex(b, goldenEpochs[2].bytes))
	if err != nil {
		b.Fatal(err)
	}
	bytes := e.Encode()
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			e.Encode()
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := dag.DecodeEpoch(bytes); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("id", func(b *testing.B) {
		for b.Loop() {
			e.ID()
		}
	})
}
