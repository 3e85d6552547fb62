package replication_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire/wiretest"
)

// cluster makes n hosts of one Space; all but the first join the first.
func cluster(t *testing.T, f *fabric, o *owner, n int) []*node {
	t.Helper()
	var nodes []*node
	for i := range n {
		x := newNode(t, f, o, fmt.Sprint("host ", i))
		if i == 0 {
			x.delegate(o.header)
		} else {
			x.join(nodes[0])
		}
		nodes = append(nodes, x)
	}
	same(t, nodes...)
	return nodes
}

func peerStatus(n, other *node) (p replication.PeerStatus) {
	for _, p := range n.r.Status().Peers {
		if p.Peer == other.id {
			return p
		}
	}
	return p
}

func TestLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("live")
		nodes := cluster(t, f, o, 3)
		until(t, "all are connected with all", func() bool {
			for _, a := range nodes {
				for _, b := range nodes {
					if a != b && !(peerStatus(a, b).Connected && peerStatus(a, b).Synced) {
						return false
					}
				}
			}
			return true
		})
		before := time.Now()
		for i := range 30 {
			n := nodes[i%3]
			n.put(fmt.Sprint("key/", i%7), fmt.Sprint("value ", i))
			synctest.Wait() // no timer runs: gossip alone brings it
			for _, other := range nodes {
				if got := other.get(fmt.Sprint("key/", i%7)); got != fmt.Sprint("value ", i) {
					t.Fatalf("write %d on %s reads %q on %s", i, n.name, got, other.name)
				}
			}
		}
		if d := time.Since(before); d != 0 {
			t.Errorf("took %s", d)
		}
		same(t, nodes...)
	})
}

func TestConcurrentWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("writers")
		nodes := cluster(t, f, o, 3)
		done := make(chan struct{})
		for i, n := range nodes {
			go func() {
				defer func() { done <- struct{}{} }()
				for k := range 40 {
					n.put(fmt.Sprint("key/", k%5), fmt.Sprint(i, " ", k))
				}
			}()
		}
		for range nodes {
			<-done
		}
		same(t, nodes...)
		if st := nodes[0].status(); st.Void != 0 || st.Keys != 5 {
			t.Errorf("%+v", st)
		}
	})
}

func TestJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("join")
		first := newNode(t, f, o, "first")
		first.delegate(o.header)
		for i := range 700 { // more than one batch
			first.put(fmt.Sprint("key/", i), fmt.Sprint("value ", i))
		}
		late := newNode(t, f, o, "late")
		late.join(first)
		if st := late.status(); st.State != capstore.StateJoining {
			t.Fatalf("state %q before it was synced", st.State)
		}
		same(t, first, late)
		until(t, "synced", func() bool { return late.status().State == capstore.StateSynced && !late.r.Status().Joining })
		joins, err := late.store.Joins(t.Context(), o.space)
		if err != nil || len(joins) != 1 || joins[0].State != replication.JoinConnected || joins[0].LastTry.IsZero() {
			t.Errorf("joins %+v: %v", joins, err)
		}
		if got := late.get("key/699"); got != "value 699" {
			t.Errorf("late joiner reads %q", got)
		}
		// It knows one host, so it knows all: the third only names the second.
		third := newNode(t, f, o, "third")
		third.join(late)
		same(t, first, late, third)
		until(t, "third finds first", func() bool { return peerStatus(third, first).Connected })
	})
}

func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("partition")
		nodes := cluster(t, f, o, 3)
		until(t, "full mesh", func() bool { return peerStatus(nodes[1], nodes[2]).Connected })
		apart := func(x bool) {
			f.part(nodes[0].id, nodes[1].id, x)
			f.part(nodes[0].id, nodes[2].id, x)
		}
		apart(true)
		synctest.Wait()
		for i := range 50 {
			nodes[0].put(fmt.Sprint("a/", i%20), fmt.Sprint("left ", i))
			nodes[1+i%2].put(fmt.Sprint("a/", i%20), fmt.Sprint("right ", i))
		}
		same(t, nodes[1], nodes[2])
		if nodes[0].state() == nodes[1].state() {
			t.Fatal("the partition leaks")
		}
		apart(false)
		if d := same(t, nodes...); d > 6*time.Minute {
			t.Errorf("healed after %s", d)
		}
	})
}

