package main

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// add adds to a counter at a peer.
func (g *group) addTo(p *cluster.Peer, about, by string) {
	g.Helper()
	g.invoke(p, http.StatusOK, nil, by, "counter/"+about, servicetest.Add)
}

// counts waits until peers have a counter at a value.
func (g *group) counts(about, value string, peers ...*cluster.Peer) {
	g.Helper()
	for _, p := range peers {
		var got cluster.Answer
		if err := cluster.Poll(g.ctx, pollEvery/10, func() (bool, error) {
			var err error
			got, err = g.owner.Call(g.ctx, p, http.MethodPost, "/invoke", g.owner.Token("counter/"+about, servicetest.Read), nil, strings.NewReader(""))
			return err == nil && got.Status == http.StatusOK && got.Body == value, err
		}); err != nil {
			g.Fatalf("%s: %s is %d %q, want %q: %v", p.Name, about, got.Status, got.Body, value, err)
		}
	}
}

// A host without a service passes its operations on, answers for what they are about that it needs an upgrade, and goes
// on with all else. After the upgrade it has what the others have.
func TestServiceThroughAHostWithout(t *testing.T) {
	t.Parallel()
	g := &mixed{startGroup(t, 0), ""}
	middle := g.add()
	join := func() *cluster.Peer {
		p, err := g.nodes.Add(g.ctx, withCounter+"1")
		g.must(err)
		g.must(g.owner.Host(g.ctx, p))
		g.must(g.owner.Join(g.ctx, p, middle))
		return p
	}
	a, b := join(), join()
	g.same()
	g.addTo(a, "visits", "3")
	g.counts("visits", "3 3", a, b)
	g.addTo(b, "visits", "4")
	g.counts("visits", "7 4", a, b)
	g.put(middle, "key", "value")
	g.takes("key", "value", a, b)
	answer := g.invoke(middle, http.StatusServiceUnavailable, nil, "", "counter/visits", servicetest.Read)
	if !strings.Contains(answer.Body, "upgrade") {
		t.Errorf("without the service: %q", answer.Body)
	}
	// One of the two misses something, and has it from the one in the middle alone.
	g.must(b.Stop())
	g.addTo(a, "visits", "1")
	g.put(a, "after", "it")
	g.takes("after", "it", middle)
	g.must(a.Stop())
	g.must(b.Start(g.ctx))
	g.counts("visits", "8 1", b)
	g.must(a.Start(g.ctx))

	g.must(middle.Stop())
	middle.Set(withCounter + "1")
	g.must(middle.Start(g.ctx))
	g.counts("visits", "8 1", middle)
	g.same()
}

// A release that knows no services is given what comes before their first operation, and is not offended by the rest.
func TestOlderReleaseStopsAtAService(t *testing.T) {
	t.Parallel()
	g := startMixed(t)
	a, err := g.nodes.Add(g.ctx, withCounter+"1")
	g.must(err)
	g.must(g.owner.Host(g.ctx, a))
	_, err = g.owner.SignIn(g.ctx, a)
	g.must(err)
	old := g.addOlder()
	b, err := g.nodes.Add(g.ctx, withCounter+"1")
	g.must(err)
	g.must(g.owner.Host(g.ctx, b))
	g.must(g.owner.Join(g.ctx, b, a))
	g.put(a, "before", "1")
	g.equal(1, a, b, old)
	g.addTo(a, "visits", "5")
	g.counts("visits", "5 5", a, b)
	g.put(a, "after", "2")
	g.takes("after", "2", b)
	g.put(old, "older", "3")
	g.takes("older", "3", a, b)
	g.must(old.Stop()) // it asks for all anew
	g.must(old.Start(g.ctx))
	g.put(old, "again", "4")
	g.takes("again", "4", a, b)
	g.takes("before", "1", old)
	if _, err := g.owner.Get(g.ctx, old, "after"); !errors.Is(err, tinycloud.ErrNotFound) {
		t.Errorf("the older release: %v", err)
	}
	g.takesForOlder(a, old)
	g.nobodyOffended()
	// Upgraded it has all.
	g.must(old.Stop())
	old.Run(g.binary)
	old.Set(withCounter + "1")
	g.must(old.Start(g.ctx))
	g.counts("visits", "5 5", old)
	g.takes("after", "2", old)
}
