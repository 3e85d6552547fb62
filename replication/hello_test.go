package replication_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/protocol"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire/wiretest"
)

// hostAt returns what is stored of another node.
func (n *node) hostAt(other *node) hostlog.Host {
	n.t.Helper()
	hosts := must(n.store.Hosts(n.t.Context(), n.o.space))
	for _, h := range hosts {
		if h.Host == other.host() {
			return h
		}
	}
	n.t.Fatalf("%s does not know %s", n.name, other.name)
	return hostlog.Host{}
}

// meetAgain has two nodes part and come together.
func meetAgain(f *fabric, a, b *node) {
	f.part(a.id, b.id, true)
	synctest.Wait()
	f.part(a.id, b.id, false)
	a.r.Kick()
	b.r.Kick()
	<-time.After(time.Minute)
	synctest.Wait()
}

// Hosts tell each other what they are; one that speaks the first handshake tells nothing, and replicates all the same.
func TestHostsTellTheirRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("rules")
		nodes := cluster(t, f, o, 2)
		a, b := nodes[0], nodes[1]
		if diff := cmp.Diff(servicetest.Hello(), a.hostAt(a).Hello); diff != "" {
			t.Error(diff)
		}
		check := func(older bool) {
			t.Helper()
			for _, pair := range [][2]*node{{a, b}, {b, a}} {
				h := pair[0].hostAt(pair[1])
				if !h.Met || h.OlderThan(capstore.Rules) != older || !older && cmp.Diff(servicetest.Hello(), h.Hello) != "" || older && h.Hello.Rules != 0 {
					t.Errorf("%s takes %s for %+v", pair[0].name, pair[1].name, h)
				}
			}
		}
		check(false)
		for i, versions := range [][]protocol.ID{{wire.FirstHello}, wire.HelloProtocols()} {
			f.mu.Lock()
			b.end.greets = versions
			f.mu.Unlock()
			meetAgain(f, a, b)
			check(len(versions) == 1)
			a.put(fmt.Sprint("of-a/", i), "1")
			b.put(fmt.Sprint("of-b/", i), "1")
			same(t, nodes...)
		}
	})
}

// What a side tells is bound to its proof, and bounded; what newer releases add to it is passed over.
func TestToldIsBoundAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("told")
		n := newNode(t, f, o, "host")
		x := newOutsider(t, f, o, "outsider")
		x.greets = []protocol.ID{wire.HelloProtocol}
		chain := [][]byte{bytesOf(t, o.hosting(x.key, captest.DelegationOptions{IssuedAt: time.Now()}))}
		own := wiretest.Told(servicetest.Hello())
		services := func(count int, name string) []byte {
			h := hostlog.Hello{Rules: 1}
			for range count {
				h.Services = append(h.Services, hostlog.Service{Name: name, Version: 1 << 60})
			}
			return wiretest.Told(h)
		}
		plain := func(f []byte) []byte { return f }
		add := func(frame []byte) []byte { // a field to the proof
			_, head := binary.Uvarint(frame)
			return wiretest.Frame(wiretest.WithField(t, frame[head:], "newer", map[string]string{"a": "b"}))
		}
		for _, tt := range []struct {
			name         string
			told, tagged []byte
			change       func(frame []byte) []byte
			ok           bool
		}{
			{"this release", own, own, plain, true},
			{"a newer one", wiretest.Told(hostlog.Hello{Rules: 1000, Services: []hostlog.Service{{Name: "other", Version: 7}}}), nil, plain, true},
			{"no services", wiretest.Told(hostlog.Hello{Rules: 1}), nil, plain, true},
			{"as many as may be", services(32, strings.Repeat("s", 32)), nil, plain, true},
			{"more is told", wiretest.WithField(t, own, "newer", []int{1, 2}), nil, plain, true},
			{"more beside it", own, own, add, true},
			{"something else than the tag is for", wiretest.Told(hostlog.Hello{Rules: 1}), own, plain, false},
			{"more than the tag is for", wiretest.WithField(t, own, "newer", 1), own, plain, false},
			{"nothing", []byte{}, nil, plain, false},
			{"no rules", wiretest.Told(hostlog.Hello{}), nil, plain, false},
			{"rules without end", wiretest.Told(hostlog.Hello{Rules: 1 << 40}), nil, plain, false},
			{"too many services", services(33, "s"), nil, plain, false},
			{"a long name", services(1, strings.Repeat("s", 33)), nil, plain, false},
			{"no name", services(1, ""), nil, plain, false},
			{"a name that moves the cursor", services(1, "kv\x1b[2J"), nil, plain, false},
			{"too long", wiretest.WithField(t, own, "newer", make([]byte, 4<<10)), nil, plain, false},
			{"garbage", []byte("garbage"), nil, plain, false},
		} {
			if tt.tagged == nil {
				tt.tagged = tt.told
			}
			rest := x.greet(t, n, func(ns wire.Nonces) []byte {
				return tt.change(wiretest.Proof(ns, replication.HelloTag(o.space, x.id, n.id, ns, true, tt.tagged...), chain, tt.told))
			})
			if got := n.end.IsAuthorised(x.id); got != tt.ok || len(rest) > 0 != tt.ok {
				t.Errorf("%s: authorised %v, %d bytes came back", tt.name, got, len(rest))
			}
			synctest.Wait()
			x.Evict(n.id)
			<-x.gone
		}
	})
}