// Gossip is lost entirely: the regular rounds repair it, and cost next to nothing when all is equal.
func TestGossipLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("loss")
		nodes := cluster(t, f, o, 2)
		<-time.After(3 * time.Minute)
		synctest.Wait()
		before, began := f.sent(), time.Now()
		<-time.After(30 * time.Minute)
		synctest.Wait()
		rounds := time.Since(began).Minutes() / 1.5 // at least
		if per := float64(f.sent()-before) / rounds; per > 400 || per < 40 {
			t.Errorf("an idle round takes %.0f bytes", per)
		}
		f.setLoss(func(peer.ID, peer.ID) bool { return true })
		for i := range 20 {
			nodes[i%2].put(fmt.Sprint("key/", i), fmt.Sprint(i))
		}
		if d := same(t, nodes...); d == 0 || d > 91*time.Second {
			t.Errorf("repaired after %s", d)
		}
	})
}

// Some gossip is lost: what follows shows the gap, and a stream fills it at once.
func TestGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("gap")
		nodes := cluster(t, f, o, 3)
		rng := rand.New(rand.NewPCG(1, 2))
		f.setLoss(func(peer.ID, peer.ID) bool { return rng.IntN(3) == 0 })
		for i := range 90 {
			nodes[i%3].put(fmt.Sprint("key/", i%11), fmt.Sprint(i))
		}
		f.setLoss(nil)
		for i, n := range nodes {
			n.put(fmt.Sprint("last/", i), "x")
		}
		if d := same(t, nodes...); d > 5*time.Second {
			t.Errorf("gaps were filled after %s", d)
		}
	})
}

// The connection breaks again and again while a host catches up; what came stays.
func TestInterruptedCatchUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("interrupted")
		first := newNode(t, f, o, "first")
		first.delegate(o.header)
		big := strings.Repeat("x", 3000)
		for i := range 1500 {
			first.put(fmt.Sprint("key/", i), fmt.Sprint(i, big))
		}
		late := newNode(t, f, o, "late")
		late.join(first)
		synctest.Wait()
		whole := 0
		err := first.store.Missing(t.Context(), o.space, nil, 4096, func(b hostlog.Bundle) error {
			whole += len(b.Epoch) + len(b.Entry.Encode()) + len(b.Sig)
			for _, group := range [][][]byte{b.Events, b.Ops} {
				for _, x := range group {
					whole += len(x)
				}
			}
			for _, v := range b.Values {
				whole += len(v.Bytes)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		breaks := 0
		for last := 0; breaks < 4; {
			if now := int(late.status().Epochs); now > last && f.sent() > (breaks+1)*whole/6 {
				last = now
				f.part(first.id, late.id, true)
				f.part(first.id, late.id, false)
				breaks++
			}
			if late.status().Epochs == first.status().Epochs {
				break
			}
			<-time.After(50 * time.Millisecond)
		}
		same(t, first, late)
		if cost := float64(f.sent()) / float64(whole); cost > 1.1 {
			t.Errorf("catch-up with %d interruptions took %.3f times the bytes that were missing", breaks, cost)
		} else {
			t.Logf("catch-up with %d interruptions took %.3f times the bytes that were missing", breaks, cost)
		}
	})
}

func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("restart")
		nodes := cluster(t, f, o, 2)
		until(t, "addresses are stored", func() bool {
			hosts, err := nodes[0].store.Hosts(t.Context(), o.space)
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range hosts {
				if !h.Self && len(h.Addrs) > 0 && h.Seq > 0 {
					return true
				}
			}
			return false
		})
		nodes[0].stop()
		nodes[1].put("while/away", "1")
		nodes[0].start(t) // it was never told to join anyone
		nodes[0].put("back", "1")
		same(t, nodes...)
	})
}

// A host is restored from a backup and writes before it hears of what it wrote since: its log forks. All
// keep both branches, say so, and agree.
func TestRestoredBackup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("backup")
		nodes := cluster(t, f, o, 3)
		restored := nodes[2]
		for i := range 40 {
			restored.put(fmt.Sprint("old/", i), "1")
		}
		same(t, nodes...)
		restored.stop()
		backup := t.TempDir()
		if err := os.CopyFS(backup, os.DirFS(restored.dir)); err != nil {
			t.Fatal(err)
		}
		restored.start(t)
		for i := range 30 {
			restored.put(fmt.Sprint("new/", i), "1")
		}
		same(t, nodes...)
		restored.stop()
		restored.dir = backup
		for _, other := range nodes[:2] {
			f.part(restored.id, other.id, true)
		}
		restored.start(t)
		for i := range 20 {
			restored.put(fmt.Sprint("forked/", i), "1")
		}
		for _, other := range nodes[:2] {
			f.part(restored.id, other.id, false)
		}
		same(t, nodes...)
		tips, err := nodes[0].store.Tips(t.Context(), o.space)
		if err != nil || len(tips) != 4 {
			t.Errorf("%d tips, %v", len(tips), err)
		}
		hosts, err := nodes[0].store.Hosts(t.Context(), o.space)
		if err != nil {
			t.Fatal(err)
		}
		forked := 0
		for _, h := range hosts {
			if h.Forked {
				forked++
			}
		}
		if forked != 1 {
			t.Errorf("%d hosts are shown as forked", forked)
		}
		restored.put("goes/on", "1")
		same(t, nodes...)
	})
}

