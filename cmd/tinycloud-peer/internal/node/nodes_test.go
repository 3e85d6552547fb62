package node_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// operator asks the admin API of a node.
func operator[T any](t *testing.T, n *node.Node, method, path string, q any, want int) (v T) {
	t.Helper()
	body, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	status, answer := call(t, method, n.URL()+"/admin/"+path, bearer, string(body))
	if status != want {
		t.Fatalf("%s %s: %d %s, want %d", method, path, status, answer, want)
	}
	if err := json.Unmarshal([]byte(answer), &v); err != nil && status == http.StatusOK {
		t.Fatal(err, answer)
	}
	return v
}

// TestPairing pairs two nodes: then a Space that comes to either follows from the other by itself, also after restarts.
func TestPairing(t *testing.T) {
	for name, pair := range map[string]func(a, b *node.Node){
		"by an invite": func(a, b *node.Node) {
			i := operator[node.InviteView](t, a, http.MethodPost, "invites", node.InviteRequest{}, http.StatusOK)
			v := operator[node.NodeView](t, b, http.MethodPost, "nodes", node.PairRequest{Invite: i.Invite}, http.StatusOK)
			if !v.Back {
				t.Error("an invite pairs both ways")
			}
			operator[node.NodeView](t, b, http.MethodPost, "nodes", node.PairRequest{Invite: i.Invite}, http.StatusOK) // again
		},
		"by address": func(a, b *node.Node) {
			operator[node.NodeView](t, b, http.MethodPost, "nodes", node.PairRequest{Addr: nodeAddr(t, a)}, http.StatusOK)
			operator[node.NodeView](t, a, http.MethodPost, "nodes", node.PairRequest{Addr: nodeAddr(t, b)}, http.StatusOK)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, other := newSigned(t), newSigned(t)
			a, _ := run(t, settings(t))
			cfg := settings(t)
			b, stop := run(t, cfg)
			pair(a, b)
			for _, n := range []*node.Node{a, b} {
				if list := operator[[]node.NodeView](t, n, http.MethodGet, "nodes", nil, http.StatusOK); len(list) != 1 || !list[0].Back && name == "by an invite" {
					t.Fatalf("nodes %+v", list)
				}
			}
			s.host(a, true)
			s.put(a, "k", "v")
			s.host(b, false)
			s.reads(b, "k", "v")
			stop()
			b, _ = run(t, cfg)
			other.host(b, true)
			other.put(b, "k", "w")
			other.host(a, false)
			other.reads(a, "k", "w")
			peer := operator[[]node.NodeView](t, a, http.MethodGet, "nodes", nil, http.StatusOK)[0].Peer
			operator[node.NodeView](t, a, http.MethodDelete, "nodes/"+peer, nil, http.StatusOK)
			operator[node.NodeView](t, a, http.MethodDelete, "nodes/"+peer, nil, http.StatusNotFound)
			if list := operator[[]node.NodeView](t, a, http.MethodGet, "nodes", nil, http.StatusOK); len(list) != 0 {
				t.Errorf("still asked: %+v", list)
			}
		})
	}
}

// What can't be paired with is refused, and named.
func TestPairingRefused(t *testing.T) {
	a, _ := run(t, settings(t))
	b, _ := run(t, settings(t))
	c, _ := run(t, settings(t))
	i := operator[node.InviteView](t, a, http.MethodPost, "invites", node.InviteRequest{Expires: "1h"}, http.StatusOK)
	refused := func(n *node.Node, status int, q node.PairRequest) {
		t.Helper()
		operator[node.NodeView](t, n, http.MethodPost, "nodes", q, status)
	}
	refused(a, http.StatusBadRequest, node.PairRequest{Invite: i.Invite})
	refused(a, http.StatusBadRequest, node.PairRequest{Addr: nodeAddr(t, a)})
	refused(b, http.StatusBadRequest, node.PairRequest{})
	refused(b, http.StatusBadRequest, node.PairRequest{Addr: nodeAddr(t, a), Invite: i.Invite})
	refused(b, http.StatusBadRequest, node.PairRequest{Addr: "somewhere"})
	refused(b, http.StatusBadRequest, node.PairRequest{Invite: i.Invite[:len(i.Invite)-8]})
	operator[node.NodeView](t, b, http.MethodPost, "nodes", node.PairRequest{Invite: strings.Replace(i.Invite, ":", ":\n", 1)}, http.StatusOK)
	refused(c, http.StatusForbidden, node.PairRequest{Invite: i.Invite}) // it is b's
	operator[node.InviteView](t, a, http.MethodPost, "invites", node.InviteRequest{Expires: "25h"}, http.StatusBadRequest)
	operator[node.InviteView](t, a, http.MethodPost, "invites", node.InviteRequest{Expires: "soon"}, http.StatusBadRequest)
	if list := operator[[]node.InviteView](t, a, http.MethodGet, "invites", nil, http.StatusOK); len(list) != 1 || list[0].UsedBy == "" || list[0].Invite != "" {
		t.Errorf("invites %+v", list)
	}
	isolated, _ := run(t, settings(t, "TINYCLOUD_P2P_ISOLATED=true"))
	refused(isolated, http.StatusBadRequest, node.PairRequest{Addr: nodeAddr(t, a)})
}