// Messages of a kind that only newer releases know, and fields that only they know, are no offences. Such gossip is
// taken but not passed on, for older hosts would blame who did.
func TestNewerMessagesAreNoOffence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("newer")
		nodes := cluster(t, f, o, 2)
		f.setLoss(func(_, _ peerID) bool { return true })
		nodes[1].put("a", "1")
		bundles := nodes[1].bundles()
		message := wiretest.BatchMessage(bundles[len(bundles)-1])
		foreign := wiretest.WithField(t, []byte{0xa0}, "newer", 1)
		for _, b := range [][]byte{wiretest.WithField(t, message, "newer", 1), foreign, foreign, foreign} {
			if err := nodes[0].r.Check(context.Background(), nodes[1].id, b); !errors.Is(err, tinycloud.ErrUnsupported) {
				t.Errorf("%v", err)
			}
		}
		synctest.Wait()
		if got := nodes[0].get("a"); got != "1" {
			t.Errorf("a = %q", got)
		}
		x := newOutsider(t, f, o, "outsider")
		x.admitted(t, nodes[0])
		for range 2 * replication.OffenceLimit {
			s, err := x.NewStream(t.Context(), nodes[0].id, wire.SyncProtocol)
			if err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = s.Write(wiretest.Frame(foreign)) }()
			if b, _ := io.ReadAll(s); len(b) > 0 {
				t.Errorf("answer %x", b)
			}
			_ = s.Close()
			synctest.Wait()
		}
		if bad := nodes[0].r.Offenders(); len(bad) > 0 || !x.connected(nodes[0].id) {
			t.Errorf("offenders %v", bad)
		}
		f.setLoss(nil)
	})
}

// A release of before asks several hosts for ranges of what it lacks. It hears that there are none, which is no offence on
// either side, and takes a stream.
func TestRangesAreNotGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("ranges")
		n := newNode(t, f, o, "host")
		x := newOutsider(t, f, o, "outsider")
		x.admitted(t, n)
		for range 2 * replication.OffenceLimit {
			s, err := x.NewStream(t.Context(), n.id, wire.SyncProtocol)
			if err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = s.Write(wiretest.Frame(wiretest.SampleMessages()["share"])) }()
			if b, _ := io.ReadAll(s); !bytes.Equal(b, wiretest.Frame(wiretest.SampleMessages()["span"])) {
				t.Errorf("answer %x", b)
			}
			_ = s.Close()
			synctest.Wait()
		}
		if bad := n.r.Offenders(); len(bad) > 0 || !x.connected(n.id) {
			t.Errorf("offenders %v", bad)
		}
	})
}
