package node_test

import (
	"crypto/ed25519"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

// planned is a node whose address is known before it runs, so that others can name it.
type planned struct {
	addr string
	env  []string
}

func plan(t *testing.T, n byte) planned {
	t.Helper()
	secret := slices.Repeat([]byte{n}, 32)
	k, err := hostkeys.New(secret)
	if err != nil {
		t.Fatal(err)
	}
	id, err := p2p.PeerIDFromEd25519(k.NodeKey().Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	listen := freeAddr(t)
	return planned{addr: listen + "/p2p/" + id.String(), env: []string{
		"TINYCLOUD_KEYS_SECRET=" + base64.RawURLEncoding.EncodeToString(secret), "TINYCLOUD_P2P_LISTEN=" + listen,
	}}
}

// freeAddr is a multiaddr with a port that no other program is given before a node listens there.
func freeAddr(t *testing.T) string {
	t.Helper()
	port, err := cluster.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return "/ip4/127.0.0.1/tcp/" + port
}

// naming are the settings of a node that names others, for a time that no test waits for.
func (p planned) naming(t *testing.T, others ...string) config.Config {
	t.Helper()
	return settings(t, append(p.env, "TINYCLOUD_P2P_JOIN_TIMEOUT=1h", "TINYCLOUD_P2P_BOOTSTRAP="+strings.Join(others, ","))...)
}

func (s *signed) delegate(n *node.Node, header string) (int, string) {
	s.Helper()
	return call(s.T, http.MethodPost, n.URL()+"/delegate", header, "")
}

func (s *signed) hostHeader(n *node.Node) string {
	s.Helper()
	_, did := call(s.T, http.MethodGet, n.URL()+"/peer/generate/"+url.PathEscape(s.space.String()), "", "")
	return s.owner.SignHost(s.space, did)
}

// becomes waits for the state of a Space at a node.
func (s *signed) becomes(n *node.Node, states ...string) node.SpaceView {
	s.Helper()
	var v node.SpaceView
	await(s.T, func() bool {
		v = view(s.T, n, s.space)
		return slices.Contains(states, v.State)
	}, func() string { b, _ := json.Marshal(v); return string(b) })
	return v
}

// unreachable is a named node that refuses connections.
func unreachable(t *testing.T) string { return plan(t, 99).addr }

// Where the named node has no part in the Space, a user's first sign-in is not held up: it says so, and that is all.
func TestNoneOpensAtOnce(t *testing.T) {
	s := newSigned(t)
	a, _ := run(t, settings(t))
	cfg := plan(t, 1).naming(t, nodeAddr(t, a))
	b, _ := run(t, cfg)
	began := time.Now()
	s.host(b, true) // the session's delegation waits for the end of joining
	if took := time.Since(began); took >= cfg.P2P.JoinTimeout {
		t.Errorf("signed in after %s", took)
	}
	if status, answer := s.invoke(b, "get", "k", ""); status != http.StatusNotFound {
		t.Error(status, answer)
	}
	v := view(t, b, s.space)
	if v.State != "hosted" || v.Opens != nil || len(v.Joins) != 1 || v.Joins[0].State != "none" {
		t.Errorf("%+v", v)
	}
	s.put(b, "k", "v")
}

// A named node that is out of reach holds a Space up for the time that is set, and only the first one.
func TestSilenceOpensInTime(t *testing.T) {
	const timeout = 700 * time.Millisecond
	first, second := newSigned(t), newSigned(t)
	n, _ := run(t, settings(t, "TINYCLOUD_P2P_BOOTSTRAP="+unreachable(t), "TINYCLOUD_P2P_JOIN_TIMEOUT="+timeout.String()))
	began := time.Now()
	first.host(n, true)
	if status, answer := first.invoke(n, "get", "k", ""); status != http.StatusNotFound {
		t.Error(status, answer)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("open after %s", took)
	}
	first.becomes(n, "hosted")
	await(t, func() bool {
		v := view(t, n, first.space)
		return len(v.Joins) == 1 && v.Joins[0].State == "unreachable" && v.Joins[0].LastError != ""
	}, func() string { return fmt.Sprint(view(t, n, first.space).Joins) })
	second.host(n, true)
	second.put(n, "k", "v")
}

// With a history at the named node nothing is ever told to be absent, from the very moment of the delegation.
func TestHistoryIsNeverAbsent(t *testing.T) {
	s := newSigned(t)
	a, _ := run(t, settings(t))
	s.host(a, true)
	s.put(a, "k", "v")
	for name, addr := range map[string]string{"node": nodeAddr(t, a), "space": view(t, a, s.space).Addrs[0]} {
		t.Run(name, func(t *testing.T) {
			s.T = t
			b, _ := run(t, plan(t, 1).naming(t, addr))
			if status, answer := s.delegate(b, s.hostHeader(b)); status != http.StatusOK {
				t.Fatal(status, answer)
			}
			await(t, func() bool {
				status, got := s.invoke(b, "get", "k", "")
				if status != http.StatusOK && status != http.StatusServiceUnavailable {
					t.Fatal(status, got)
				}
				return status == http.StatusOK && got == "v"
			}, func() string { return view(t, b, s.space).State })
			s.becomes(b, "synced")
		})
	}
}

// Fresh nodes that name each other wait until one of them, and only one, begins.
func TestFreshNodes(t *testing.T) {
	for name, names := range map[string][][]int{"two": {{1}, {0}}, "cycle of three": {{1}, {2}, {0}}} {
		t.Run(name, func(t *testing.T) {
			s := newSigned(t)
			var plans []planned
			for i := range names {
				plans = append(plans, plan(t, byte(i+1)))
			}
			nodes := make([]*node.Node, len(names))
			for i, others := range names {
				var addrs []string
				for _, j := range others {
					addrs = append(addrs, plans[j].addr)
				}
				nodes[i], _ = run(t, plans[i].naming(t, addrs...))
			}
			headers := make([]string, len(nodes))
			for i, n := range nodes {
				headers[i] = s.hostHeader(n)
			}
			var wg sync.WaitGroup
			for i, n := range nodes {
				wg.Go(func() {
					if status, answer := s.delegate(n, headers[i]); status != http.StatusOK {
						t.Error(status, answer)
					}
				})
			}
			wg.Wait()
			for _, n := range nodes {
				s.becomes(n, "synced", "hosted")
			}
			if status, answer := s.delegate(nodes[0], s.grant); status != http.StatusOK {
				t.Fatal(status, answer)
			}
			s.put(nodes[0], "k", "v")
			if name == "two" {
				s.reads(nodes[1], "k", "v")
			}
		})
	}
}

// A restart in the middle changes nothing: a Space waits for a silent node until its time, or until the operator says that
// there is nothing to wait for.
func TestJoiningAfterRestart(t *testing.T) {
	s := newSigned(t)
	cfg := plan(t, 1).naming(t, unreachable(t))
	n, stop := run(t, cfg)
	if status, answer := s.delegate(n, s.hostHeader(n)); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	stop()
	n, _ = run(t, cfg)
	if v := view(t, n, s.space); v.State != "joining" || v.Opens == nil {
		t.Errorf("%+v", v)
	}
	if status, answer := s.delegate(n, s.grant); status != http.StatusServiceUnavailable {
		t.Error(status, answer)
	}
	if status, answer := s.joinBy(n, true); status != http.StatusAccepted {
		t.Fatal(status, answer)
	}
	if status, answer := s.delegate(n, s.grant); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	s.put(n, "k", "v")
}

func (s *signed) joinBy(n *node.Node, empty bool, addrs ...string) (int, string) {
	s.Helper()
	body, err := json.Marshal(node.JoinRequest{Addrs: append([]string{}, addrs...), Empty: empty})
	if err != nil {
		s.Fatal(err)
	}
	return call(s.T, http.MethodPost, n.URL()+"/admin/spaces/"+url.PathEscape(s.space.String())+"/join", bearer, string(body))
}

// A join asked for before the Space is hosted takes effect with that.
func TestJoinBeforeHosting(t *testing.T) {
	s := newSigned(t)
	a, _ := run(t, settings(t))
	s.host(a, true)
	s.put(a, "k", "v")
	b, _ := run(t, settings(t, "TINYCLOUD_P2P_JOIN_TIMEOUT=1h"))
	status, answer := s.joinBy(b, false, view(t, a, s.space).Addrs...)
	var h node.Hosting
	if err := json.Unmarshal([]byte(answer), &h); err != nil || status != http.StatusConflict || h.SIWE == "" || !h.Remembered {
		t.Fatal(status, answer, err)
	}
	if status, answer := s.delegate(b, s.hostHeader(b)); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	await(t, func() bool {
		status, got := s.invoke(b, "get", "k", "")
		if status != http.StatusOK && status != http.StatusServiceUnavailable {
			t.Fatal(status, got)
		}
		return status == http.StatusOK && got == "v"
	}, func() string { return view(t, b, s.space).State })
}

// Thirteen users who sign in at once, with five Spaces each, all get in: nobody waits for all Spaces of another.
func TestManySignInsAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("65 Spaces")
	}
	a, _ := run(t, settings(t))
	b, _ := run(t, plan(t, 1).naming(t, nodeAddr(t, a)))
	var wg sync.WaitGroup
	began := time.Now()
	for range 13 {
		owner := captest.RandomWallet()
		for i := range 5 {
			s := &signed{T: t, owner: owner, space: owner.Space(fmt.Sprint("space", i))}
			wg.Go(func() {
				if status, answer := s.delegate(b, s.hostHeader(b)); status != http.StatusOK {
					t.Error(status, answer)
				}
				s.becomes(b, "hosted")
			})
		}
	}
	wg.Wait()
	t.Logf("all are open after %s", time.Since(began).Round(time.Millisecond))
}

