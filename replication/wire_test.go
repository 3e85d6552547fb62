package replication_test

import (
	"bytes"
	order "cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

// sampleBundles makes bundles of two hosts, with a fork, that only look like the real thing.
func sampleBundles(space tinycloud.SpaceID) []hostlog.Bundle {
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

func TestBatchRoundTrip(t *testing.T) {
	space := captest.NewWallet("wire").Space("default")
	want := sampleBundles(space)
	b := replication.BatchMessage(want...)
	got, err := replication.Bundles(space, b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(tinycloud.SpaceID{}), cmp.Comparer(func(a, b tinycloud.SpaceID) bool { return a == b }), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	payload := 0
	for _, x := range want {
		payload += len(x.Epoch) + len(x.Sig) + 3 // operations
		for _, e := range x.Events {
			payload += len(e)
		}
		for _, im := range x.Imported {
			payload += len(im.Epoch) + len(im.Events[0])
		}
	}
	if over := (len(b) - payload - 2*34) / len(want); over > 70 {
		t.Errorf("%d bytes around each bundle", over)
	}
}

func TestBatchHasOneSpelling(t *testing.T) {
	space := captest.NewWallet("wire").Space("default")
	good := replication.BatchMessage(sampleBundles(space)...)
	accepted := 0
	for i := range good {
		for _, bit := range []byte{1, 0x20, 0x80} {
			b := bytes.Clone(good)
			b[i] ^= bit
			_, again, err := replication.Spell(space, b)
			if err == nil && !bytes.Equal(again, b) {
				t.Fatalf("byte %d: accepted in two spellings", i)
			}
			const name = len("\xa1\x65batch") // with another one it is a message of another kind
			if err != nil && !errors.Is(err, tinycloud.ErrInvalid) && (i >= name || !errors.Is(err, tinycloud.ErrUnsupported)) {
				t.Fatalf("byte %d: %v", i, err)
			}
			if err == nil {
				accepted++
			}
		}
	}
	if accepted == 0 {
		t.Error("no change of content was accepted: the test changes nothing")
	}
	for _, tail := range [][]byte{{0}, good} {
		if _, _, err := replication.Spell(space, append(bytes.Clone(good), tail...)); !errors.Is(err, tinycloud.ErrInvalid) {
			t.Errorf("bytes after the message: %v", err)
		}
	}
}

func FuzzMessage(f *testing.F) {
	space := captest.NewWallet("wire").Space("default")
	seeds := replication.SampleMessages()
	seeds["batch"] = replication.BatchMessage(sampleBundles(space)...)
	if len(seeds) != 17 {
		f.Fatal("a kind of message has no seed")
	}
	for name, b := range seeds {
		if _, again, err := replication.Spell(space, b); err != nil || !bytes.Equal(again, b) {
			f.Fatalf("seed %s: %v", name, err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, again, err := replication.Spell(space, b)
		if err != nil {
			if !errors.Is(err, tinycloud.ErrInvalid) && !errors.Is(err, tinycloud.ErrUnsupported) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(reduced(t, b, again), again) {
			t.Fatalf("%x\nencodes again as\n%x", b, again)
		}
	})
}

// reduced is a message without the fields that another one does not have, byte for byte: what is left has one spelling.
func reduced(t *testing.T, b, to []byte) []byte {
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
		return order.Or(order.Compare(len(a), len(b)), strings.Compare(a, b))
	}) {
		out = append(append(append(out, 0x60|byte(len(name))), name...), all[name]...)
	}
	return out
}

// withField adds a field to an encoded message.
func withField(t testing.TB, b []byte, name string, value any) []byte {
	t.Helper()
	var all map[string]cbor.RawMessage
	raw, err := cbor.Marshal(value)
	if err = errors.Join(err, cbor.Unmarshal(b, &all)); err != nil {
		t.Fatal(err)
	}
	all[name] = raw
	mode := must(cbor.EncOptions{Sort: cbor.SortLengthFirst}.EncMode())
	return must(mode.Marshal(all))
}

// What a newer release adds is passed over; what it says beside that is read as ever.
func TestFieldsOfNewerReleases(t *testing.T) {
	space := captest.NewWallet("wire").Space("default")
	seeds := replication.SampleMessages()
	seeds["batch"] = replication.BatchMessage(sampleBundles(space)...)
	for name, b := range seeds {
		for _, added := range []string{"a", "zz", "longer than any other"} {
			more := withField(t, b, added, []any{1, "x", map[string]int{"y": 2}})
			if _, again, err := replication.Spell(space, more); err != nil || !bytes.Equal(again, b) {
				t.Errorf("%s with %q: %v", name, added, err)
			}
		}
	}
	one := seeds["open"]
	foreign := withField(t, []byte{0xa0}, "newer", 1)
	swapped := bytes.Replace(withField(t, one, "a", 1), append([]byte{0x61, 'a', 1}, one[1:]...), append(bytes.Clone(one[1:]), 0x61, 'a', 1), 1)
	for name, tt := range map[string]struct {
		b    []byte
		want error
	}{
		"a kind that is not known": {foreign, tinycloud.ErrUnsupported},
		"nothing":                  {[]byte{0xa0}, tinycloud.ErrInvalid},
		"two meanings":             {withField(t, one, "ack", []any{1}), tinycloud.ErrInvalid},
		"two of one name":          {append([]byte{0xa3, 0x61, 'a', 1, 0x61, 'a', 2}, one[1:]...), tinycloud.ErrInvalid},
		"in another order":         {swapped, tinycloud.ErrInvalid},
		"a number for a name":      {append([]byte{0xa2, 1, 1}, one[1:]...), tinycloud.ErrInvalid},
		"without an end":           {append([]byte{0xa2, 0x61, 'a', 0x9f, 0xff}, one[1:]...), tinycloud.ErrInvalid},
		"bytes after it":           {append(withField(t, one, "a", 1), 0), tinycloud.ErrInvalid},
	} {
		if _, _, err := replication.Spell(space, tt.b); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

// fixed is a stream that gives the same bytes to whoever reads.
type fixed struct{ *bytes.Reader }

func (fixed) Write(p []byte) (int, error)      { return len(p), nil }
func (fixed) SetReadDeadline(time.Time) error  { return nil }
func (fixed) SetWriteDeadline(time.Time) error { return nil }

func FuzzFrames(f *testing.F) {
	f.Add(replication.Frame([]byte("abc")))
	f.Add(append(replication.Frame(bytes.Repeat([]byte{1}, 300)), 0x80, 0x00))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		frames, err := replication.ReadFrames(fixed{bytes.NewReader(b)}, 1<<16)
		var again []byte
		for _, x := range frames {
			if len(x) == 0 || len(x) > 1<<16 {
				t.Fatalf("frame of %d bytes", len(x))
			}
			again = append(again, replication.Frame(x)...)
		}
		if !bytes.HasPrefix(b, again) {
			t.Fatal("the frames are not what was sent")
		}
		if errors.Is(err, io.EOF) && !bytes.Equal(again, b) {
			t.Fatal("bytes were lost")
		}
	})
}

func FuzzRecord(f *testing.F) {
	seed := signedRecord(f)
	if err := replication.TryRecord(seed); err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		err := replication.TryRecord(b)
		if err != nil && !errors.Is(err, tinycloud.ErrInvalid) && !errors.Is(err, tinycloud.ErrForged) {
			t.Fatal(err)
		}
	})
}

func TestCheckRejects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("check")
		nodes := cluster(t, f, o, 2)
		f.setLoss(func(_, _ peerID) bool { return true })
		nodes[1].put("a", "1")
		var bundles []hostlog.Bundle
		err := nodes[1].store.Missing(t.Context(), o.space, nil, 4096, func(b hostlog.Bundle) error {
			bundles = append(bundles, b)
			return nil
		})
		if err != nil || len(bundles) == 0 {
			t.Fatal(bundles, err)
		}
		last := bundles[len(bundles)-1]
		forged := last
		forged.Sig[3] ^= 1
		swapped := last
		swapped.Values = []hostlog.Value{{Bytes: []byte("other")}}
		other := last
		other.Events = [][]byte{[]byte("other")}
		foreign := last
		foreign.Entry.Space = captest.NewWallet("else").Space("default")
		foreign.Sig = hostlog.Signature(ed25519.Sign(nodes[1].key(), digestToSign(foreign.Entry)))
		for _, tt := range []struct {
			name string
			from *node
			data []byte
			want error
		}{
			{"good", nodes[1], replication.BatchMessage(last), nil},
			{"announcement", nodes[1], replication.AnnounceMessage(last), nil},
			{"garbage", nodes[1], []byte("garbage"), tinycloud.ErrInvalid},
			{"nothing", nodes[1], nil, tinycloud.ErrInvalid},
			{"other message", nodes[1], replication.SampleMessages()["open"], tinycloud.ErrInvalid},
			{"too long", nodes[1], make([]byte, replication.MaxGossip+1), tinycloud.ErrInvalid},
			{"forged entry", nodes[1], replication.BatchMessage(forged), tinycloud.ErrForged},
			{"forged announcement", nodes[1], replication.AnnounceMessage(forged), tinycloud.ErrForged},
			{"other event", nodes[1], replication.BatchMessage(other), tinycloud.ErrForged},
			{"entry of another space", nodes[1], replication.AnnounceMessage(foreign), tinycloud.ErrInvalid},
			{"unknown sender", &node{id: "someone"}, replication.BatchMessage(last), tinycloud.ErrUnauthorized},
		} {
			err := nodes[0].r.Check(context.Background(), tt.from.id, tt.data)
			if !errors.Is(err, tt.want) || (tt.want == nil) != (err == nil) {
				t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
			}
			<-time.After(replication.OffenceLife + time.Second) // one alone does not cut a host off
		}
		synctest.Wait()
		if got := nodes[0].get("a"); got != "1" {
			t.Errorf("after the good message a = %q", got)
		}
		limited := 0
		for range 6000 {
			if err := nodes[0].r.Check(context.Background(), nodes[1].id, replication.BatchMessage(last)); errors.Is(err, tinycloud.ErrBusy) {
				limited++
			}
		}
		if limited < 900 || limited > 1100 {
			t.Errorf("%d of 6,000 messages at once were over the limit", limited)
		}
		f.setLoss(nil)
		same(t, nodes...)
	})
}

