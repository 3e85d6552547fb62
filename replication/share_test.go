package replication_test

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// sharers are three hosts with a history that all wrote at once, of some 1 MB.
func sharers(t *testing.T, f *fabric, o *owner) []*node {
	t.Helper()
	const writes, writers = 210, 12
	nodes := cluster(t, f, o, 3)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := w; i < writes; i += writers {
				nodes[w%len(nodes)].put(fmt.Sprint("key/", i), random(uint64(i), 4096))
			}
		})
	}
	wg.Wait()
	same(t, nodes...)
	return nodes
}

// shared has a host join others over links of 256 KiB/s, and returns what each of these sent in relation to the history,
// and how long it took.
func shared(t *testing.T, f *fabric, o *owner, nodes []*node) (late *node, shares []float64, all float64, took time.Duration) {
	t.Helper()
	before := map[*node]int{}
	f.mu.Lock()
	for _, n := range nodes {
		before[n] = f.said[n.id]
	}
	f.pace = 256 << 10
	f.mu.Unlock()
	late = newNode(t, f, o, "late")
	late.r.Sharing(50, 32<<10)
	late.join(nodes...)
	took = same(t, append(nodes, late)...)
	whole := float64(payload(t, late))
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range nodes {
		share := float64(f.said[n.id]-before[n]) / whole
		shares, all = append(shares, share), all+share
	}
	t.Logf("shares %.2f, in all %.3f, after %s", shares, all, took)
	return late, shares, all, took
}

// Three hosts send a newcomer what it lacks, each about as much as the others, and nothing twice.
func TestShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("shares")
		nodes := sharers(t, f, o)
		late, shares, all, _ := shared(t, f, o, nodes)
		for i, share := range shares {
			accuses(t, late, nodes[i], false)
			if share < 0.2 {
				t.Errorf("host %d sent %.2f of the history", i, share)
			}
		}
		if all > 1.05 {
			t.Errorf("the hosts sent %.3f times the history", all)
		}
	})
}

// Branches of a forked log are shared out too.
func TestSharesOfForkedLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("shares fork")
		nodes := cluster(t, f, o, 3)
		restored, backup := nodes[2], t.TempDir()
		restored.stop()
		if err := os.CopyFS(backup, os.DirFS(restored.dir)); err != nil {
			t.Fatal(err)
		}
		for branch, dir := range []string{restored.dir, backup} {
			restored.dir = dir
			for _, other := range nodes[:2] {
				f.part(restored.id, other.id, true)
			}
			restored.start(t)
			for i := range 60 {
				restored.put(fmt.Sprint(branch, "/", i), random(uint64(1000*branch+i), 4096))
			}
			for _, other := range nodes[:2] {
				f.part(restored.id, other.id, false)
			}
			if branch == 0 {
				same(t, nodes...)
				restored.stop()
			}
		}
		same(t, nodes...)
		_, shares, all, _ := shared(t, f, o, nodes)
		for i, share := range shares {
			if share < 0.15 {
				t.Errorf("host %d sent %.2f of the history", i, share)
			}
		}
		if all > 1.05 {
			t.Errorf("the hosts sent %.3f times the history", all)
		}
	})
}

// What a host does not send, or what its bytes refute, another one sends.
func TestSharesOfBadHosts(t *testing.T) {
	const after = 100_000 // bytes, within its share
	stuck := func([]byte) []byte { return nil }
	forged := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[30] ^= 1 // in the key of a host, at the begin of a batch
		return b
	}
	for _, c := range []struct {
		name    string
		bad     int
		deliver func([]byte) []byte
	}{{"stuck lead", 0, stuck}, {"stuck", 1, stuck}, {"forged", 2, forged}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, o := newFabric(t), newOwner("shares "+c.name)
				nodes := sharers(t, f, o)
				bad := nodes[c.bad].id
				f.mu.Lock()
				begin := f.said[bad]
				f.deliver = func(from peer.ID, said int, b []byte) []byte {
					if from != bad || said-begin < after || len(b) < 4096 {
						return b
					}
					return c.deliver(b)
				}
				f.mu.Unlock()
				_, shares, all, _ := shared(t, f, o, nodes)
				for i, share := range shares {
					if i != c.bad && share < 0.3 {
						t.Errorf("host %d sent %.2f of the history", i, share)
					}
				}
				if all > 1.15 { // with the portions that the bad one did not bring whole
					t.Errorf("the hosts sent %.3f times the history", all)
				}
			})
		})
	}
}
