package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// group is a cluster with one owner, whose every wait ends with the test's deadline.
type group struct {
	*testing.T
	ctx   context.Context
	nodes *cluster.Cluster
	owner *cluster.Owner

	binary string // runs this test's program as a node
}

// startGroup runs peers as processes that host one Space, named default if not otherwise, and replicate it.
func startGroup(t *testing.T, peers int, name ...string) *group {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "tinycloud-peer")
	if err := os.Symlink(self, binary); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Minute, errors.New("not in time"))
	g := &group{
		T: t, ctx: ctx, owner: cluster.NewOwner(append(name, "default")[0]), binary: binary,
		nodes: cluster.New(cluster.Options{Binary: binary, Dir: t.TempDir()}),
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, p := range g.nodes.Peers() {
				t.Logf("%s\n%s", p.Name, p.LogTail())
			}
		}
		cancel()
		g.owner.Close()
		if err := g.nodes.Close(); err != nil {
			t.Error(err)
		}
	})
	for range peers {
		g.add()
	}
	return g
}

func (g *group) must(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

// add starts a further peer, hosts the Space there and joins it to the first.
func (g *group) add() *cluster.Peer {
	g.Helper()
	p, err := g.nodes.Add(g.ctx)
	g.must(err)
	g.must(g.owner.Host(g.ctx, p))
	if first := g.nodes.Peers()[0]; first != p {
		g.must(g.owner.Join(g.ctx, p, first))
		return p
	}
	_, err = g.owner.SignIn(g.ctx, p)
	g.must(err)
	return p
}

// same waits until the peers are in one state without a void epoch, and returns it.
func (g *group) same(peers ...*cluster.Peer) node.SpaceView {
	g.Helper()
	if len(peers) == 0 {
		peers = g.nodes.Peers()
	}
	views, err := g.owner.AwaitSame(g.ctx, peers)
	if err != nil {
		g.Fatalf("%v: %+v", err, views)
	}
	for i, v := range views {
		if v.Void != 0 || v.Parked != 0 || v.Events != views[0].Events {
			g.Errorf("%s: %d void, %d parked, %d events of %d", peers[i].Name, v.Void, v.Parked, v.Events, views[0].Events)
		}
	}
	return views[0]
}

func (g *group) view(p *cluster.Peer, o *cluster.Owner) node.SpaceView {
	g.Helper()
	v, err := p.Admin.Space(g.ctx, o.Space)
	g.must(err)
	return v
}

func (g *group) put(p *cluster.Peer, key, value string) {
	g.Helper()
	g.must(g.owner.Put(g.ctx, p, key, []byte(value)))
}

// reads checks that all peers answer with a value.
func (g *group) reads(key, value string, peers ...*cluster.Peer) {
	g.Helper()
	for _, p := range peers {
		if got, err := g.owner.Get(g.ctx, p, key); err != nil || string(got) != value {
			g.Errorf("%s: %s is %.80q, %v; want %.80q", p.Name, key, got, err, value)
		}
	}
}

func TestWritesReachAllAndLateJoiners(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 3)
	g.same()
	large := strings.Repeat("large values travel as blocks. ", 100_000) // 3.1 MB
	for i, p := range g.nodes.Peers() {
		for n := range 20 {
			g.put(p, fmt.Sprintf("by/%d/%d", i, n), fmt.Sprintf("value %d of %d", n, i))
		}
		g.put(p, fmt.Sprintf("medium/%d", i), strings.Repeat("m", 100_000+i))
	}
	g.put(g.nodes.Peers()[1], "large", large)
	late := g.add()
	v := g.same()
	if v.Keys != 64 {
		t.Errorf("%d keys", v.Keys)
	}
	all := g.nodes.Peers()
	for i := range 3 {
		for n := range 20 {
			g.reads(fmt.Sprintf("by/%d/%d", i, n), fmt.Sprintf("value %d of %d", n, i), all...)
		}
		g.reads(fmt.Sprintf("medium/%d", i), strings.Repeat("m", 100_000+i), all...)
	}
	g.reads("large", large, all...)
	g.put(late, "by/late", "welcome")
	after := g.same()
	g.reads("by/late", "welcome", all...)
	// Each peer takes up where it was.
	for _, p := range all {
		g.must(p.Stop())
		g.must(p.Start(g.ctx))
	}
	if again := g.same(); again.StateHash != after.StateHash || again.Epochs < after.Epochs {
		t.Errorf("after a restart %+v, before %+v", again, after)
	}
	g.awaitConnected(all)
}