// Hosts that were all restored from backups wait for each other, not for ever: the least goes on with what they have. One
// that is alone does not go on by itself.
func TestAllRestored(t *testing.T) {
	s := newSigned(t)
	plans := []planned{plan(t, 1), plan(t, 2)}
	cfgs := []config.Config{
		settings(t, append(plans[0].env, "TINYCLOUD_P2P_JOIN_TIMEOUT=100ms")...),
		settings(t, append(plans[1].env, "TINYCLOUD_P2P_JOIN_TIMEOUT=100ms", "TINYCLOUD_P2P_BOOTSTRAP="+plans[0].addr)...),
	}
	a, stopA := run(t, cfgs[0])
	b, stopB := run(t, cfgs[1])
	s.host(a, true)
	s.put(a, "k", "v")
	s.host(b, false)
	s.reads(b, "k", "v")
	stopA()
	stopB()
	for _, cfg := range cfgs {
		db, err := sql.Open("sqlite", cfg.Storage.Database.Path())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(t.Context(), "UPDATE spaces SET state = 'restored'"); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	a, _ = run(t, cfgs[0])
	if status, answer := s.invoke(a, "put", "k", "alone"); status != http.StatusServiceUnavailable {
		t.Error(status, answer)
	}
	if v := view(t, a, s.space); v.State != "joining" || v.Opens != nil {
		t.Errorf("%+v", v)
	}
	b, _ = run(t, cfgs[1])
	s.becomes(a, "synced")
	s.becomes(b, "synced")
	s.put(a, "k", "together")
	s.reads(b, "k", "together")
}

// Of processes with one database the one that leads asks, whichever was given the delegation; all see what comes of it.
func TestJoiningOnOneDatabase(t *testing.T) {
	onServers(t, func(t *testing.T, db *testservers.Database) {
		s, fresh := newSigned(t), newSigned(t)
		first, _ := run(t, settings(t))
		s.host(first, true)
		s.put(first, "k", "v")
		env := []string{
			"TINYCLOUD_STORAGE_DATABASE=" + db.DSN, sharedSecret, "TINYCLOUD_P2P_JOIN_TIMEOUT=1h", "TINYCLOUD_P2P_BOOTSTRAP=" + nodeAddr(t, first),
		}
		leader, _ := run(t, settings(t, env...))
		eventually(t, "leading", 5*time.Second, func() bool { return len(addrs(t, leader)) > 0 })
		other, _ := run(t, settings(t, env...))
		if status, answer := s.delegate(other, s.hostHeader(other)); status != http.StatusOK {
			t.Fatal(status, answer)
		}
		for _, n := range []*node.Node{leader, other} {
			await(t, func() bool {
				status, got := s.invoke(n, "get", "k", "")
				if status != http.StatusOK && status != http.StatusServiceUnavailable {
					t.Fatal(status, got)
				}
				return got == "v"
			}, func() string { return view(t, n, s.space).State })
		}
		fresh.host(other, true) // nobody else has it
		fresh.put(leader, "k", "v")
		if v := fresh.becomes(other, "hosted"); v.Opens != nil {
			t.Errorf("%+v", v)
		}
	})
}
