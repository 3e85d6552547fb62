package capstore_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
)

// What another host told last of its release is kept, over restarts too, and written only when it changes.
func TestSaveHello(t *testing.T) { everywhere(t, testSaveHello) }

func testSaveHello(t *testing.T) {
	c := newClock()
	o := newOwner(t, "alice", c)
	a, b := openNew(t, "a", c), openNew(t, "b", c)
	o.member(a)
	o.member(b)
	a.delegate(o.header)
	b.pull(a, o.space)
	a.pull(b, o.space)
	other := b.host(o.space)
	stored := func(s *testStore) hostlog.Host {
		t.Helper()
		hosts, err := s.Hosts(t.Context(), o.space)
		if err != nil || len(hosts) != 2 {
			t.Fatalf("%+v, %v", hosts, err)
		}
		if diff := cmp.Diff(servicetest.Hello(), hosts[0].Hello); diff != "" || hosts[0].OlderThan(capstore.Rules) {
			t.Error(diff)
		}
		return hosts[1]
	}
	if h := stored(a); h.Met || h.OlderThan(capstore.Rules) {
		t.Errorf("never met: %+v", h)
	}
	if err := a.SaveAddrs(t.Context(), o.space, other, []string{"/dns/b"}, 7); err != nil {
		t.Fatal(err)
	}
	newer := hostlog.Hello{Rules: capstore.Rules + 1, Services: []hostlog.Service{{Name: "kv", Version: 2}, {Name: "<&>", Version: 1}}}
	for i, step := range []struct {
		hello          hostlog.Hello
		changed, older bool
	}{
		{hostlog.Hello{}, true, true},
		{hostlog.Hello{}, false, true},
		{servicetest.Hello(), true, false},
		{servicetest.Hello(), false, false},
		{newer, true, false},
		{hostlog.Hello{Rules: capstore.Rules - 1}, true, true},
		{hostlog.Hello{}, true, true}, // it went back to an old release
	} {
		changed, err := a.SaveHello(t.Context(), o.space, other, step.hello)
		if err != nil || changed != step.changed {
			t.Errorf("step %d: changed %t, %v", i, changed, err)
		}
		h := stored(a)
		if !h.Met || h.OlderThan(capstore.Rules) != step.older || len(h.Addrs) != 1 || h.Seq != 7 || h.Hello.Rules != step.hello.Rules || len(h.Hello.Services) != len(step.hello.Services) {
			t.Errorf("step %d: %+v", i, h)
		}
	}
	for _, bad := range []hostlog.Hello{
		{Rules: 1 << 40}, {Services: make([]hostlog.Service, 33)}, {Services: []hostlog.Service{{Name: strings.Repeat("s", 33)}}},
	} {
		if _, err := a.SaveHello(t.Context(), o.space, other, bad); !errors.Is(err, tinycloud.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if _, err := a.SaveHello(t.Context(), captest.NewWallet("else").Space("elsewhere"), other, servicetest.Hello()); !errors.Is(err, tinycloud.ErrNotFound) {
		t.Errorf("of a space that is not here: %v", err)
	}
	if a.path == capstore.InMemory {
		return
	}
	a.stop()
	if h := stored(open(t, "a", c, a.path)); !h.OlderThan(capstore.Rules) || !h.Met {
		t.Errorf("after a restart %+v", h)
	}
}

// Beside a host that is known to judge by older rules past values stay: neither their age nor their size frees them,
// until it is upgraded, removed, or its delegation has ended.
func TestPastValuesBesideOlderHosts(t *testing.T) { everywhere(t, testPastValuesBesideOlderHosts) }

func testPastValuesBesideOlderHosts(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, o *owner, a, b *testStore, header string){
		"upgraded": func(t *testing.T, o *owner, a, b *testStore, _ string) {
			if _, err := a.SaveHello(t.Context(), o.space, b.host(o.space), servicetest.Hello()); err != nil {
				t.Fatal(err)
			}
		},
		"removed": func(t *testing.T, o *owner, a, _ *testStore, header string) {
			rev, err := capstore.ParseRevocation(o.wallet.SignRevocation(captest.ID(header)))
			if err == nil {
				err = a.Revoke(t.Context(), rev)
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		"out of window": func(_ *testing.T, o *owner, _, _ *testStore, _ string) {
			o.clock.ms.Add((48 * time.Hour).Milliseconds())
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			o := newOwner(t, "alice", c)
			a, b := openNew(t, "a", c), openNew(t, "b", c)
			o.member(a)
			options := captest.HostOptions(o.space, b.host(o.space).String())
			options.IssuedAt, options.Expires = c.now(), c.now().Add(48*time.Hour)
			header := o.wallet.SignDelegation(options)
			a.delegate(header)
			a.delegate(o.header)
			write := func(value string, size int64) {
				t.Helper()
				op := kv.Op{Space: o.space, Key: "k", Value: tinycloud.Sum([]byte(value)), Size: size}
				if _, err := a.Write(t.Context(), o.invoke(t, "k", "tinycloud.kv/put"), []kv.Op{op}, nil); err != nil {
					t.Fatal(err)
				}
			}
			expire := func() {
				t.Helper()
				if err := a.Expire(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := a.SaveHello(t.Context(), o.space, b.host(o.space), hostlog.Hello{}); err != nil {
				t.Fatal(err)
			}
			for _, value := range []string{"first", "second", "third"} {
				write(value, 60<<20) // two are more than may be past
			}
			c.ms.Add((25 * time.Hour).Milliseconds())
			expire()
			for _, value := range []string{"first", "second", "third"} {
				wantHeld(t, a, o.space, value, true)
			}
			end(t, o, a, b, header)
			expire()
			wantHeld(t, a, o.space, "first", false)
			wantHeld(t, a, o.space, "second", false)
			wantHeld(t, a, o.space, "third", true)
		})
	}
}
