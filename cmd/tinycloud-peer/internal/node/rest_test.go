package node_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// rests are the options of a node that lets every Space rest as soon as nothing happens in it.
func rests(t *testing.T) node.Options {
	return node.Options{Awake: -1, Quiet: 100 * time.Millisecond, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

// awaitRest waits until no Space of the nodes is open.
func awaitRest(t *testing.T, nodes ...*node.Node) {
	t.Helper()
	for _, n := range nodes {
		awaitSleeping(t, n, true)
	}
}

// Two hosts in which nothing happens close their connection, say that they are connected all the same, and are again
// as soon as one of them has something new.
func TestSpacesRest(t *testing.T) {
	s := newSigned(t)
	a, _ := runWith(t, settings(t), rests(t))
	b, stopB := runWith(t, settings(t), rests(t))
	s.host(a, true)
	s.put(a, "first", "1")
	s.host(b, false)
	s.join(b, a)
	s.reads(b, "first", "1")
	awaitRest(t, a, b)
	for _, n := range []*node.Node{a, b} {
		if _, metrics := call(t, http.MethodGet, n.MetricsURL(), "", ""); !strings.Contains(metrics, "\ntinycloud_resting_spaces 1\n") {
			t.Error("the metrics don't tell of a Space that rests")
		}
		var hosts []node.HostView
		await(t, func() bool { // what is told while it rests: it may wake now and then
			hosts = view(t, n, s.space).Hosts
			told := !slices.ContainsFunc(hosts, func(h node.HostView) bool { return !h.Connected || !h.Synced })
			return told && activeSpaces(t, n) == 0
		}, func() string { return fmt.Sprintf("asleep: %+v", hosts) })
	}

	s.put(a, "second", "2")
	s.reads(b, "second", "2")
	awaitRest(t, a, b)
	s.put(b, "third", "3")
	s.reads(a, "third", "3")
	awaitRest(t, a, b)

	stopB() // the connection of the nodes ends, and the rest with it
	await(t, func() bool {
		for _, h := range view(t, a, s.space).Hosts {
			if !h.Self && h.Connected {
				return false
			}
		}
		return true
	}, func() string { return "B is gone, and still shown as connected" })
	s.put(a, "alone", "4")
}

// One node that has many Spaces lets its Space rest; the other has few and leaves it open. Neither has the other's
// Space start again without need, and a write wakes it.
func TestOneHostRests(t *testing.T) {
	s := newSigned(t)
	awake := rests(t)
	awake.Awake = 10
	a, _ := runWith(t, settings(t), rests(t))
	b, _ := runWith(t, settings(t), awake)
	s.host(a, true)
	s.put(a, "first", "1")
	s.host(b, false)
	s.join(b, a)
	s.reads(b, "first", "1")
	awaitRest(t, a, b) // B, left alone, rests as well
	s.put(b, "second", "2")
	s.reads(a, "second", "2")
	awaitRest(t, a, b)
}

// A value that stays away until it is read comes from a host that rests.
func TestReadWakes(t *testing.T) {
	s := newSigned(t)
	a, _ := runWith(t, settings(t), rests(t))
	lazy := settings(t, "TINYCLOUD_P2P_VALUES=lazy")
	b, _ := runWith(t, lazy, rests(t))
	value := strings.Repeat("value ", 1<<15)
	s.host(a, true)
	s.put(a, "first", "1")
	s.put(a, "large", value)
	s.host(b, false)
	s.join(b, a)
	s.reads(b, "first", "1")
	awaitRest(t, a, b)
	if status, got := s.invoke(b, "get", "large", ""); status != http.StatusOK || got != value {
		t.Errorf("status %d, %d bytes", status, len(got))
	}
}
