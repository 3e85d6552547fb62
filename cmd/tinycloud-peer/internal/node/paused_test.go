package node_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// pausedFor fails unless a node says that replication of the Space is paused for a reason; "" for none.
func (s *signed) pausedFor(n *node.Node, reason string) {
	s.Helper()
	await(s.T, func() bool {
		paused := view(s.T, n, s.space).Paused
		return reason == "" && len(paused) == 0 || reason != "" && len(paused) == 1 && strings.HasPrefix(paused[0], reason)
	}, func() string {
		return "paused for " + strings.Join(view(s.T, n, s.space).Paused, "; ") + ", want " + reason
	})
}

func (s *signed) equal(a, b *node.Node) {
	s.Helper()
	await(s.T, func() bool { return view(s.T, a, s.space).StateHash == view(s.T, b, s.space).StateHash }, func() string { return "the states differ" })
}

// TestReplicatesUpToTheLimit has a host write more than the other lets the Space hold. The other has the history and not all
// of the values, says so, and fetches them when the operator lets it, or something goes.
func TestReplicatesUpToTheLimit(t *testing.T) {
	s := newSigned(t)
	a, _ := run(t, settings(t))
	b, _ := run(t, settings(t, "TINYCLOUD_STORAGE_LIMIT=200000"))
	s.host(a, true)
	s.host(b, true)
	s.join(b, a)
	values := map[string]string{}
	for _, key := range []string{"one", "two"} {
		values[key] = strings.Repeat(key, 50_000)
		s.put(a, key, values[key])
		s.equal(a, b)
		if key == "one" {
			s.reads(b, key, values[key])
		}
	}
	s.pausedFor(b, "values: 150000 bytes")
	s.pausedFor(a, "")
	if status, answer := s.invoke(b, "get", "two", ""); status != http.StatusServiceUnavailable || !strings.Contains(answer, "exceeds its storage limit") {
		t.Errorf("a value that does not fit: %d %s", status, answer)
	}
	if v := view(t, b, s.space); v.Bytes != 150_000 || v.Wants != 1 {
		t.Errorf("it holds %d bytes and wants %d values", v.Bytes, v.Wants)
	}
	if _, metrics := call(t, http.MethodGet, b.MetricsURL(), "", ""); !strings.Contains(metrics, `tinycloud_paused_spaces{kind="values"} 1`) {
		t.Error("the metrics don't tell")
	}
	if status, answer := call(t, http.MethodPut, b.URL()+"/admin/quota/"+url.PathEscape(s.space.String()), bearer, `{"limit_bytes": 300000}`); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	s.reads(b, "two", values["two"])
	s.put(a, "three", strings.Repeat("333", 50_000))
	s.equal(a, b)
	s.pausedFor(b, "values: 300000 bytes")
	s.put(a, "one", "less")
	s.reads(b, "three", strings.Repeat("333", 50_000))
	s.pausedFor(b, "")
}

// TestFullDiskPausesReplication has the disk of one of two hosts fill up and get room again.
func TestFullDiskPausesReplication(t *testing.T) {
	s := newSigned(t)
	a, _ := run(t, settings(t))
	b, _ := run(t, settings(t))
	s.host(a, true)
	s.host(b, true)
	s.join(b, a)
	s.put(a, "first", "1")
	s.reads(b, "first", "1")
	b.SetFree(0)
	s.put(a, "second", "2")
	s.pausedFor(b, "history and values: less is free")
	if status, _ := s.invoke(b, "get", "second", ""); status != http.StatusNotFound {
		t.Errorf("it came all the same: %d", status)
	}
	if view(t, a, s.space).StateHash == view(t, b, s.space).StateHash {
		t.Error("a full disk takes history")
	}
	b.SetFree(1 << 62)
	s.reads(b, "second", "2")
	s.pausedFor(b, "")
}

// TestAllow has nodes replicate with whom p2p.allow lets them.
func TestAllow(t *testing.T) {
	s := newSigned(t)
	a, _ := run(t, settings(t))
	b, _ := run(t, settings(t, "TINYCLOUD_P2P_ALLOW=listed"))
	off, _ := run(t, settings(t, "TINYCLOUD_P2P_ALLOW=off", "TINYCLOUD_P2P_BOOTSTRAP="+nodeAddr(t, a)))
	s.host(a, true)
	s.put(a, "first", "1")
	for _, n := range []*node.Node{b, off} {
		s.host(n, n == off)
		if status, answer := s.joinBy(n, false, view(t, a, s.space).Addrs...); status != http.StatusForbidden || !strings.Contains(answer, "p2p.allow") {
			t.Errorf("a join: %d %s", status, answer)
		}
	}
	pair(t, off, node.PairRequest{Addr: nodeAddr(t, a)}, http.StatusForbidden, "p2p.allow")
	if addrs := view(t, off, s.space).Addrs; len(addrs) != 0 {
		t.Errorf("it can be reached at %v", addrs)
	}
	s.put(off, "alone", "2") // nobody is waited for
	// A host that is let in by the owner and not by the operator comes to nothing, whoever begins.
	if status, answer := s.joinBy(a, false, view(t, b, s.space).Addrs...); status != http.StatusAccepted {
		t.Fatal(status, answer)
	}
	await(t, func() bool {
		joins := view(t, a, s.space).Joins
		return len(joins) > 0 && joins[0].State == "unreachable"
	}, func() string { return "it is let in" })
	pair(t, b, node.PairRequest{Addr: nodeAddr(t, a)}, http.StatusOK, "")
	s.reads(b, "first", "1")
	_, id := apart(nodeAddr(t, a))
	operator[node.NodeView](t, b, http.MethodDelete, "nodes/"+id, nil, http.StatusOK)
	await(t, func() bool {
		for _, h := range view(t, b, s.space).Hosts {
			if !h.Self && h.Connected {
				return false
			}
		}
		return true
	}, func() string { return "still connected with a node that is not listed any more" })
}
