package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// olderRelease is the last commit whose hosts order writes by seq and greet by the first handshake.
const olderRelease = "d73b15e351cec217f144dc8067b5b41f68c86133"

// older builds that release once for all tests of a run. It is kept in memory, for nobody is told when the last test ends.
var older = sync.OnceValues(func() (program []byte, err error) {
	dir, err := os.MkdirTemp("", "older")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	top, err := output(exec.Command("git", "rev-parse", "--show-toplevel"))
	if err != nil {
		return nil, fmt.Errorf("no git repository, which this test builds an older release from: %w", err)
	}
	archive := exec.Command("git", "archive", "--format=tar", "-o", filepath.Join(dir, "older.tar"), olderRelease)
	archive.Dir = strings.TrimSpace(top)
	if _, err := output(archive); err != nil {
		return nil, fmt.Errorf("commit %s is not in this clone, fetch the whole history (git fetch --unshallow): %w", olderRelease, err)
	}
	if err := os.Mkdir(filepath.Join(dir, "src"), 0o700); err != nil {
		return nil, err
	}
	if _, err := output(exec.Command("tar", "-xf", filepath.Join(dir, "older.tar"), "-C", filepath.Join(dir, "src"))); err != nil {
		return nil, err
	}
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "tinycloud-peer"), "./cmd/tinycloud-peer")
	build.Dir = filepath.Join(dir, "src")
	build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	if _, err := output(build); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(dir, "tinycloud-peer"))
})

// output runs a command; the error tells what it said.
func output(cmd *exec.Cmd) (string, error) {
	var said strings.Builder
	cmd.Stderr = &said
	b, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, said.String())
	}
	return string(b), nil
}

// olderBinary is the path of the older release's program.
func olderBinary(t *testing.T) string {
	t.Helper()
	program, err := older()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "older")
	if err := os.WriteFile(path, program, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// mixed is a group whose peers run two releases.
type mixed struct {
	*group
	older string
}

func startMixed(t *testing.T) *mixed {
	t.Helper()
	binary := olderBinary(t) // before the clock of the group runs
	return &mixed{startGroup(t, 0), binary}
}

// addOlder adds a peer of the older release.
func (g *mixed) addOlder() *cluster.Peer {
	g.Helper()
	g.nodes.Run(g.older)
	defer g.nodes.Run(g.binary)
	return g.add()
}

// takes waits until all peers answer with a value, or with none.
func (g *mixed) takes(key, value string, peers ...*cluster.Peer) {
	g.Helper()
	for _, p := range peers {
		var got []byte
		var err error
		if waited := cluster.Poll(g.ctx, 5*time.Millisecond, func() (bool, error) {
			got, err = g.owner.Get(g.ctx, p, key)
			if value == "" {
				return errors.Is(err, tinycloud.ErrNotFound), nil
			}
			return err == nil && string(got) == value, nil
		}); waited != nil {
			g.Fatalf("%s: %s is %.80q, %v; want %.80q: %v", p.Name, key, got, err, value, waited)
		}
	}
}

// equal waits until the peers have the same entries; of one release they are in the same state then.
func (g *mixed) equal(keys int64, peers ...*cluster.Peer) {
	g.Helper()
	views, err := g.owner.AwaitSame(g.ctx, peers)
	if err != nil {
		g.Fatalf("%v: %+v", err, views)
	}
	for i, v := range views {
		if v.Void != 0 || v.Parked != 0 || v.Keys != keys {
			g.Errorf("%s: %d void, %d parked, %d keys, want %d", peers[i].Name, v.Void, v.Parked, v.Keys, keys)
		}
	}
}

// takesForOlder checks what a peer shows of others' releases, in JSON and in the list for people.
func (g *mixed) takesForOlder(p *cluster.Peer, older ...*cluster.Peer) {
	g.Helper()
	var want []string
	for _, other := range older {
		want = append(want, g.view(other, g.owner).DID)
	}
	slices.Sort(want)
	var got []string
	var v node.SpaceView
	if err := cluster.Poll(g.ctx, 10*time.Millisecond, func() (bool, error) {
		got = nil
		v = g.view(p, g.owner)
		unheard := false // it has told nothing of itself yet
		for _, h := range v.Hosts {
			unheard = unheard || h.Rules == 0 && !h.Older
			if h.Older {
				got = append(got, h.DID)
			}
		}
		slices.Sort(got)
		return slices.Equal(got, want) && !unheard, nil
	}); err != nil {
		g.Fatalf("%s takes %v for older, want %v: %v", p.Name, got, want, err)
	}
	for _, h := range v.Hosts {
		if (h.Rules == capstore.Rules) == h.Older {
			g.Errorf("%s: %s has rules %d, older %t", p.Name, h.DID, h.Rules, h.Older)
		}
	}
	text, err := p.Verb(g.ctx, "peers", g.owner.Space.String())
	if err != nil || strings.Count(text, "older version") != len(want) {
		g.Errorf("%s: %v\n%s", p.Name, err, text)
	}
}

// nobodyOffended fails when a peer cut another one off for what it sent.
func (g *mixed) nobodyOffended() {
	g.Helper()
	for _, p := range g.nodes.Peers() {
		log, err := os.ReadFile(p.LogFile())
		g.must(err)
		for _, line := range []string{"peer sent what no host should", "host cut off"} {
			if strings.Contains(string(log), line) {
				g.Errorf("%s says %q", p.Name, line)
			}
		}
	}
}

// Hosts of the release before this one and of this one replicate a Space, whichever had it first and whichever dials:
// what follows upon something is the same on all. Afterwards the older one is upgraded in its place.
func TestOlderRelease(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"older first", "newer first"} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			g := startMixed(t)
			add := []func() *cluster.Peer{g.addOlder, g.add}
			if first == "newer first" {
				slices.Reverse(add)
			}
			a := add[0]()
			large := strings.Repeat("large values travel as blocks. ", 40_000) // 1.2 MB
			for n := range 30 {
				g.put(a, fmt.Sprint("before/", n), fmt.Sprint("value ", n))
			}
			g.put(a, "large", large)
			b := add[1]() // catches up with the other release
			g.equal(31, a, b)
			g.takes("before/17", "value 17", b)
			g.takes("large", large, b)

			g.bothWays(a, b)
			newer, old := a, b
			if first == "older first" {
				newer, old = b, a
			}
			g.takesForOlder(newer, old)
			g.restarts(a, b)
			g.takesForOlder(newer, old)
			g.nobodyOffended()
			g.upgraded(newer, old)
		})
	}
}

