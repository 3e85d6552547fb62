package node_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// The name of a node is that of its hosts, of one that is away too, and the name of a host goes first.
func TestAliases(t *testing.T) {
	s := newSigned(t)
	a, _ := run(t, settings(t))
	b, stop := run(t, settings(t))
	pair(t, a, shown(invite(t, b)), http.StatusOK, "")
	s.host(a, true)
	s.put(a, "k", "v")
	s.host(b, false)
	s.reads(b, "k", "v") // which B may have before A knows it as a host
	await(t, func() bool { return len(view(t, a, s.space).Hosts) == 2 }, func() string { return "A does not know B" })
	other := func() node.HostView {
		t.Helper()
		hosts := view(t, a, s.space).Hosts
		i := slices.IndexFunc(hosts, func(h node.HostView) bool { return !h.Self })
		if i < 0 {
			t.Fatalf("hosts %+v", hosts)
		}
		return hosts[i]
	}
	set := func(name, id string) node.AliasView {
		t.Helper()
		return operator[node.AliasView](t, a, http.MethodPut, "aliases/"+name, node.AliasRequest{ID: id}, http.StatusOK)
	}
	_, id := apart(nodeAddr(t, b))
	office := set("office", id)
	await(t, func() bool { return other().Alias == "office" }, func() string { return "the host has its node's name" })
	h := other()
	if h.Node != id || view(t, a, s.space).Hosts[0].Alias != "" {
		t.Errorf("%+v", h)
	}
	if v := named(t, a)[0]; v.Alias != "office" {
		t.Errorf("%+v", v)
	}
	stop()
	await(t, func() bool { return !other().Connected }, func() string { return "it is away" })
	if h := other(); h.Alias != "office" {
		t.Errorf("away: %+v", h)
	}
	if v := set("home", h.DID); v.PeerID != h.PeerID || v.DID != h.DID {
		t.Errorf("%+v", v)
	}
	if h := other(); h.Alias != "home" {
		t.Errorf("%+v", h)
	}
	all := operator[[]node.AliasView](t, a, http.MethodGet, "aliases", nil, http.StatusOK)
	if len(all) != 2 || all[0].Name != "home" || all[1] != office {
		t.Errorf("%+v", all)
	}
	for _, name := range []string{"home", "office"} {
		operator[node.AliasView](t, a, http.MethodDelete, "aliases/"+name, nil, http.StatusOK)
		operator[node.AliasView](t, a, http.MethodDelete, "aliases/"+name, nil, http.StatusNotFound)
	}
	if h := other(); h.Alias != "" {
		t.Errorf("%+v", h)
	}
	for _, x := range []struct{ name, body, field string }{
		{"a%20b", `{"id":"` + id + `"}`, "name"},
		{"x", `{"id":"somebody"}`, "id"},
		{"x", `{"id":"did:key:z"}`, "id"},
		{"x", `{}`, "id"},
		{"x", `{"peer":"` + id + `"}`, "body"},
	} {
		if status, text := call(t, http.MethodPut, a.URL()+"/admin/aliases/"+x.name, bearer, x.body); status != http.StatusBadRequest || !strings.Contains(text, `"`+x.field) {
			t.Errorf("%+v: %d %s", x, status, text)
		}
	}
}

// Alerts name hosts as their operator does.
func TestAlertsTellAliases(t *testing.T) {
	v := node.SpaceView{Hosts: []node.HostView{{DID: "did:key:z6Mkone", Alias: "office", Older: true}, {DID: "did:key:z6Mktwo", Forked: true}}}
	found := v.Alerts(time.Now(), nil)
	if !slices.ContainsFunc(found, func(a node.AlertView) bool { return strings.HasPrefix(a.Text, "office has an older version") }) ||
		!slices.ContainsFunc(found, func(a node.AlertView) bool { return strings.HasPrefix(a.Text, "did:key:z6Mktwo signed") }) {
		t.Errorf("%+v", found)
	}
}