// awaitConnected waits until every peer is connected with every other.
func (g *group) awaitConnected(peers []*cluster.Peer) {
	g.Helper()
	var views []node.SpaceView
	err := cluster.Poll(g.ctx, 50*time.Millisecond, func() (bool, error) {
		var err error
		if _, views, err = g.owner.Same(g.ctx, peers); err != nil {
			return false, err
		}
		for _, v := range views {
			if len(v.Hosts) != len(peers) || slices.ContainsFunc(v.Hosts, func(h node.HostView) bool { return !h.Connected }) {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		g.Fatalf("not all connected: %v: %+v", err, views)
	}
}

// TestKill ends a peer in the middle of writes. What it acknowledged is there when it comes back, and gets
// to the others.
func TestKill(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 3)
	g.same()
	victim := g.nodes.Peers()[0]
	acknowledged := map[string]string{}
	for round := range 3 {
		log := g.writeUntilKilled(victim, round, 40*(round+1))
		if len(log) < 40 {
			t.Fatalf("round %d: %d writes before the end", round, len(log))
		}
		for key, value := range log {
			acknowledged[key] = value
		}
		g.must(victim.Start(g.ctx))
		for key, value := range log {
			g.reads(key, value, victim)
		}
	}
	v := g.same()
	for key, value := range acknowledged {
		g.reads(key, value, g.nodes.Peers()...)
	}
	t.Logf("%d acknowledged writes over 3 kills, %d keys", len(acknowledged), v.Keys)
}

// writeUntilKilled writes with several clients, kills the peer after some writes, and returns those that it
// acknowledged.
func (g *group) writeUntilKilled(p *cluster.Peer, round, after int) map[string]string {
	g.Helper()
	var mu sync.Mutex
	log := map[string]string{}
	enough := make(chan struct{})
	var once sync.Once
	var count atomic.Int64
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				key, value := fmt.Sprintf("kill/%d/%d/%d", round, w, n), fmt.Sprintf("%d.%d.%d", round, w, n)
				if g.owner.Put(g.ctx, p, key, []byte(value)) != nil {
					return // not acknowledged: it may be there or not
				}
				mu.Lock()
				log[key] = value
				mu.Unlock()
				if count.Add(1) >= int64(after) {
					once.Do(func() { close(enough) })
				}
			}
		})
	}
	select {
	case <-enough:
	case <-g.ctx.Done():
	}
	err := p.Kill()
	wg.Wait()
	g.must(err)
	return log
}

// TestPartition has peers that are apart write, and meet again.
func TestPartition(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 3)
	g.same()
	a, b, c := g.nodes.Peers()[0], g.nodes.Peers()[1], g.nodes.Peers()[2]
	// One falls silent, with its connections open.
	g.must(c.Pause())
	g.put(a, "while/silent", "a")
	g.put(b, "while/silent/too", "b")
	g.same(a, b)
	g.must(c.Resume())
	g.same()
	g.reads("while/silent", "a", a, b, c)
	// Each is alone for a while and writes the same keys.
	for _, p := range []*cluster.Peer{a, b, c} {
		g.must(p.Stop())
	}
	for _, p := range []*cluster.Peer{a, b, c} {
		g.must(p.Start(g.ctx))
		for n := range 10 {
			g.put(p, fmt.Sprintf("alone/%d", n), fmt.Sprintf("%s says %d", p.Name, n))
		}
		g.put(p, "alone/by/"+p.Name, "only here")
		g.reads("alone/3", p.Name+" says 3", p)
		g.must(p.Stop())
	}
	g.must(cluster.Each(g.nodes.Peers(), func(_ int, p *cluster.Peer) error { return p.Start(g.ctx) }))
	g.same()
	for _, p := range g.nodes.Peers() {
		g.reads("alone/by/"+p.Name, "only here", a, b, c)
	}
	winner, err := g.owner.Get(g.ctx, a, "alone/3")
	g.must(err)
	g.reads("alone/3", string(winner), b, c)
}

