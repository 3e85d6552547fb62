package capstore_test

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// paired returns the paired nodes, and fails unless the memory says the same.
func paired(t *testing.T, s *testStore) []hostlog.PairedNode {
	t.Helper()
	list, err := s.Paired(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		if !s.PairedWith(p.Peer) {
			t.Errorf("%s is not known in memory", p.Peer)
		}
	}
	if n := s.PairedCount(); n != len(list) {
		t.Errorf("%d nodes in memory, %d in the database", n, len(list))
	}
	return list
}

func TestPairedNodes(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		c := newClock()
		path := newDatabase(t)
		s := open(t, "one", c, path)
		since := c.now().UTC()
		pair := func(p hostlog.PairedNode) {
			t.Helper()
			if err := s.Pair(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		pair(hostlog.PairedNode{Peer: "b", Addrs: []string{"/ip4/1.2.3.4/tcp/1"}, Back: true})
		c.ms.Add(5)
		pair(hostlog.PairedNode{Peer: "b", Addrs: []string{"/ip4/1.2.3.4/tcp/2", "/ip4/1.2.3.4/tcp/1"}})
		pair(hostlog.PairedNode{Peer: "a", Since: since.Add(time.Second)})
		want := []hostlog.PairedNode{
			{Peer: "a", Addrs: []string{}, Since: since.Add(time.Second)},
			{Peer: "b", Addrs: []string{"/ip4/1.2.3.4/tcp/2", "/ip4/1.2.3.4/tcp/1"}, Back: true, Since: since},
		}
		if got := paired(t, s); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v", got)
		}
		if kind(t) != onMemory { // it has a life after this process
			s.stop()
			s = open(t, "one", c, path)
			if got := paired(t, s); !reflect.DeepEqual(got, want) {
				t.Errorf("after a restart: %+v", got)
			}
		}
		if err := s.Unpair(t.Context(), "b"); err != nil || s.PairedWith("b") {
			t.Error(err)
		}
		if err := s.Unpair(t.Context(), "b"); !errors.Is(err, tinycloud.ErrNotFound) {
			t.Error(err)
		}
		if got := paired(t, s); !reflect.DeepEqual(got, want[:1]) {
			t.Errorf("%+v", got)
		}
	})
}

func TestPairedBounds(t *testing.T) {
	s := openNew(t, "one", newClock())
	for i := range capstore.MaxPaired {
		if err := s.Pair(t.Context(), hostlog.PairedNode{Peer: fmt.Sprint("peer", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Pair(t.Context(), hostlog.PairedNode{Peer: "more"}); !errors.Is(err, tinycloud.ErrBusy) {
		t.Error(err)
	}
	addrs := make([]string, hostlog.MaxPairedAddrs)
	for round := range 2 { // those of a node that is known are replaced, the oldest first
		for i := range addrs {
			addrs[i] = fmt.Sprintf("/ip4/1.2.3.4/tcp/%d", 1000*round+i)
		}
		if err := s.Pair(t.Context(), hostlog.PairedNode{Peer: "peer7", Addrs: addrs}); err != nil {
			t.Fatal(err)
		}
	}
	list := paired(t, s)
	if len(list) != capstore.MaxPaired {
		t.Errorf("%d nodes", len(list))
	}
	for _, p := range list {
		if p.Peer == "peer7" && !reflect.DeepEqual(p.Addrs, addrs) {
			t.Errorf("%q", p.Addrs)
		}
	}
	for name, p := range map[string]hostlog.PairedNode{
		"no peer":            {},
		"a long peer id":     {Peer: string(make([]byte, 200))},
		"too many addresses": {Peer: "p", Addrs: append(addrs, "/ip4/1.2.3.4")},
		"a long address":     {Peer: "p", Addrs: []string{string(make([]byte, 2000))}},
	} {
		if err := s.Pair(t.Context(), p); !errors.Is(err, tinycloud.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whoever uses the database is told that pairs came or went, and knows them.
func TestPairsAreTold(t *testing.T) {
	s := openNew(t, "one", newClock())
	if err := s.Pair(t.Context(), hostlog.PairedNode{Peer: "p"}); err != nil {
		t.Fatal(err)
	}
	if told := s.told(); len(told) != 1 || !told[0].Pairs {
		t.Errorf("%+v", told)
	}
	if err := s.Unpair(t.Context(), "p"); err != nil {
		t.Fatal(err)
	}
	if told := s.told(); len(told) != 2 || !told[1].Pairs {
		t.Errorf("%+v", told)
	}
	onServers(t, func(t *testing.T) {
		c, url := newClock(), newDatabase(t)
		a := open(t, "one", c, url)
		told := make(chan capstore.Commit, 100)
		b := openWith(t, "one", c, url, func(o *capstore.Options) { o.Committed = func(c capstore.Commit) { told <- c } })
		for _, pairedNow := range []bool{true, false} {
			change := func() error { return a.Pair(t.Context(), hostlog.PairedNode{Peer: "p", Back: true}) }
			if !pairedNow {
				change = func() error { return a.Unpair(t.Context(), "p") }
			}
			if err := change(); err != nil {
				t.Fatal(err)
			}
			select {
			case c := <-told:
				if !c.Pairs || b.PairedWith("p") != pairedNow {
					t.Errorf("%+v, paired %v", c, b.PairedWith("p"))
				}
			case <-time.After(10 * time.Second):
				t.Fatal("not told")
			}
		}
	})
}