// A host that signs an entry as ZIP 215 allows, and the standard library does not, gets nobody banned: announced or whole,
// the entry is taken.
func TestEntryWithTorsion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("torsion")
		nodes := cluster(t, f, o, 2)
		nodes[1].put("a", "1")
		var last hostlog.Bundle
		err := nodes[1].store.Missing(t.Context(), o.space, nil, 4096, func(b hostlog.Bundle) error {
			if b.Entry.Host == nodes[1].host() {
				last = b
			}
			return nil
		})
		if err != nil || last.Epoch == nil {
			t.Fatal(err)
		}
		last.Entry.At++ // another entry of that number
		last.Sig = hostlog.Signature(captest.SignWithTorsion(nodes[1].key(), digestToSign(last.Entry)))
		if err := nodes[0].r.Check(t.Context(), nodes[1].id, replication.AnnounceMessage(last)); err != nil {
			t.Errorf("announced: %v", err)
		}
		if err := nodes[0].r.Check(t.Context(), nodes[1].id, replication.BatchMessage(last)); err != nil {
			t.Errorf("whole: %v", err)
		}
		synctest.Wait()
		if got := nodes[0].accuses(); len(got) > 0 {
			t.Errorf("%v are accused", got)
		}
	})
}

func TestGossipMessagesFit(t *testing.T) {
	space := captest.NewWallet("wire").Space("default")
	var bundles []hostlog.Bundle
	write := []byte{0xa0}
	add := func(event int, values ...int) {
		epoch := fmt.Appendf(nil, "epoch %d", len(bundles))
		b := hostlog.Bundle{Epoch: epoch, Events: [][]byte{make([]byte, event)}, Ops: [][]byte{write}, Entry: hostlog.Entry{
			Space: space, Host: hostlog.Key{byte(len(bundles) % 5)}, N: 1 << 40, Epoch: tinycloud.Sum(epoch), At: 1 << 41,
		}}
		for _, n := range values {
			v := make([]byte, n)
			b.Values = append(b.Values, hostlog.Value{Hash: tinycloud.Sum(v), Bytes: v})
		}
		bundles = append(bundles, b)
	}
	for i := range 600 {
		add(i*7%2000, i%4096)
	}
	add(10, 4097)                    // its value does not travel
	add(63_000, 4096)                // nor does this one's, for lack of room
	add(replication.MaxGossip - 100) // only announced
	add(replication.MaxGossip + 100) // only announced
	messages, large := replication.PackLive(bundles)
	got, values := 0, 0
	for _, m := range messages {
		if len(m) > replication.MaxGossip {
			t.Errorf("message of %d bytes", len(m))
		}
		back, err := replication.Bundles(space, m)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range back {
			values += len(b.Values) + len(b.Large)
		}
		got += len(back)
	}
	if got != 602 || large != 2 || values != 602 || len(messages) < 10 || len(messages) > 60 {
		t.Errorf("%d bundles with %d values or hints in %d messages, %d large", got, values, len(messages), large)
	}
	bundles = bundles[:4]
	bundles[1].Ops = nil // as of a revocation: it ends its message
	if messages, _ = replication.PackLive(bundles); len(messages) != 2 || len(must(replication.Bundles(space, messages[0]))) != 2 {
		t.Errorf("%d messages", len(messages))
	}
}

