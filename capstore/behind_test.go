package capstore_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// While later entries of its own come, a host signs nothing; then it goes on from them without a fork. One that
// heard of them too late shows both branches.
func TestRestoredHost(t *testing.T) {
	for _, early := range []bool{true, false} {
		c := newClock()
		o := newOwner(t, "alice", c)
		a, b := openNew(t, "a", c), openNew(t, "b", c)
		o.member(a)
		o.member(b)
		a.delegate(o.header)
		a.pull(b, o.space)
		b.pull(a, o.space)
		restored := openNew(t, "a", c) // its backup: what b has by now
		restored.delegate(o.signHost(restored.host(o.space)))
		restored.delegate(o.header)
		mustPut(t, o, a, "later", "x")
		b.pull(a, o.space)
		if early {
			arrived := restored.AwaitOwn(o.space)
			if err := o.put(restored, "k", "v"); !errors.Is(err, tinycloud.ErrUnavailable) {
				t.Errorf("while its own entries come: %v", err)
			}
			arrived()
		}
		restored.pull(b, o.space)
		mustPut(t, o, restored, "k", "v")
		b.pull(restored, o.space)
		hosts, err := b.Hosts(t.Context(), o.space)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range hosts {
			if h.Host == restored.host(o.space) && (!h.Forked || len(h.Forks) != 1 || h.Forks[0].N != 0 || h.Forks[0].Digests[0] == h.Forks[0].Digests[1]) {
				t.Errorf("no proof of the fork: %+v", h)
			}
		}
		if x, y := restored.status(o.space), b.status(o.space); x.StateHash != y.StateHash || x.Void != y.Void {
			t.Errorf("diverged: %+v %+v", x, y)
		}
	}
}

// A backup of a Space that was joining signs nothing either, and is not taken for an empty one.
func TestRestoredWhileJoining(t *testing.T) {
	c := newClock()
	o := newOwner(t, "alice", c)
	dir := t.TempDir()
	a := open(t, "a", c, filepath.Join(dir, "caps.db"))
	o.member(a)
	a.delegate(o.header)
	if err := a.AddJoin(t.Context(), o.space, []string{"/ip4/192.0.2.1/tcp/1"}, false); err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(dir, "backup.db")
	if err := a.Snapshot(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	restored := open(t, "a", c, backup)
	capstore.SetPatience(restored.Store, 100*time.Millisecond)
	if err := o.put(restored, "k", "v"); !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Errorf("put: %v", err)
	}
	tok, err := capstore.ParseDelegation(o.signHost(openNew(t, "b", c).host(o.space)))
	if err == nil {
		_, err = restored.Delegate(t.Context(), tok)
	}
	if !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Errorf("delegation: %v", err)
	}
	if err := restored.AddJoin(t.Context(), o.space, nil, true); err != nil {
		t.Fatal(err)
	}
	mustPut(t, o, restored, "k", "v")
}
