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

func info(t *testing.T, n *node.Node) (v node.Info) {
	t.Helper()
	status, answer := call(t, http.MethodGet, n.URL()+"/admin/node", bearer, "")
	if err := json.Unmarshal([]byte(answer), &v); err != nil || status != http.StatusOK {
		t.Fatal(status, answer, err)
	}
	return v
}

// user has a Space at several nodes.
type user struct {
	t       *testing.T
	owner   *captest.Wallet
	session *captest.SessionKey
	space   tinycloud.SpaceID
	grant   string
}

func newUser(t *testing.T, at ...*node.Node) *user {
	t.Helper()
	u := &user{t: t, owner: captest.RandomWallet(), session: captest.RandomSession()}
	u.space = u.owner.Space("default")
	u.grant = u.owner.SignDelegation(captest.DelegationOptions{Audience: u.session.URI(), Caps: captest.Caps{
		u.space.String() + "/kv": {"tinycloud.kv/put", "tinycloud.kv/get"},
	}})
	for _, n := range at {
		hostAt(t, n, u.owner, u.space)
		if status, answer := call(t, http.MethodPost, n.URL()+"/delegate", u.grant, ""); status != http.StatusOK {
			t.Fatal(status, answer)
		}
	}
	return u
}

func (u *user) invoke(n *node.Node, ability, key, body string) (int, string) {
	u.t.Helper()
	return call(u.t, http.MethodPost, n.URL()+"/invoke", u.session.Invoke(captest.TokenOptions{
		Caps: captest.Caps{u.space.String() + "/kv/" + key: {ability}}, Proofs: []tinycloud.Hash{captest.ID(u.grant)},
	}), body)
}

func (u *user) put(n *node.Node, key string) {
	u.t.Helper()
	if status, answer := u.invoke(n, "tinycloud.kv/put", key, key); status != http.StatusOK {
		u.t.Fatal(status, answer)
	}
}

func (u *user) arrives(n *node.Node, key string) {
	u.t.Helper()
	eventually(u.t, key+" of "+u.space.String(), 20*time.Second, func() bool {
		status, got := u.invoke(n, "tinycloud.kv/get", key, "")
		return status == http.StatusOK && got == key
	})
}

func (u *user) join(at, through *node.Node) {
	u.t.Helper()
	body, err := json.Marshal(node.JoinRequest{Addrs: view(u.t, through, u.space).Addrs})
	if err != nil {
		u.t.Fatal(err)
	}
	if status, answer := call(u.t, http.MethodPost, at.URL()+"/admin/spaces/"+url.PathEscape(u.space.String())+"/join", bearer, string(body)); status != http.StatusAccepted {
		u.t.Fatal(status, answer)
	}
}

// Both processes of a database replicate, each its own Spaces, and to another host they are one. When one ends the other
// has all.
func TestSpacesAreSpread(t *testing.T) {
	const lazy = "TINYCLOUD_P2P_VALUES=lazy" // values are fetched for who reads them, whichever process he asks
	db := servers.Postgres(t)
	a, stopA := run(t, sharing(t, db.DSN, lazy))
	eventually(t, "leading", 5*time.Second, func() bool { return info(t, a).Shards == 64 })
	b, _ := run(t, sharing(t, db.DSN, lazy))
	eventually(t, "sharing", 10*time.Second, func() bool { return info(t, a).Shards == 32 && info(t, b).Shards == 32 })
	c, _ := run(t, settings(t))
	var users []*user
	for range 6 {
		users = append(users, newUser(t, a, c))
	}
	for i, u := range users {
		u.join(c, []*node.Node{a, b}[i%2])
		u.put([]*node.Node{a, b}[i%2], "there")
		u.put(c, "back")
		if status, answer := u.invoke(c, "tinycloud.kv/put", "large", strings.Repeat("large", 4000)); status != http.StatusOK {
			t.Fatal(status, answer)
		}
	}
	replicate := map[*node.Node]int{}
	for i, u := range users {
		u.arrives(c, "there")
		u.arrives(a, "back")
		u.arrives(b, "back")
		reader := []*node.Node{a, b}[i%2]
		eventually(t, "large of "+u.space.String(), 20*time.Second, func() bool {
			status, got := u.invoke(reader, "tinycloud.kv/get", "large", "")
			return status == http.StatusOK && got == strings.Repeat("large", 4000)
		})
		does := 0
		for _, n := range []*node.Node{a, b} {
			if at := view(t, n, u.space).Activity; at == node.ActivityOpen {
				does++
				replicate[n]++
			} else if at != node.ActivityElsewhere {
				t.Error(u.space, at)
			}
		}
		if does != 1 {
			t.Errorf("%s: replicated by %d processes", u.space, does)
		}
	}
	if len(replicate) != 2 {
		t.Log("all Spaces happen to be of one process")
	}
	began := time.Now()
	stopA()
	eventually(t, "the other leading", 10*time.Second, func() bool { return info(t, b).Shards == 64 && len(addrs(t, b)) > 0 })
	t.Logf("taken over in %s", time.Since(began))
	for i, u := range users {
		key := fmt.Sprint("after", i)
		u.put(b, key)
		u.arrives(c, key)
	}
}

// A process that is not linked to the one that leads, which is out of its reach, serves its clients, and says of what needs that one
// that it is to be asked again: 503.
func TestNotLinked(t *testing.T) {
	db := servers.Postgres(t)
	_, stop := run(t, sharing(t, db.DSN))
	stop()
	db.Exec(`UPDATE leases SET holder = '\x01', addrs = '01 /ip4/127.0.0.1/tcp/1', expires = 4102444800000 WHERE name = 'p2p'`)
	n, _ := run(t, sharing(t, db.DSN))
	other, _ := run(t, settings(t))
	_, invoke := signedIn(t, n)
	for _, ability := range []string{"tinycloud.kv/put", "tinycloud.kv/get"} {
		if status, answer := invoke(ability, "k", "v"); status != http.StatusOK {
			t.Error(ability, status, answer)
		}
	}
	if status, answer := call(t, http.MethodGet, n.URL()+"/healthz", "", ""); status != http.StatusOK {
		t.Error(status, answer)
	}
	ours := shown(invite(t, other))
	pair(t, n, ours, http.StatusServiceUnavailable, "another process replicates")
	if status, answer := call(t, http.MethodPost, n.URL()+"/admin/invites", bearer, "{}"); status != http.StatusServiceUnavailable || !strings.Contains(answer, "another process replicates") {
		t.Error(status, answer)
	}
	db.Exec(`UPDATE leases SET expires = 0 WHERE name = 'p2p'`)
	eventually(t, "leading", 10*time.Second, func() bool { return len(addrs(t, n)) > 0 })
	pair(t, n, ours, http.StatusOK, "")
}
