package encryption_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

// says sends frames to a host as another one, and at last what is no frame, and returns what it answers until it hangs up.
func (m *mesh) says(to, from *host, frames ...[]byte) []byte {
	m.t.Helper()
	x, y := net.Pipe()
	m.running.Go(func() { m.keepers[to].Serve(m.ctx, m.id(from), pipe{y}) })
	answer := make(chan []byte, 1)
	m.running.Go(func() {
		b, _ := io.ReadAll(x) // its end is what matters
		answer <- b
	})
	for _, f := range append(frames, []byte{0xff}) {
		if _, err := x.Write(append(binary.AppendUvarint(nil, uint64(len(f))), f...)); err != nil {
			break // it has hung up
		}
	}
	b := <-answer
	_ = x.Close()
	return b
}

func encoded(t *testing.T, v any) []byte {
	t.Helper()
	b, err := wire.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Whatever a host says, it gets no key and no record is kept that is none; and who is not authorised is not heard.
func TestHostileQuestions(t *testing.T) {
	m := newMesh(t, 3, time.Hour)
	a, b, c := m.hosts[0], m.hosts[1], m.hosts[2]
	m.pair(a, c, false)
	m.pair(b, c, false)
	m.connect(a, b, true)
	m.connect(a, c, true)
	a.mustCreate(m.client(a).Create(m.key.DID(), "default"))
	_ = m.describe(b) // the key went the way it should
	m.connect(a, c, false)
	const records = "SELECT count(*) FROM network_records"
	before := b.count(records)
	for tick, end := time.Tick(5*time.Millisecond), time.Now().Add(30*time.Second); a.count(records) != before; <-tick { // b has told that it has the key
		if time.Now().After(end) {
			t.Fatalf("%d records of %d", a.count(records), before)
		}
	}
	type list struct {
		_       struct{} `cbor:",toarray"`
		Records [][]byte
		More    bool
	}
	type blob struct {
		_    struct{} `cbor:",toarray"`
		Data []byte
	}
	type ids struct {
		_   struct{} `cbor:",toarray"`
		IDs [][32]byte
	}
	have := encoded(t, map[string]any{"have": ids{}})
	for what, frames := range map[string][][]byte{
		"nothing":               {{}},
		"garbage":               {bytes.Repeat([]byte{0xff}, 100)},
		"two meanings":          {encoded(t, map[string]any{"have": ids{}, "ask": blob{Data: []byte("x")}})},
		"an answer":             {encoded(t, map[string]any{"given": blob{Data: make([]byte, 92)}})},
		"an announcement":       {encoded(t, map[string]any{"ask": blob{Data: make([]byte, 400)}})},
		"a long announcement":   {encoded(t, map[string]any{"ask": blob{Data: make([]byte, 100_000)}})},
		"too many ids":          {encoded(t, map[string]any{"have": ids{IDs: make([][32]byte, 5000)}})},
		"records that are none": {have, encoded(t, map[string]any{"records": list{Records: [][]byte{{1, 2, 3}}}})},
		"empty records":         {have, encoded(t, map[string]any{"records": list{Records: [][]byte{{}}}})},
		"pages without an end":  {have, encoded(t, map[string]any{"records": list{More: true}})},
		"a request that is none": {encoded(t, map[string]any{"decrypt": struct {
			_               struct{} `cbor:",toarray"`
			Header, Network string
			Body            []byte
		}{Header: "x", Network: "y"}})},
	} {
		answer := m.says(a, b, frames...)
		if bytes.Contains(answer, []byte("given")) || bytes.Contains(answer, []byte("done")) {
			t.Errorf("%s: answered %q", what, answer)
		}
	}
	if answer := m.says(a, c, have); len(answer) != 0 {
		t.Errorf("who is not authorised is answered %d bytes", len(answer))
	}
	if n := a.count(records); n != before {
		t.Errorf("%d records, %d before", n, before)
	}
	if d := m.describe(b); len(d.Members) != 2 {
		t.Errorf("members %q", nodesOf(d))
	}
}
