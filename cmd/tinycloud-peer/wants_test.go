package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// files is where a peer has the Space's values of more than 64 KiB.
func (g *group) files(p *cluster.Peer) string {
	return filepath.Join(p.Dir, "data", "blocks", strings.TrimPrefix(string(g.owner.Space.Owner()), "did:"), g.owner.Space.Name())
}

// awaits waits until a peer has the same keys as another one and lacks so many values.
func (g *group) awaits(p, other *cluster.Peer, wants int64) {
	g.Helper()
	g.must(cluster.Poll(g.ctx, 10*time.Millisecond, func() (bool, error) {
		x, y := g.view(other, g.owner), g.view(p, g.owner)
		return x.StateHash == y.StateHash && y.State == "synced" && y.Wants == wants, nil
	}))
}

// The only holder of values is killed when their operations have reached an eager host and they have not: they are on
// their way, whoever asks, until the holder is back, and come then, also to a host that was killed meanwhile.
func TestWantsOutliveProcesses(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 2)
	g.same()
	holder, replica := g.nodes.Peers()[0], g.nodes.Peers()[1]
	for round, restart := range []bool{false, true} {
		values := map[string]string{ // one block, and several
			fmt.Sprint("block/", round):  strings.Repeat(fmt.Sprint("block ", round), 20_000),
			fmt.Sprint("blocks/", round): strings.Repeat(fmt.Sprint("blocks ", round), 300_000),
		}
		away := func(when string) {
			t.Helper()
			for key := range values {
				got := g.invoke(replica, http.StatusServiceUnavailable, nil, "", "kv/"+key, "tinycloud.kv/get")
				if got.Header.Get("Retry-After") == "" {
					t.Errorf("%s: %s without Retry-After: %v", when, key, got.Header)
				}
			}
		}
		g.must(replica.Stop())
		for key, value := range values {
			g.put(holder, key, value)
		}
		hidden := g.files(holder) + " away"
		g.must(os.Rename(g.files(holder), hidden)) // it has them, and gives none
		g.must(replica.Start(g.ctx))
		g.awaits(replica, holder, int64(len(values)))
		g.must(holder.Kill())
		away("holder is gone")
		if restart {
			g.must(replica.Kill())
			g.must(replica.Start(g.ctx))
			away("both were killed")
		}
		g.must(os.RemoveAll(g.files(holder)))
		g.must(os.Rename(hidden, g.files(holder)))
		g.must(holder.Start(g.ctx))
		g.awaits(replica, holder, 0)
		g.must(holder.Stop())
		for key, value := range values {
			g.reads(key, value, replica)
		}
		g.must(holder.Start(g.ctx))
	}
}
