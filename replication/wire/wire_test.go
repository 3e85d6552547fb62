package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire/wiretest"
)

func TestBatchRoundTrip(t *testing.T) {
	space := captest.NewWallet("wire").Space("default")
	want := wiretest.SampleBundles(space)
	b := wiretest.BatchMessage(want...)
	got, err := wiretest.Bundles(space, b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(tinycloud.SpaceID{}), cmp.Comparer(func(a, b tinycloud.SpaceID) bool { return a == b }), cmpopts.EquateEmpty(), cmpopts.IgnoreFields(hostlog.Bundle{}, "Digest")); diff != "" {
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

// The form of a batch that is written and read by hand is the one that the general codec has.
func TestPlainBatch(t *testing.T) {
	space := captest.NewWallet("wire").Space("default")
	all := wiretest.SampleBundles(space)
	all = slices.DeleteFunc(all, func(b hostlog.Bundle) bool { return len(b.Imported) > 0 })
	large := all[0]
	large.Large = []hostlog.Large{{Hash: tinycloud.Sum([]byte("large")), Size: 1 << 33, Manifest: tinycloud.Sum([]byte("manifest"))}, {Size: 23}}
	large.Values = []hostlog.Value{{Bytes: []byte{}}, {Bytes: make([]byte, 300)}}
	large.Entry.At = 24
	for name, bundles := range map[string][]hostlog.Bundle{"sample": all, "large": {large}, "none": {}, "both": append([]hostlog.Bundle{large}, all...)} {
		m, err := wire.PackBundles(bundles)
		if err != nil {
			t.Fatal(name, err)
		}
		want := wiretest.Encoded(wire.Message{Batch: m})
		got, ok := wire.AppendBatch([]byte{}, m)
		if !ok || !bytes.Equal(got, want) {
			t.Errorf("%s: %v, by hand\n%x, want\n%x", name, ok, got, want)
		}
		read, ok := wire.BatchOf(want)
		if !ok {
			t.Fatalf("%s: is not read", name)
		}
		var general wire.Message
		if err := wire.Decode(want, &general); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(general.Batch, read, cmpopts.EquateEmpty(), cmp.Exporter(func(reflect.Type) bool { return true })); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		for i := range want {
			for _, bit := range []byte{1, 0x20} {
				samePlain(t, append(append(bytes.Clone(want[:i]), want[i]^bit), want[i+1:]...))
			}
		}
		samePlain(t, append(bytes.Clone(want), 0))
		samePlain(t, want[:len(want)-1])
	}
}

// samePlain holds that what is read by hand is what the general codec writes so.
func samePlain(tb testing.TB, b []byte) {
	tb.Helper()
	read, ok := wire.BatchOf(b)
	if !ok {
		return
	}
	if again := wiretest.Encoded(wire.Message{Batch: read}); !bytes.Equal(again, b) {
		tb.Fatalf("%x\nis read by hand, and is\n%x", b, again)
	}
}

func TestBatchHasOneSpelling(t *testing.T) {
	space := captest.NewWallet("wire").Space("default")
	good := wiretest.BatchMessage(wiretest.SampleBundles(space)...)
	accepted := 0
	for i := range good {
		for _, bit := range []byte{1, 0x20, 0x80} {
			b := bytes.Clone(good)
			b[i] ^= bit
			_, again, err := wiretest.Spell(space, b)
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
		if _, _, err := wiretest.Spell(space, append(bytes.Clone(good), tail...)); !errors.Is(err, tinycloud.ErrInvalid) {
			t.Errorf("bytes after the message: %v", err)
		}
	}
}

func FuzzMessage(f *testing.F) {
	space := captest.NewWallet("wire").Space("default")
	seeds := wiretest.SampleMessages()
	seeds["batch"] = wiretest.BatchMessage(wiretest.SampleBundles(space)...)
	if len(seeds) != 16 {
		f.Fatal("a kind of message has no seed")
	}
	for name, b := range seeds {
		if _, again, err := wiretest.Spell(space, b); err != nil || !bytes.Equal(again, b) {
			f.Fatalf("seed %s: %v", name, err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		samePlain(t, b)
		_, again, err := wiretest.Spell(space, b)
		if err != nil {
			if !errors.Is(err, tinycloud.ErrInvalid) && !errors.Is(err, tinycloud.ErrUnsupported) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(wiretest.Reduced(t, b, again), again) {
			t.Fatalf("%x\nencodes again as\n%x", b, again)
		}
	})
}

// What a newer release adds is passed over; what it says beside that is read as ever.
func TestFieldsOfNewerReleases(t *testing.T) {
	space := captest.NewWallet("wire").Space("default")
	seeds := wiretest.SampleMessages()
	seeds["batch"] = wiretest.BatchMessage(wiretest.SampleBundles(space)...)
	for name, b := range seeds {
		for _, added := range []string{"a", "zz", "longer than any other"} {
			more := wiretest.WithField(t, b, added, []any{1, "x", map[string]int{"y": 2}})
			if _, again, err := wiretest.Spell(space, more); err != nil || !bytes.Equal(again, b) {
				t.Errorf("%s with %q: %v", name, added, err)
			}
		}
	}
	one := seeds["open"]
	foreign := wiretest.WithField(t, []byte{0xa0}, "newer", 1)
	swapped := bytes.Replace(wiretest.WithField(t, one, "a", 1), append([]byte{0x61, 'a', 1}, one[1:]...), append(bytes.Clone(one[1:]), 0x61, 'a', 1), 1)
	for name, tt := range map[string]struct {
		b    []byte
		want error
	}{
		"a kind that is not known": {foreign, tinycloud.ErrUnsupported},
		"nothing":                  {[]byte{0xa0}, tinycloud.ErrInvalid},
		"two meanings":             {wiretest.WithField(t, one, "ack", []any{1}), tinycloud.ErrInvalid},
		"two of one name":          {append([]byte{0xa3, 0x61, 'a', 1, 0x61, 'a', 2}, one[1:]...), tinycloud.ErrInvalid},
		"in another order":         {swapped, tinycloud.ErrInvalid},
		"a number for a name":      {append([]byte{0xa2, 1, 1}, one[1:]...), tinycloud.ErrInvalid},
		"without an end":           {append([]byte{0xa2, 0x61, 'a', 0x9f, 0xff}, one[1:]...), tinycloud.ErrInvalid},
		"bytes after it":           {append(wiretest.WithField(t, one, "a", 1), 0), tinycloud.ErrInvalid},
	} {
		if _, _, err := wiretest.Spell(space, tt.b); !errors.Is(err, tt.want) {
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
	f.Add(wiretest.Frame([]byte("abc")))
	f.Add(append(wiretest.Frame(bytes.Repeat([]byte{1}, 300)), 0x80, 0x00))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		frames, err := wiretest.ReadFrames(fixed{bytes.NewReader(b)}, 1<<16)
		var again []byte
		for _, x := range frames {
			if len(x) == 0 || len(x) > 1<<16 {
				t.Fatalf("frame of %d bytes", len(x))
			}
			again = append(again, wiretest.Frame(x)...)
		}
		if !bytes.HasPrefix(b, again) {
			t.Fatal("the frames are not what was sent")
		}
		if errors.Is(err, io.EOF) && !bytes.Equal(again, b) {
			t.Fatal("bytes were lost")
		}
	})
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
	got := wire.MostTips(tips, 25)
	if len(got) != 25 {
		t.Fatalf("%d tips", len(got))
	}
	for _, want := range append(slices.Clone(honest[:2]), tips[3+1]) {
		if !slices.ContainsFunc(got, func(x hostlog.Tip) bool { return x.Host == want.Host && x.N == want.N }) {
			t.Errorf("no tip %d of %x", want.N, want.Host[0])
		}
	}
	if few := wire.MostTips(tips[:9], 9); !slices.Equal(few, tips[:9]) {
		t.Errorf("%v", few)
	}
}

func FuzzGreeting(f *testing.F) {
	told := wiretest.Told(servicetest.Hello())
	for _, frame := range [][]byte{
		wiretest.FieldsNonce([32]byte{1}),
		wiretest.Proof(wire.Nonces{Version: wire.HelloProtocol}, [32]byte{2}, [][]byte{[]byte("token"), {}}, told),
	} {
		_, head := binary.Uvarint(frame)
		body := frame[head:]
		if again, err := wiretest.TryGreeting(body); err != nil || !bytes.Equal(again, body) {
			f.Fatal(err)
		}
		f.Add(body)
		f.Add(wiretest.WithField(f, body, "newer", 1))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		again, err := wiretest.TryGreeting(b)
		if err != nil {
			if !errors.Is(err, tinycloud.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(wiretest.Reduced(t, b, again), again) {
			t.Fatalf("%x\nencodes again as\n%x", b, again)
		}
	})
}

func FuzzTold(f *testing.F) {
	own := wiretest.Told(servicetest.Hello())
	f.Add(own)
	f.Add(wiretest.WithField(f, own, "newer", 1))
	f.Add(wiretest.Told(hostlog.Hello{Rules: 1 << 40}))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := wire.DecodeTold(b)
		if err != nil {
			if !errors.Is(err, tinycloud.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if h.Rules == 0 || h.Check() != nil || len(b) > 4<<10 {
			t.Fatalf("%+v", h)
		}
		again := wiretest.Told(h)
		if !bytes.Equal(wiretest.Reduced(t, b, again), again) {
			t.Fatalf("%x\nencodes again as\n%x", b, again)
		}
		back, err := wire.DecodeTold(again)
		if err != nil || back.Rules != h.Rules || !slices.Equal(back.Services, h.Services) {
			t.Fatalf("%+v, %v", back, err)
		}
	})
}

// TestPacker packs a batch again and again into the same memory, and one that is longer than a frame in between.
func TestPacker(t *testing.T) {
	space := captest.NewWallet("wire").Space("default")
	all := wiretest.SampleBundles(space)
	large := all[0]
	large.Values = []hostlog.Value{{Bytes: make([]byte, wire.MaxFrame)}}
	var p wire.Packer
	for i := range 6 {
		bundles := all
		if i == 3 {
			bundles = []hostlog.Bundle{large}
		}
		out, err := p.Frames(bundles)
		if err != nil {
			t.Fatal(err)
		}
		if i == 3 {
			var joiner wire.Joiner
			for _, b := range out {
				m, err := wire.DecodeMessage(b)
				if err == nil {
					m, err = joiner.Add(m.Part)
				}
				if err != nil {
					t.Fatal(err)
				}
				if m != nil && len(m.Batch.Entries) != 1 {
					t.Errorf("%d bundles", len(m.Batch.Entries))
				}
			}
			if len(out) < 2 || joiner.Within() {
				t.Errorf("%d parts", len(out))
			}
		} else if len(out) != 1 || !bytes.Equal(out[0], wiretest.BatchMessage(all...)) {
			t.Errorf("%d frames, or others than the general codec's", len(out))
		}
	}
}