// A host that runs on an old copy of its database writes the moment another host is connected: it compares tips
// before it signs, and goes on from its later entries without a fork.
func TestOldCopyComparesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("copy")
		nodes := cluster(t, f, o, 2)
		restored, other := nodes[1], nodes[0]
		restored.put("old", "1")
		same(t, nodes...)
		restored.stop()
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(restored.dir)); err != nil {
			t.Fatal(err)
		}
		restored.start(t)
		restored.put("later", "1")
		same(t, nodes...)
		restored.stop()
		restored.dir = copied

		came, held := make(chan struct{}), make(chan struct{})
		var once sync.Once
		f.mu.Lock()
		f.opening = func(from, _ peer.ID) {
			if from == restored.id {
				once.Do(func() {
					close(came)
					<-held // the question for tips is under way
				})
			}
		}
		f.mu.Unlock()
		restored.start(t)
		<-came
		written := make(chan error, 1)
		go func() { written <- restored.tryPut("early", "1") }()
		synctest.Wait()
		select {
		case err := <-written:
			t.Errorf("written before tips were compared: %v", err)
			written <- err
		default:
		}
		close(held)
		if err := <-written; err != nil && !errors.Is(err, tinycloud.ErrUnavailable) {
			t.Error(err)
		}
		same(t, nodes...)
		restored.put("goes/on", "1")
		same(t, nodes...)
		if tips, err := other.store.Tips(t.Context(), o.space); err != nil || len(tips) != 2 {
			t.Errorf("%d tips, %v", len(tips), err)
		}
	})
}

func TestClockDifferenceIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("clock")
		n := newNode(t, f, o, "host")
		x := newOutsider(t, f, o, "outsider")
		x.admitted(t, n)
		s, err := x.NewStream(t.Context(), n.id, wire.SyncProtocol)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = s.Write(wiretest.OpenFrameAt(time.Now().Add(-90*time.Second), tinycloud.Hash{})) }()
		_, _ = s.Read(make([]byte, 1))
		_ = s.Close()
		if p := n.r.Status().Peers; len(p) != 1 || p[0].Skew != -90*time.Second {
			t.Errorf("%+v", p)
		}
	})
}

// A chain of hosts that know only their neighbours: what the first writes reaches the last at once, also
// what is too large for gossip.
func TestThroughThirdHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("chain")
		var nodes []*node
		for i := range 3 {
			nodes = append(nodes, newNode(t, f, o, fmt.Sprint("host ", i)))
		}
		f.part(nodes[0].id, nodes[2].id, true)
		nodes[0].delegate(o.header)
		nodes[1].join(nodes[0])
		nodes[2].join(nodes[1])
		same(t, nodes...)
		nodes[0].put("near", "1")
		if d := same(t, nodes...); d > time.Second {
			t.Errorf("took %s", d)
		}
		// Gossip of the first is lost, so that its neighbour gets it by a stream and has to tell the last.
		f.setLoss(func(from, _ peer.ID) bool { return from == nodes[0].id })
		nodes[0].put("far", "1")
		until(t, "neighbour", func() bool { return nodes[1].get("far") == "1" })
		if d := same(t, nodes...); d > 5*time.Second {
			t.Errorf("took %s more", d)
		}
	})
}

// A host's clock is fast: what it writes waits until it is due, and holds nothing else up.
func TestFastClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("fast")
		nodes := cluster(t, f, o, 2)
		fast := newNode(t, f, o, "fast")
		fast.join(nodes[0])
		same(t, nodes[0], nodes[1], fast)
		fast.ahead.Store(int64(5 * time.Minute))
		fast.put("early", "1")
		nodes[1].put("now", "1")
		synctest.Wait()
		if nodes[0].get("now") != "1" || nodes[0].get("early") != "(none)" {
			t.Fatalf("now %q, early %q", nodes[0].get("now"), nodes[0].get("early"))
		}
		late := newNode(t, f, o, "late")
		f.part(late.id, nodes[0].id, true)
		f.part(late.id, nodes[1].id, true)
		late.join(fast)
		until(t, "what is due, from the host that is fast", func() bool { return late.get("now") == "1" })
		if late.get("early") != "(none)" {
			t.Error("what is not due is here")
		}
		<-time.After(5 * time.Minute)
		fast.ahead.Store(0)
		same(t, nodes[0], nodes[1], fast, late)
		if late.get("early") != "1" {
			t.Error("what was early never came")
		}
	})
}
