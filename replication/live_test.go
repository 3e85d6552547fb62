package replication_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire/wiretest"
)

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
		bundles := nodes[1].bundles()
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
			{"good", nodes[1], wiretest.BatchMessage(last), nil},
			{"announcement", nodes[1], replication.AnnounceMessage(last), nil},
			{"garbage", nodes[1], []byte("garbage"), tinycloud.ErrInvalid},
			{"nothing", nodes[1], nil, tinycloud.ErrInvalid},
			{"other message", nodes[1], wiretest.SampleMessages()["open"], tinycloud.ErrInvalid},
			{"too long", nodes[1], make([]byte, wire.MaxGossip+1), tinycloud.ErrInvalid},
			{"forged entry", nodes[1], wiretest.BatchMessage(forged), tinycloud.ErrForged},
			{"forged announcement", nodes[1], replication.AnnounceMessage(forged), tinycloud.ErrForged},
			{"other event", nodes[1], wiretest.BatchMessage(other), tinycloud.ErrForged},
			{"entry of another space", nodes[1], replication.AnnounceMessage(foreign), tinycloud.ErrInvalid},
			{"unknown sender", &node{id: "someone"}, wiretest.BatchMessage(last), tinycloud.ErrUnauthorized},
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
			if err := nodes[0].r.Check(context.Background(), nodes[1].id, wiretest.BatchMessage(last)); errors.Is(err, tinycloud.ErrBusy) {
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
		if err := nodes[0].r.Check(t.Context(), nodes[1].id, wiretest.BatchMessage(last)); err != nil {
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
	add(10, 4097)             // its value does not travel
	add(63_000, 4096)         // nor does this one's, for lack of room
	add(wire.MaxGossip - 100) // only announced
	add(wire.MaxGossip + 100) // only announced
	messages, large := replication.PackLive(bundles)
	got, values := 0, 0
	for _, m := range messages {
		if len(m) > wire.MaxGossip {
			t.Errorf("message of %d bytes", len(m))
		}
		back, err := wiretest.Bundles(space, m)
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
	if messages, _ = replication.PackLive(bundles); len(messages) != 2 || len(must(wiretest.Bundles(space, messages[0]))) != 2 {
		t.Errorf("%d messages", len(messages))
	}
}