func TestDeletesAndRevocationsTakeEffectEverywhere(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 3)
	g.same()
	a, b, c := g.nodes.Peers()[0], g.nodes.Peers()[1], g.nodes.Peers()[2]
	g.put(a, "keep", "kept")
	g.put(a, "drop", "gone soon")
	g.same()
	g.must(g.owner.Delete(g.ctx, b, "drop"))
	if v := g.same(); v.Keys != 1 {
		t.Errorf("%d keys", v.Keys)
	}
	for _, p := range []*cluster.Peer{a, b, c} {
		if _, err := g.owner.Get(g.ctx, p, "drop"); !errors.Is(err, tinycloud.ErrNotFound) {
			t.Errorf("%s: deleted key: %v", p.Name, err)
		}
	}
	g.reads("keep", "kept", a, b, c)
	g.must(g.owner.RevokeSession(g.ctx, c))
	for _, p := range []*cluster.Peer{a, b, c} {
		began := time.Now()
		g.must(cluster.Poll(g.ctx, 5*time.Millisecond, func() (bool, error) {
			_, err := g.owner.Get(g.ctx, p, "keep")
			return errors.Is(err, tinycloud.ErrUnauthorized), nil
		}))
		t.Logf("%s: a revoked session read for %s", p.Name, time.Since(began).Round(time.Millisecond))
		if err := g.owner.Put(g.ctx, p, "more", []byte("x")); !errors.Is(err, tinycloud.ErrUnauthorized) {
			t.Errorf("%s: write by a revoked session: %v", p.Name, err)
		}
	}
	g.same()
}

// TestRevokedHostIsCutOff removes a host at another one.
func TestRevokedHostIsCutOff(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 2)
	a, b := g.nodes.Peers()[0], g.nodes.Peers()[1]
	outcast, err := g.nodes.Add(g.ctx)
	g.must(err)
	header, err := g.owner.HostHeader(g.ctx, outcast)
	g.must(err)
	_, err = outcast.Admin.Delegate(g.ctx, header)
	g.must(err)
	g.must(g.owner.Join(g.ctx, outcast, a))
	g.put(a, "before", "all")
	g.same()
	g.awaitConnected(g.nodes.Peers())
	g.must(g.owner.RevokeHost(g.ctx, a, header))
	began := time.Now()
	g.must(cluster.Poll(g.ctx, 10*time.Millisecond, func() (bool, error) {
		for _, p := range []*cluster.Peer{a, b} {
			v, err := p.Admin.Space(g.ctx, g.owner.Space)
			if err != nil || len(v.Hosts) != 2 {
				return false, err
			}
		}
		v, err := outcast.Admin.Space(g.ctx, g.owner.Space)
		return err == nil && !slices.ContainsFunc(v.Hosts, func(h node.HostView) bool { return h.Connected && !h.Self }), err
	}))
	t.Logf("cut off after %s", time.Since(began).Round(time.Millisecond)) // the bound is tested in virtual time, see replication
	g.put(b, "after", "hosts only")
	g.same(a, b)
	g.reads("after", "hosts only", a, b)
	if _, err := g.owner.Get(g.ctx, outcast, "after"); err == nil {
		t.Error("the outcast has what was written after it was removed")
	}
}

// TestSignInLeavesAValidHistory signs in as clients do: the session is posted before the Space is hosted,
// where nothing can be done with it, and again after.
func TestSignInLeavesAValidHistory(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 0)
	first, err := g.nodes.Add(g.ctx)
	g.must(err)
	space := g.owner.Space.String()
	done, err := g.owner.SignIn(g.ctx, first)
	g.must(err)
	if !slices.Equal(done.Skipped, []string{space}) || len(done.Activated) != 0 {
		t.Errorf("before hosting: %+v", done)
	}
	g.must(g.owner.Host(g.ctx, first))
	done, err = g.owner.SignIn(g.ctx, first)
	g.must(err)
	if len(done.Skipped) != 0 {
		t.Errorf("after hosting: %+v", done)
	}
	g.put(first, "profile", "me")
	late := g.add()
	v := g.same()
	g.reads("profile", "me", first, late)
	if v.State != capstore.StateHosted || v.Void != 0 || v.Keys != 1 {
		t.Errorf("history %+v", v)
	}
}
