package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// advertised is the key that a host describes the network with, its version 0 for none.
type advertised struct {
	Version int64  `json:"keyVersion"`
	Key     []byte `json:"publicEncryptionKey"`
}

func (v *vault) advertised(p *cluster.Peer) advertised {
	v.Helper()
	var d struct{ Descriptor advertised }
	if a := v.describe(p); a.Status == http.StatusOK {
		v.must(json.Unmarshal([]byte(a.Body), &d))
	}
	return d.Descriptor
}

// makes asks a host for a network, or for another version of its key, and returns the version that it acknowledged, 0 for none. The
// host may be gone.
func (v *vault) makes(p *cluster.Peer) int64 {
	path, q := "/encryption/networks", v.at(p).Create(v.owner.Wallet.DID(), "default")
	body := q.Text()
	if v.known > 0 {
		path, q, body = v.path("/rotate"), v.at(p).Rotate(v.id), ""
	}
	a, err := v.owner.Call(v.ctx, p, http.MethodPost, path, q.Header(), map[string]string{"Content-Type": "application/json"}, strings.NewReader(body))
	if err != nil || a.Status != http.StatusOK {
		return 0
	}
	var d struct{ Descriptor advertised }
	_ = json.Unmarshal([]byte(a.Body), &d)
	return max(d.Descriptor.Version, 1)
}

// settle waits until both hosts have the key that both advertise, and returns its version.
func (v *vault) settle(a, b *cluster.Peer) (version int64) {
	v.Helper()
	if err := cluster.Poll(v.ctx, 20*time.Millisecond, func() (bool, error) {
		one, other := v.advertised(a), v.advertised(b)
		version = one.Version
		return version > 0 && version == other.Version && string(one.Key) == string(other.Key) &&
			len(membersOf(v.describe(a))) == 2 && membersOf(v.describe(a))[0] == v.dids[a] && membersOf(v.describe(b))[0] == v.dids[b], nil
	}); err != nil {
		v.Fatalf("%v: %+v and %+v, %v and %v", err, v.advertised(a), v.advertised(b), membersOf(v.describe(a)), membersOf(v.describe(b)))
	}
	return version
}

// One of two hosts is killed at any moment while a network is made, its key rotated and handed over: what was acknowledged is known
// to both afterwards, both tell of the same key, and each opens by itself all that was ever encrypted. NETWORK_KILLS says how often.
func TestNetworkKilled(t *testing.T) {
	t.Parallel()
	rounds := scale(t, "NETWORK_KILLS", 3)
	g := startGroup(t, 0, "secrets")
	g.longer(rounds)
	a, b := g.add(), g.add()
	g.same()
	g.pairAll(a, b)
	v := g.newVault()
	rng := rand.New(rand.NewPCG(uint64(rounds), 1))
	secrets := map[string]string{}
	for round := range rounds {
		asked, dies := a, b
		if rng.IntN(2) == 0 {
			asked = b
		}
		if rng.IntN(2) == 0 {
			dies = a
		}
		after := time.NewTimer(time.Duration(rng.Int64N(int64(25 * time.Millisecond))))
		var acknowledged int64
		var call sync.WaitGroup
		call.Go(func() { acknowledged = v.makes(asked) })
		<-after.C
		g.must(dies.Kill())
		call.Wait()
		g.must(dies.Start(g.ctx))
		if v.known == 0 && acknowledged == 0 {
			g.must(cluster.Poll(g.ctx, 20*time.Millisecond, func() (bool, error) {
				return v.makes(a) > 0 || v.advertised(a).Version > 0, nil
			}))
		}
		version := v.settle(a, b)
		if version < acknowledged || version < v.known {
			t.Fatalf("round %d: version %d is advertised, %d was acknowledged and %d known", round, version, acknowledged, v.known)
		}
		v.known = version
		name := fmt.Sprint("ROUND", round)
		secrets[name] = "the secret of round " + name
		v.save(asked, name, secrets[name])
		g.same()
		for name, secret := range secrets {
			v.opens(a, a, name, secret)
			v.opens(b, b, name, secret)
		}
	}
	t.Logf("after %d kills version %d is advertised", rounds, v.known)
}
