package capstore_test

import (
	"errors"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
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
		restored.delegate(o.wallet.SignHost(o.space, restored.host(o.space).String()))
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
