package node_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/attack"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// activeSpaces is how many Spaces of a node are open.
func activeSpaces(t *testing.T, n *node.Node) (open int) {
	t.Helper()
	_, metrics := call(t, http.MethodGet, n.MetricsURL(), "", "")
	_, rest, ok := strings.Cut(metrics, "\ntinycloud_active_spaces ")
	if _, err := fmt.Sscan(rest, &open); !ok || err != nil {
		t.Fatal("no count of open Spaces", err)
	}
	return open
}

// TestStrangersWakeFew has strangers under many names ask for all Spaces of a node: few are opened, for as long as somebody may
// take to prove that he is a host, and meanwhile a node that is known has its Space opened.
func TestStrangersWakeFew(t *testing.T) {
	a, _ := run(t, settings(t))
	b, _ := run(t, settings(t))
	const spaces, strangers, most = 96, 4, 64
	var addrs []string
	for range spaces {
		space, _ := signedIn(t, a)
		addrs = append(addrs, view(t, a, space).Addrs[0])
	}
	s := newSigned(t)
	s.host(a, true)
	s.put(a, "first", "1")
	pair(t, a, node.PairRequest{Addr: nodeAddr(t, b)}, http.StatusOK, "")
	if n := activeSpaces(t, a); n != 0 {
		t.Fatalf("%d Spaces are open before", n)
	}
	var wg sync.WaitGroup
	for i := range strangers {
		c, err := attack.New()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		wg.Go(func() {
			for k := range addrs { // refused or not
				_, _ = c.Dial(t.Context(), addrs[(k+i*spaces/strangers)%spaces])
			}
		})
	}
	wg.Wait()
	if n := activeSpaces(t, a); n == 0 || n > most {
		t.Errorf("strangers have %d of %d Spaces open, want at most %d", n, spaces, most)
	}
	s.host(b, false)
	s.join(b, a)
	s.reads(b, "first", "1")
	await(t, func() bool { return activeSpaces(t, a) == 1 }, func() string {
		return fmt.Sprint("open though nobody proved to be a host: ", activeSpaces(t, a))
	})
	if status, answer := s.invoke(a, "get", "first", ""); status != http.StatusOK || answer != "1" {
		t.Errorf("%d %s", status, answer)
	}
}
