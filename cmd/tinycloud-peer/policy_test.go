package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

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
