package node_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

const sharedSecret = "TINYCLOUD_KEYS_SECRET=c2VjcmV0IG9mIHRoZSBub2RlcyB0aGF0IHNoYXJlIG9uZQ"

// sharing are the settings of a node that keeps its state in a server's database.
func sharing(t *testing.T, dsn string, variables ...string) config.Config {
	t.Helper()
	return settings(t, append([]string{"TINYCLOUD_STORAGE_DATABASE=" + dsn, sharedSecret}, variables...)...)
}

func addrs(t *testing.T, n *node.Node) []string {
	t.Helper()
	status, answer := call(t, http.MethodGet, n.URL()+"/admin/node", bearer, "")
	var info node.Info
	if err := json.Unmarshal([]byte(answer), &info); err != nil || status != http.StatusOK {
		t.Fatal(status, answer, err)
	}
	return info.Addrs
}

func eventually(t *testing.T, what string, within time.Duration, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(within); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal(what, "does not happen")
		}
	}
}

var servers testservers.Shared

// onServers tests with a database of each kind of server, which the test leaves alone.
func onServers(t *testing.T, test func(t *testing.T, db *testservers.Database)) {
	t.Run("postgres", func(t *testing.T) { t.Parallel(); test(t, servers.Postgres(t)) })
	t.Run("mariadb", func(t *testing.T) { t.Parallel(); test(t, servers.MariaDB(t)) })
}

// hostAt makes a node host a Space for its owner.
func hostAt(t *testing.T, n *node.Node, owner *captest.Wallet, space tinycloud.SpaceID) {
	t.Helper()
	status, did := call(t, http.MethodGet, n.URL()+"/peer/generate/"+url.PathEscape(space.String()), "", "")
	if status != http.StatusOK {
		t.Fatal(status, did)
	}
	if status, answer := call(t, http.MethodPost, n.URL()+"/delegate", owner.SignHost(space, did), ""); status != http.StatusOK {
		t.Fatal(status, answer)
	}
}

// Two nodes with one database are one host: both serve, one replicates, and when it ends the other does.
func TestTwoNodesOneDatabase(t *testing.T) {
	onServers(t, func(t *testing.T, db *testservers.Database) {
		a, stopA := run(t, sharing(t, db.DSN))
		eventually(t, "leading", 5*time.Second, func() bool { return len(addrs(t, a)) > 0 })
		b, _ := run(t, sharing(t, db.DSN))
		owner, session := captest.RandomWallet(), captest.RandomSession()
		space := owner.Space("default")
		hostAt(t, a, owner, space)
		grant := owner.SignDelegation(captest.DelegationOptions{Audience: session.URI(), Caps: captest.Caps{
			space.String() + "/kv": {"tinycloud.kv/put", "tinycloud.kv/get"},
		}})
		invoke := func(n *node.Node, ability, key, body string) (int, string) {
			return call(t, http.MethodPost, n.URL()+"/invoke", session.Invoke(captest.TokenOptions{
				Caps: captest.Caps{space.String() + "/kv/" + key: {ability}}, Proofs: []tinycloud.Hash{captest.ID(grant)},
			}), body)
		}
		if status, answer := call(t, http.MethodPost, b.URL()+"/delegate", grant, ""); status != http.StatusOK {
			t.Fatal(status, answer)
		}
		for i, n := range []*node.Node{b, a, b} {
			if status, answer := invoke(n, "tinycloud.kv/put", "k", strings.Repeat("v", i)); status != http.StatusOK {
				t.Fatal(i, status, answer)
			}
		}
		for _, n := range []*node.Node{a, b} {
			if status, got := invoke(n, "tinycloud.kv/get", "k", ""); status != http.StatusOK || got != "vv" {
				t.Error(status, got)
			}
			if status, _ := call(t, http.MethodGet, n.URL()+"/healthz", "", ""); status != http.StatusOK {
				t.Error("healthz:", status)
			}
		}
		if len(addrs(t, b)) != 0 {
			t.Error("both replicate")
		}
		// Another host gets what the one that does not replicate was given.
		c, _ := run(t, settings(t))
		hostAt(t, c, owner, space)
		join := func(n *node.Node) {
			body, err := json.Marshal(node.JoinRequest{Addrs: view(t, n, space).Addrs})
			if err != nil {
				t.Fatal(err)
			}
			if status, answer := call(t, http.MethodPost, c.URL()+"/admin/spaces/"+url.PathEscape(space.String())+"/join", bearer, string(body)); status != http.StatusAccepted {
				t.Fatal(status, answer)
			}
		}
		arrives := func(key string) {
			t.Helper()
			eventually(t, key+" at the other host", 20*time.Second, func() bool {
				status, got := invoke(c, "tinycloud.kv/get", key, "")
				return status == http.StatusOK && got == key
			})
		}
		join(a)
		if status, answer := invoke(b, "tinycloud.kv/put", "first", "first"); status != http.StatusOK {
			t.Fatal(status, answer)
		}
		arrives("first")
		stopA()
		eventually(t, "the other leading", 10*time.Second, func() bool { return len(addrs(t, b)) > 0 })
		join(b)
		if status, answer := invoke(b, "tinycloud.kv/put", "second", "second"); status != http.StatusOK {
			t.Fatal(status, answer)
		}
		arrives("second")
		if x, y := view(t, b, space), view(t, c, space); x.StateHash != y.StateHash || x.Void != 0 {
			t.Errorf("%+v\n%+v", x, y)
		}
	})
}

