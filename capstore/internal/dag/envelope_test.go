package dag_test

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/node/basicnode"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
)

// encoded is a map as another implementation encodes it.
func encoded(tb testing.TB, fields map[string]datamodel.Node) []byte {
	tb.Helper()
	n, err := qp.BuildMap(basicnode.Prototype.Any, int64(len(fields)), func(m datamodel.MapAssembler) {
		for name, v := range fields {
			qp.MapEntry(m, name, qp.Node(v))
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	var b bytes.Buffer
	if err := dagcbor.Encode(n, &b); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func TestEnvelope(t *testing.T) {
	text, number := basicnode.NewString, basicnode.NewInt
	type fields map[string]datamodel.Node
	key := dag.Op{Key: "a/b", Value: tinycloud.Sum(nil), Metadata: map[string]string{"x": "y"}}.Encode()
	for _, tt := range []struct {
		name string
		b    []byte
		want dag.Envelope
		ok   bool
	}{
		{"a write to a key", key, dag.Envelope{Service: "kv", Subject: "a/b"}, true},
		{"a delete", dag.Op{Key: "k", Delete: true}.Encode(), dag.Envelope{Service: "kv", Subject: "k"}, true},
		{"a newer form of a write", encoded(t, fields{"key": text("k"), "with": number(7)}), dag.Envelope{Service: "kv", Subject: "k"}, true},
		{"another service", encoded(t, fields{"service": text("sql"), "subject": text("main"), "v": number(9), "body": basicnode.NewBytes([]byte{1})}), dag.Envelope{Service: "sql", Subject: "main"}, true},
		{"another service's key is its own", encoded(t, fields{"service": text("sql"), "subject": text("s"), "key": number(1)}), dag.Envelope{Service: "sql", Subject: "s"}, true},
		{"an empty subject", encoded(t, fields{"service": text("sql"), "subject": text("")}), dag.Envelope{Service: "sql"}, true},
		{"no subject", encoded(t, fields{"service": text("sql")}), dag.Envelope{}, false},
		{"a subject that is no text", encoded(t, fields{"service": text("sql"), "subject": number(1)}), dag.Envelope{}, false},
		{"a service that is no text", encoded(t, fields{"service": number(1), "subject": text("s"), "key": text("k")}), dag.Envelope{}, false},
		{"a service of no name", encoded(t, fields{"service": text(""), "subject": text("s"), "key": text("k")}), dag.Envelope{}, false},
		{"a service with a blank", encoded(t, fields{"service": text("s q"), "subject": text("s")}), dag.Envelope{}, false},
		{"a service of 32 bytes", encoded(t, fields{"service": text(strings.Repeat("s", 32)), "subject": text("s")}), dag.Envelope{Service: strings.Repeat("s", 32), Subject: "s"}, true},
		{"a service of 33 bytes", encoded(t, fields{"service": text(strings.Repeat("s", 33)), "subject": text("s")}), dag.Envelope{}, false},
		{"the service that is not named", encoded(t, fields{"service": text("kv"), "subject": text("s")}), dag.Envelope{}, false},
		{"a key that is no text", encoded(t, fields{"key": number(1)}), dag.Envelope{}, false},
		{"no field", encoded(t, nil), dag.Envelope{}, false},
		{"no map", []byte{0x01}, dag.Envelope{}, false},
	} {
		got, ok, err := dag.DecodeEnvelope(tt.b)
		if got != tt.want || ok != tt.ok || err != nil {
			t.Errorf("%s: %+v, %t, %v", tt.name, got, ok, err)
		}
	}
	for name, b := range map[string][]byte{
		"nothing":          nil,
		"trailing bytes":   append(bytes.Clone(key), 0),
		"cut short":        key[:len(key)-1],
		"unsorted":         []byte("\xa2\x61b\x00\x61a\x00"),
		"a field twice":    []byte("\xa2\x61a\x00\x61a\x00"),
		"a long number":    []byte("\xa1\x61a\x18\x01"),
		"a short float":    []byte("\xa1\x61a\xf9\x00\x00"),
		"not a number":     []byte("\xa1\x61a\xfb\x7f\xf8\x00\x00\x00\x00\x00\x00"),
		"undefined":        []byte("\xa1\x61a\xf7"),
		"another tag":      []byte("\xa1\x61a\xc1\x00"),
		"a link to no CID": []byte("\xa1\x61a\xd8\x2a\x42\x00\x01"),
		"too deep":         append([]byte("\xa1\x61a"), bytes.Repeat([]byte{0x81}, 100)...),
		"too large":        encoded(t, fields{"key": text(strings.Repeat("k", dag.MaxOpSize))}),
	} {
		if e, ok, err := dag.DecodeEnvelope(b); !errors.Is(err, tinycloud.ErrInvalid) || ok || e != (dag.Envelope{}) {
			t.Errorf("%s: %+v, %t, %v", name, e, ok, err)
		}
	}
}

// What is taken is just what another implementation takes for canonical.
func FuzzDecodeEnvelope(f *testing.F) {
	for _, g := range goldenOps {
		f.Add(unhex(f, g.bytes))
	}
	f.Add(encoded(f, map[string]datamodel.Node{"service": basicnode.NewString("sql"), "subject": basicnode.NewString("main"), "n": basicnode.NewFloat(1.5)}))
	f.Add([]byte("\xa1\x61a\xd8\x2a\x58\x25\x00\x01\x55\x1e\x20" + strings.Repeat("h", 32)))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, ok, err := dag.DecodeEnvelope(b)
		nb := basicnode.Prototype.Any.NewBuilder()
		failed := dagcbor.DecodeOptions{AllowLinks: true}.Decode(nb, bytes.NewReader(b))
		var again bytes.Buffer
		if failed == nil {
			failed = dagcbor.Encode(nb.Build(), &again)
		}
		same := failed == nil && bytes.Equal(again.Bytes(), b)
		if err == nil && !same && !largeNumber(b) {
			t.Errorf("%x taken: %v, %x", b, failed, again.Bytes())
		}
		if err != nil && same && len(b) <= dag.MaxOpSize && !strings.Contains(err.Error(), "too deep") && !strings.Contains(err.Error(), "not UTF-8") {
			t.Errorf("%x refused: %v", b, err)
		}
		if o, failed := dag.DecodeOp(b); failed == nil && (err != nil || !ok || e != dag.Envelope{Service: dag.KV, Subject: o.Key}) {
			t.Errorf("%x is a KV operation: %+v, %t, %v", b, e, ok, err)
		}
	})
}

// largeNumber reports whether there may be a number that the other implementation has no type for.
func largeNumber(b []byte) bool {
	for i, c := range b {
		if (c == 0x1b || c == 0x3b) && len(b) > i+8 && b[i+1] > math.MaxInt8 {
			return true
		}
	}
	return false
}