// A log that is forked without end, and strangers' logs, leave room for the tips of all that are long.
func TestMostTips(t *testing.T) {
	tip := func(host byte, n, k int) hostlog.Tip {
		return hostlog.Tip{Host: hostlog.Key{host}, N: uint64(n), Digest: tinycloud.Sum(fmt.Appendf(nil, "%d %d", host, k))}
	}
	honest := []hostlog.Tip{tip(250, 700, 0), tip(3, 40, 0), tip(3, 39, 1)}
	tips := slices.Clone(honest)
	for k := range 500 {
		tips = append(tips, tip(100, 30+k%2, k))
	}
	for k := range 20 {
		tips = append(tips, tip(byte(200+k), k%3, 0))
	}
	got := replication.MostTips(tips, 25)
	if len(got) != 25 {
		t.Fatalf("%d tips", len(got))
	}
	for _, want := range append(slices.Clone(honest[:2]), tips[3+1]) {
		if !slices.ContainsFunc(got, func(x hostlog.Tip) bool { return x.Host == want.Host && x.N == want.N }) {
			t.Errorf("no tip %d of %x", want.N, want.Host[0])
		}
	}
	if few := replication.MostTips(tips[:9], 9); !slices.Equal(few, tips[:9]) {
		t.Errorf("%v", few)
	}
}