// Without its database a node says so, and goes on by itself when it is back.
func TestDatabaseLost(t *testing.T) {
	t.Run("postgres", func(t *testing.T) { t.Parallel(); testDatabaseLost(t, testservers.Postgres(t)) })
	t.Run("mariadb", func(t *testing.T) { t.Parallel(); testDatabaseLost(t, testservers.MariaDB(t)) })
}

func testDatabaseLost(t *testing.T, db *testservers.Database) {
	n, _ := run(t, sharing(t, db.DSN))
	_, invoke := signedIn(t, n)
	if status, answer := invoke("tinycloud.kv/put", "k", "before"); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	db.Kill9()
	for what, request := range map[string]func() (int, string){
		"healthz": func() (int, string) { return call(t, http.MethodGet, n.URL()+"/healthz", "", "") },
		"put":     func() (int, string) { return invoke("tinycloud.kv/put", "k", "lost") },
		"get":     func() (int, string) { return invoke("tinycloud.kv/get", "k", "") },
	} {
		if status, answer := request(); status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d %s", what, status, answer)
		}
	}
	db.Start()
	eventually(t, "recovery", 15*time.Second, func() bool {
		status, _ := call(t, http.MethodGet, n.URL()+"/healthz", "", "")
		return status == http.StatusOK
	})
	if status, got := invoke("tinycloud.kv/get", "k", ""); status != http.StatusOK || got != "before" {
		t.Error(status, got)
	}
	if status, answer := invoke("tinycloud.kv/put", "k", "after"); status != http.StatusOK {
		t.Error(status, answer)
	}
	eventually(t, "leading again", 15*time.Second, func() bool { return len(addrs(t, n)) > 0 })
}

// A node does not start without its database.
func TestNoDatabase(t *testing.T) {
	for _, dsn := range []string{"postgres://user:hunter2@127.0.0.1:1/db", "mysql://user:hunter2@127.0.0.1:1/db"} {
		_, err := node.New(t.Context(), settings(t, "TINYCLOUD_STORAGE_DATABASE="+dsn, "TINYCLOUD_STORAGE_BLOCKS_PATH="+filepath.Join(t.TempDir(), "b")), node.Options{})
		if err == nil || !strings.Contains(err.Error(), "storage.database") || strings.Contains(err.Error(), "hunter2") {
			t.Error(err)
		}
	}
}
