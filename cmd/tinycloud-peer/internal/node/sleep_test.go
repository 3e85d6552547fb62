package node_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

// dozes are the options of a node whose Spaces sleep soon.
func dozes(t *testing.T) node.Options {
	return node.Options{Rest: 200 * time.Millisecond, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

// fixed are settings with a p2p port that the node has again when it runs again.
func fixed(t *testing.T) config.Config {
	t.Helper()
	return settings(t, "TINYCLOUD_P2P_LISTEN="+freeAddr(t))
}

func (s *signed) join(n, with *node.Node) {
	s.Helper()
	body, err := json.Marshal(node.JoinRequest{Addrs: view(s.T, with, s.space).Addrs})
	if err != nil {
		s.Fatal(err)
	}
	path := n.URL() + "/admin/spaces/" + url.PathEscape(s.space.String()) + "/join"
	if status, answer := call(s.T, http.MethodPost, path, bearer, string(body)); status != http.StatusAccepted {
		s.Fatal(status, answer)
	}
}

// awaitSleeping waits until no Space of a node has an open peer, or one has.
func awaitSleeping(t *testing.T, n *node.Node, asleep bool) {
	t.Helper()
	want, metrics := "tinycloud_active_spaces 1\n", ""
	if asleep {
		want = "tinycloud_active_spaces 0\n"
	}
	await(t, func() bool {
		_, metrics = call(t, http.MethodGet, n.MetricsURL(), "", "")
		return strings.Contains(metrics, "\n"+want)
	}, func() string { return "no " + want })
}

// A Space sleeps once its other host is gone, tells its addresses all the same, and wakes by a write, by the
// other host's connection, and when the other host's node answers again.
func TestSpacesSleep(t *testing.T) {
	s := newSigned(t)
	bCfg := fixed(t)
	a, _ := runWith(t, settings(t), dozes(t))
	b, stopB := runWith(t, bCfg, dozes(t))
	s.host(a, true)
	s.put(a, "first", "1")
	awaitSleeping(t, a, true) // it has met nobody
	s.host(b, false)
	s.join(b, a) // which wakes it
	s.reads(b, "first", "1")
	addrs := view(t, a, s.space).Addrs
	stopB()
	awaitSleeping(t, a, true)
	if v := view(t, a, s.space); len(addrs) == 0 || strings.Join(v.Addrs, " ") != strings.Join(addrs, " ") {
		t.Errorf("asleep it is at %q, awake at %q", v.Addrs, addrs)
	}

	s.put(a, "alone", "2")
	awaitSleeping(t, a, false)
	awaitSleeping(t, a, true)

	b, stopB = runWith(t, bCfg, dozes(t)) // dials A's sleeping Space
	s.reads(b, "alone", "2")
	s.put(b, "back", "3")
	s.reads(a, "back", "3")
	stopB()
}

// A node that comes back under another address finds the others again, by their sleeping Spaces.
func TestSleepingSpacesLookForTheirHosts(t *testing.T) {
	s := newSigned(t)
	aCfg, bCfg := settings(t), fixed(t)
	a, stopA := runWith(t, aCfg, dozes(t))
	b, stopB := runWith(t, bCfg, dozes(t))
	s.host(a, true)
	s.put(a, "first", "1")
	s.host(b, false)
	s.join(b, a)
	s.reads(b, "first", "1")
	await(t, func() bool {
		fronts, err := a.Fronts(t.Context(), s.space)
		return err == nil && len(fronts) > 0
	}, func() string { return "A does not know where B is" })
	stopA()
	stopB()

	a, _ = runWith(t, aCfg, dozes(t)) // on another port, which B does not know
	awaitSleeping(t, a, true)
	b, _ = runWith(t, bCfg, dozes(t))
	awaitSleeping(t, a, false)
	s.put(b, "second", "2")
	s.reads(a, "second", "2")
}