// bothWays writes, overwrites and deletes on each of two peers what came from the other.
func (g *mixed) bothWays(a, b *cluster.Peer) {
	g.Helper()
	both := []*cluster.Peer{a, b}
	for i, p := range both {
		other := both[1-i]
		key := "by/" + p.Name
		g.put(p, key, "first")
		g.takes(key, "first", other)
		g.put(other, key, "second")
		g.takes(key, "second", p)
		g.put(p, key+"/medium", strings.Repeat("m", 100_000+i))
		g.takes(key+"/medium", strings.Repeat("m", 100_000+i), other)
		g.must(g.owner.Delete(g.ctx, other, key+"/medium"))
		g.takes(key+"/medium", "", p)
		g.put(p, key+"/medium", "again")
		g.takes(key+"/medium", "again", other)
	}
	g.equal(35, a, b)
}

// restarts has each of two peers miss what the other one writes, so that both come to catch up and both dial.
func (g *mixed) restarts(a, b *cluster.Peer) {
	g.Helper()
	both := []*cluster.Peer{a, b}
	for i, p := range both {
		other := both[1-i]
		g.must(p.Stop())
		g.put(other, "missed/"+p.Name, "1")
		g.must(g.owner.Delete(g.ctx, other, "by/"+p.Name))
		g.must(p.Start(g.ctx))
		g.takes("missed/"+p.Name, "1", p)
		g.takes("by/"+p.Name, "", p)
	}
	g.equal(35, a, b)
}

// upgraded runs the newer release on the older one's data, and adds a newcomer.
func (g *mixed) upgraded(newer, old *cluster.Peer) {
	g.Helper()
	g.must(old.Stop())
	old.Run(g.binary)
	g.must(old.Start(g.ctx))
	g.put(old, "upgraded", "yes")
	g.takes("upgraded", "yes", newer)
	late := g.add()
	g.equal(36, newer, old, late)
	for _, p := range []*cluster.Peer{newer, old, late} {
		g.takesForOlder(p)
	}
	g.nobodyOffended()
}

// Newcomers of each release catch up with three hosts of both.
func TestOlderAndNewerNewcomers(t *testing.T) {
	t.Parallel()
	g := startMixed(t)
	first, old := g.add(), g.addOlder()
	g.equal(0, first, old)
	for n := range 20 {
		g.put(first, fmt.Sprint("a/", n), "newer")
		g.put(old, fmt.Sprint("b/", n), "older")
	}
	lateOlder, lateNewer := g.addOlder(), g.add()
	all := g.nodes.Peers()
	g.equal(40, all...)
	g.put(lateOlder, "late/older", "1")
	g.put(lateNewer, "late/newer", "1")
	g.takes("late/older", "1", all...)
	g.takes("late/newer", "1", all...)
	g.equal(42, all...)
	g.takesForOlder(first, old, lateOlder)
	g.takesForOlder(lateNewer, old, lateOlder)
	g.nobodyOffended()
}
