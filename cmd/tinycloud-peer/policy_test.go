package main

import (
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// A lazy host serves all values, and holds those that were read.
func TestLazyValues(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 1)
	a := g.nodes.Peers()[0]
	value := strings.Repeat("a value that does not travel with its operation ", 1000)
	g.put(a, "read", value)
	lazy, err := g.nodes.Add(g.ctx, "TINYCLOUD_P2P_VALUES=lazy")
	g.must(err)
	g.must(g.owner.Host(g.ctx, lazy))
	g.must(g.owner.Join(g.ctx, lazy, a))
	_, err = g.owner.SignIn(g.ctx, lazy)
	g.must(err)
	lacking := func(p capstore.Policy, count int64) {
		t.Helper()
		g.must(cluster.Poll(g.ctx, 10*time.Millisecond, func() (bool, error) {
			x, y := g.view(a, g.owner), g.view(lazy, g.owner)
			return x.StateHash == y.StateHash && y.State == "synced" && y.Wants == count && y.Policy == p, nil
		}))
	}
	lacking(capstore.Lazy, 1)
	g.reads("read", value, lazy)
	lacking(capstore.Lazy, 0)

	g.put(a, "unread", value+"1")
	lacking(capstore.Lazy, 1)
	g.must(a.Stop())
	answer := g.invoke(lazy, http.StatusServiceUnavailable, nil, "", "kv/unread", "tinycloud.kv/get")
	if answer.Header.Get("Retry-After") == "" {
		t.Errorf("%v", answer.Header)
	}
	g.reads("read", value, lazy)
	g.must(a.Start(g.ctx))

	set := func(p *capstore.Policy) {
		t.Helper()
		v, err := lazy.Admin.SetPolicy(g.ctx, g.owner.Space, p)
		g.must(err)
		if v.Own != (p != nil) {
			t.Errorf("%+v", v)
		}
	}
	set(new(capstore.Eager))
	lacking(capstore.Eager, 0)
	g.must(lazy.Kill())
	g.must(lazy.Start(g.ctx))
	g.put(a, "third", value+"2")
	lacking(capstore.Eager, 0)
	set(nil)
	g.put(a, "fourth", value+"3")
	lacking(capstore.Lazy, 1)
	if _, err := lazy.Admin.SetPolicy(g.ctx, g.owner.Space, new(capstore.Policy("some"))); err == nil || !strings.Contains(err.Error(), "eager, lazy or all") {
		t.Errorf("an unknown policy: %v", err)
	}
}

// A host that keeps all values has those that were overwritten before it joined, and gives them on; an eager one has
// the current ones.
func TestAllValues(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 1)
	first := g.nodes.Peers()[0]
	set := func(p *cluster.Peer, policy capstore.Policy) {
		t.Helper()
		_, err := p.Admin.SetPolicy(g.ctx, g.owner.Space, &policy)
		g.must(err)
	}
	set(first, capstore.All)
	before, now := strings.Repeat("it was so before. ", 10_000), strings.Repeat("it is so now. ", 10_000)
	deleted := strings.Repeat("it was deleted. ", 100_000) // several blocks
	g.put(first, "key", before)
	g.put(first, "key", now)
	g.put(first, "deleted", deleted)
	g.must(g.owner.Delete(g.ctx, first, "deleted"))

	join := func(with *cluster.Peer, env ...string) *cluster.Peer {
		t.Helper()
		p, err := g.nodes.Add(g.ctx, env...)
		g.must(err)
		g.must(g.owner.Host(g.ctx, p))
		g.must(g.owner.Join(g.ctx, p, with))
		g.awaits(p, with, 0)
		g.reads("key", now, p)
		return p
	}
	holds := func(p *cluster.Peer, past bool) {
		t.Helper()
		if !g.holds(p, now) || g.holds(p, before) != past || g.holds(p, deleted) != past {
			t.Errorf("%s: current %t, overwritten %t, deleted %t; want past ones %t", p.Name, g.holds(p, now), g.holds(p, before), g.holds(p, deleted), past)
		}
		if v := g.view(p, g.owner); v.Bytes != int64(len(now)) || v.Keys != 1 {
			t.Errorf("%s: %d keys of %d bytes, want the current one of %d", p.Name, v.Keys, v.Bytes, len(now))
		}
	}
	all := join(first, "TINYCLOUD_P2P_VALUES=all")
	holds(all, true)
	eager := join(first)
	holds(eager, false)

	g.must(first.Stop())
	set(eager, capstore.All) // which is all the others are needed for
	g.awaits(eager, all, 0)
	holds(eager, true)
}

// holds reports whether a peer has a value of more than 64 KiB, under its digest.
func (g *group) holds(p *cluster.Peer, value string) bool {
	g.Helper()
	hash := tinycloud.Sum([]byte(value))
	b, err := os.ReadFile(filepath.Join(g.files(p), base64.URLEncoding.EncodeToString(hash[:])))
	if err != nil && !os.IsNotExist(err) {
		g.Fatal(err)
	}
	return err == nil && string(b) == value
}
