package replication_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

// hiding is a store that names all its tips, and does not give some entries of one host.
type hiding struct {
	*capstore.Store
	of          hostlog.Key
	first, last uint64 // numbers, both included
}

func (h hiding) Missing(ctx context.Context, space tinycloud.SpaceID, have []hostlog.Tip, maxInline int, yield func(hostlog.Bundle) error) error {
	return h.Store.Missing(ctx, space, have, maxInline, func(b hostlog.Bundle) error {
		if b.Entry.Host == h.of && b.Entry.N >= h.first && b.Entry.N <= h.last {
			return nil
		}
		return yield(b)
	})
}

// hides has a node keep entries of another one's log to itself.
func (n *node) hides(t *testing.T, of *node, first, last uint64) {
	t.Helper()
	n.stop()
	n.lie = func(s *capstore.Store) replication.Store { return hiding{s, of.host(), first, last} }
	n.start(t)
}

// tip is the number of the last entry of a node's own log.
func (n *node) tip() (last uint64) {
	n.t.Helper()
	tips, err := n.store.Tips(context.Background(), n.o.space)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, tip := range tips {
		if tip.Host == n.host() {
			last = max(last, tip.N)
		}
	}
	return last
}

// accuses checks whether a node holds another one to have sent what no honest host sends.
func accuses(t *testing.T, n, other *node, want bool) {
	t.Helper()
	if slices.Contains(n.accuses(), other.host()) != want {
		t.Errorf("%s accuses %s: %t, want %t", n.name, other.name, !want, want)
	}
}

// A host that names entries and ends its stream without them is left for others at once, and cut off while there are
// none.
func TestStreamThatWithholds(t *testing.T) {
	for _, c := range []struct {
		name  string
		which func(last uint64) (uint64, uint64)
	}{
		{"the end", func(last uint64) (uint64, uint64) { return last - 2, last }},
		{"the middle", func(last uint64) (uint64, uint64) { return last / 2, last / 2 }},
		{"all", func(last uint64) (uint64, uint64) { return 0, last }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, o := newFabric(t), newOwner("withheld "+c.name)
				nodes := cluster(t, f, o, 3)
				liar, writer := nodes[1], nodes[2]
				for i := range 60 {
					nodes[i%3].put(fmt.Sprint("key/", i), fmt.Sprint("value ", i))
				}
				same(t, nodes...)
				first, last := c.which(writer.tip())
				liar.hides(t, writer, first, last)
				honest := []*node{nodes[0], writer}
				parted := func(n *node, apart bool) {
					for _, other := range honest {
						f.part(n.id, other.id, apart)
					}
				}
				parted(liar, true)
				both := newNode(t, f, o, "both")
				both.join(liar, nodes[0])
				if took := same(t, append(honest, both)...); took > 5*time.Second {
					t.Errorf("it took %s with honest hosts", took)
				}
				both.stop()

				late := newNode(t, f, o, "late")
				parted(late, true)
				late.join(liar)
				until(t, "it is connected", func() bool { return late.end.connected(liar.id) })
				streams, _, _ := f.talk(liar.id)
				until(t, "it is cut off", func() bool { return !late.end.connected(liar.id) })
				accuses(t, late, liar, true)
				if n, _, _ := f.talk(liar.id); n-streams > 20 {
					t.Errorf("%d streams until it was cut off", n-streams)
				}
				parted(late, false)
				late.join(nodes[0])
				if took := same(t, append(honest, late)...); took > 5*time.Second {
					t.Errorf("it took %s once there was an honest host", took)
				}
				for _, n := range []*node{nodes[0], writer, both, late} {
					for _, other := range honest {
						accuses(t, n, other, false)
					}
				}
			})
		})
	}
}

// inventing is a store that names an entry of its node which there is not.
type inventing struct {
	*capstore.Store
	host hostlog.Key
}

func (x inventing) Tips(ctx context.Context, space tinycloud.SpaceID) ([]hostlog.Tip, error) {
	tips, err := x.Store.Tips(ctx, space)
	for i := range tips {
		if tips[i].Host == x.host {
			tips[i].N, tips[i].Digest = tips[i].N+10, tinycloud.Hash{1}
		}
	}
	return tips, err
}

// A host that names an entry which there is not is found out, and keeps nobody from the history.
func TestStreamThatInvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("invented")
		nodes := cluster(t, f, o, 3)
		for i := range 60 {
			nodes[i%3].put(fmt.Sprint("key/", i), fmt.Sprint("value ", i))
		}
		same(t, nodes...)
		liar, honest := nodes[0], nodes[1:]
		liar.stop()
		liar.lie = func(s *capstore.Store) replication.Store { return inventing{s, liar.host()} }
		liar.start(t)
		for _, n := range honest {
			f.part(liar.id, n.id, true)
		}
		late := newNode(t, f, o, "late")
		late.join(nodes...)
		if took := same(t, append(slices.Clone(honest), late)...); took > 5*time.Second {
			t.Errorf("it took %s", took)
		}
		until(t, "the liar is found out", func() bool { return slices.Contains(late.accuses(), liar.host()) })
		for _, n := range honest {
			accuses(t, late, n, false)
		}
	})
}

// A newcomer of which two hosts know different branches of a forked log gets both, and none of them is to blame.
func TestStreamsOfTwoBranches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("two branches")
		nodes := cluster(t, f, o, 3)
		forked, backup := nodes[2], t.TempDir()
		forked.stop()
		if err := os.CopyFS(backup, os.DirFS(forked.dir)); err != nil {
			t.Fatal(err)
		}
		for i := range 80 {
			nodes[i%2].put(fmt.Sprint("key/", i), random(uint64(i), 4096))
		}
		same(t, nodes[:2]...)
		f.part(nodes[0].id, nodes[1].id, true)
		for branch, dir := range []string{forked.dir, backup} {
			knows, other := nodes[branch], nodes[1-branch]
			f.part(forked.id, other.id, true)
			f.part(forked.id, knows.id, true)
			forked.dir = dir
			forked.start(t)
			for i := range 80 - 20*branch {
				forked.put(fmt.Sprint(branch, "/", i), random(uint64(1000*branch+i), 4096))
			}
			f.part(forked.id, knows.id, false)
			same(t, knows, forked)
			forked.stop()
			f.part(forked.id, other.id, false)
		}
		late := newNode(t, f, o, "late")
		late.join(nodes[:2]...)
		if took := same(t, append(slices.Clone(nodes[:2]), late)...); took > 15*time.Second {
			t.Errorf("it took %s", took)
		}
		<-time.After(2 * time.Minute) // all have compared
		synctest.Wait()
		for _, n := range nodes[:2] {
			accuses(t, late, n, false)
			accuses(t, n, late, false)
		}
	})
}
