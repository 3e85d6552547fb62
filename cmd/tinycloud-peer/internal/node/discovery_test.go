package node_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// nodeAddr is where a node is, without a Space.
func nodeAddr(t *testing.T, n *node.Node) string {
	t.Helper()
	var info node.Info
	_, answer := call(t, http.MethodGet, n.URL()+"/admin/node", bearer, "")
	if err := json.Unmarshal([]byte(answer), &info); err != nil || len(info.Addrs) == 0 {
		t.Fatal(answer, err)
	}
	return info.Addrs[0]
}

// signed is a Space with the delegations that a client of several nodes has.
type signed struct {
	*testing.T
	owner   *captest.Wallet
	session *captest.SessionKey
	space   tinycloud.SpaceID
	grant   string
}

func newSigned(t *testing.T) *signed {
	s := &signed{T: t, owner: captest.RandomWallet(), session: captest.RandomSession()}
	s.space = s.owner.Space("default")
	s.grant = s.owner.SignDelegation(captest.DelegationOptions{Audience: s.session.URI(), Caps: captest.Caps{
		s.space.String() + "/kv": {"tinycloud.kv/put", "tinycloud.kv/get"},
	}})
	return s
}

// host makes a node a host of the Space, and signs in when it is the first.
func (s *signed) host(n *node.Node, first bool) {
	s.Helper()
	_, did := call(s.T, http.MethodGet, n.URL()+"/peer/generate/"+url.PathEscape(s.space.String()), "", "")
	headers := []string{s.owner.SignHost(s.space, did)}
	if first {
		headers = append(headers, s.grant)
	}
	for _, header := range headers {
		var status int
		var answer string
		await(s.T, func() bool { // while it is joining it can't know yet
			status, answer = call(s.T, http.MethodPost, n.URL()+"/delegate", header, "")
			return status != http.StatusServiceUnavailable
		}, func() string { return answer })
		if status != http.StatusOK {
			s.Fatal(status, answer)
		}
	}
}

func (s *signed) invoke(n *node.Node, ability, key, body string) (int, string) {
	s.Helper()
	return call(s.T, http.MethodPost, n.URL()+"/invoke", s.session.Invoke(captest.TokenOptions{
		Caps:   captest.Caps{s.space.String() + "/kv/" + key: {"tinycloud.kv/" + ability}},
		Proofs: []tinycloud.Hash{captest.ID(s.grant)},
	}), body)
}

func (s *signed) put(n *node.Node, key, value string) {
	s.Helper()
	if status, answer := s.invoke(n, "put", key, value); status != http.StatusOK {
		s.Fatal(status, answer)
	}
}

// reads waits until a node answers with a value.
func (s *signed) reads(n *node.Node, key, value string) {
	s.Helper()
	var got string
	await(s.T, func() bool {
		_, got = s.invoke(n, "get", key, "")
		return got == value
	}, func() string { return got })
}

// await waits for a state that nothing announces.
func await(t *testing.T, ok func() bool, what func() string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(90 * time.Second) // what gossip loses comes with the next round, within a minute
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("not in time: ", what())
		}
	}
}

// A Space is joined by the address of a node, which does not name the Space's peer there.
func TestJoinByNode(t *testing.T) {
	s := newSigned(t)
	a, _ := run(t, settings(t))
	b, _ := run(t, settings(t))
	s.host(a, true)
	s.put(a, "k", "v")
	s.host(b, false)
	join := func(n *node.Node, addr string) (int, string) {
		body, err := json.Marshal(node.JoinRequest{Addrs: []string{addr}})
		if err != nil {
			t.Fatal(err)
		}
		return call(t, http.MethodPost, n.URL()+"/admin/spaces/"+url.PathEscape(s.space.String())+"/join", bearer, string(body))
	}
	if status, answer := join(b, nodeAddr(t, b)); status != http.StatusBadRequest || !strings.Contains(answer, "is this node") {
		t.Errorf("own address: %d %s", status, answer)
	}
	if status, answer := join(b, nodeAddr(t, a)); status != http.StatusAccepted {
		t.Fatal(status, answer)
	}
	s.reads(b, "k", "v")
	await(t, func() bool {
		v := view(t, b, s.space)
		return len(v.Joins) == 1 && v.Joins[0].State == "connected" && v.Joins[0].Addr == nodeAddr(t, a) && v.State == "synced"
	}, func() string { b, _ := json.Marshal(view(t, b, s.space)); return string(b) })
}

// A node that does not have the Space says that it has no part in it, and the join says so.
func TestJoinByNodeWithoutTheSpace(t *testing.T) {
	s := newSigned(t)
	a, _ := run(t, settings(t))
	b, _ := run(t, settings(t))
	s.host(b, true)
	body, err := json.Marshal(node.JoinRequest{Addrs: []string{nodeAddr(t, a)}})
	if err != nil {
		t.Fatal(err)
	}
	path := b.URL() + "/admin/spaces/" + url.PathEscape(s.space.String()) + "/join"
	if status, answer := call(t, http.MethodPost, path, bearer, string(body)); status != http.StatusAccepted {
		t.Fatal(status, answer)
	}
	await(t, func() bool { v := view(t, b, s.space); return len(v.Joins) == 1 && v.Joins[0].State == "none" },
		func() string { return view(t, b, s.space).State })
	// Once it is a host, the join goes on by itself.
	s.host(a, true)
	s.put(a, "k", "v")
	s.reads(b, "k", "v")
}

func TestBootstrap(t *testing.T) {
	s := newSigned(t)
	other := newSigned(t)
	aCfg := settings(t)
	a, _ := run(t, aCfg)
	s.host(a, true)
	s.put(a, "k", "v")
	for name, addr := range map[string]string{"node": nodeAddr(t, a), "space": view(t, a, s.space).Addrs[0]} {
		t.Run(name, func(t *testing.T) {
			cfg := settings(t, "TINYCLOUD_P2P_BOOTSTRAP="+addr)
			b, stop := run(t, cfg)
			// Hosted while the node runs, and another Space that the bootstrap node has no part in.
			other.T, s.T = t, t
			other.host(b, true)
			s.host(b, false)
			s.reads(b, "k", "v")
			stop()
			again, _ := run(t, cfg)
			s.put(a, "after/"+name, "restart")
			s.reads(again, "after/"+name, "restart")
			await(t, func() bool {
				v := view(t, again, other.space)
				return len(v.Joins) == 1 && v.Joins[0].State == "none"
			}, func() string { return fmt.Sprint(view(t, again, other.space).Joins) })
			if v := view(t, again, other.space); v.State != "hosted" || len(v.Hosts) != 1 {
				t.Errorf("the other space: %+v", v)
			}
		})
	}
	if status, _ := call(t, http.MethodGet, a.URL()+"/admin/spaces/"+url.PathEscape(other.space.String()), bearer, ""); status != http.StatusNotFound {
		t.Errorf("the bootstrap node answers %d for a Space of others", status)
	}
}
