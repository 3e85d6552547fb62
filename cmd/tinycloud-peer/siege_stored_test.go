package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"net/http"
	"strings"
	"sync"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/attack"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// storedAttacks are what has the host keep, judge or open something for a stranger.
var storedAttacks = map[string]func(*assailant) func(context.Context){
	"long chains":                    longChains,
	"delegations that are large":     largeDelegations,
	"all capabilities":               allCapabilities,
	"Spaces of nobody":               newSpaces,
	"delegations of a Space to come": adopted,
	"Spaces that are woken":          wokenSpaces,
	"a host that brings too much":    pastTheLimit,
}

func init() { maps.Copy(httpAttacks, storedAttacks) }

// post sends a delegation.
func (x *assailant) post(ctx context.Context, header string) {
	if status, _ := x.ask(ctx, anyone(), http.MethodPost, "/delegate", header, nil, nil); status == http.StatusOK {
		x.changed()
		x.delegated(len(header))
	}
}

// delegated counts the bytes of a delegation that was taken: as large as it was sent, and so it is kept.
func (s *httpSiege) delegated(bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens += int64(bytes)
}

// many are capabilities for n paths below a path of a Space.
func many(space tinycloud.SpaceID, below string, n int) captest.Caps {
	caps := captest.Caps{}
	for i := range n {
		caps[fmt.Sprintf("%s/kv/%s/%d", space, below, i)] = []string{"tinycloud.kv/get", "tinycloud.kv/put", "tinycloud.kv/del"}
	}
	return caps
}

// longChains have as much to compare as a token may name, and more: many proofs of many capabilities, of which one lacks.
func longChains(x *assailant) func(context.Context) {
	var proofs []tinycloud.Hash
	for range 10 {
		header := x.wallet.SignDelegation(captest.DelegationOptions{Audience: x.session.URI(), Caps: many(x.space, "held", 24)})
		x.post(x.ctx, header)
		proofs = append(proofs, captest.ID(header))
	}
	return times(1, func(ctx context.Context, i int) {
		caps := many(x.space, "held", 16)
		caps[x.space.String()+"/kv/other"] = []string{"tinycloud.kv/get"}
		o := captest.TokenOptions{Caps: caps, Proofs: proofs[:7+i%4]}
		x.post(ctx, x.session.Delegate(captest.RandomSession().DID(), o))
		x.ask(ctx, anyone(), http.MethodPost, "/invoke", x.session.Invoke(o), nil, nil)
	})
}

// largeDelegations are nearly as large as is taken, or larger; of the owner, and of sessions made for it.
func largeDelegations(x *assailant) func(context.Context) {
	return times(2, func(ctx context.Context, i int) {
		caps := many(x.space, fmt.Sprint("large/", mathrand.Int64()), []int{40, 40, 40, 64}[i%4])
		x.post(ctx, x.wallet.SignDelegation(captest.DelegationOptions{Audience: x.session.URI(), Caps: caps}))
		x.post(ctx, x.session.Delegate(captest.RandomSession().DID(), captest.TokenOptions{Caps: caps, Proofs: []tinycloud.Hash{captest.ID(x.header)}}))
	})
}

// allCapabilities asks for all that was delegated, again and again, while it becomes more.
func allCapabilities(x *assailant) func(context.Context) {
	return times(3, func(ctx context.Context, i int) {
		x.post(ctx, x.wallet.SignDelegation(captest.DelegationOptions{Audience: x.session.URI(), Caps: many(x.space, fmt.Sprint("all/", mathrand.Int64()), 24)}))
		x.ask(ctx, anyone(), http.MethodPost, "/invoke", x.token("capabilities/all", "tinycloud.capabilities/read"), nil, nil)
	})
}

// newSpaces hosts Spaces of wallets made for it.
func newSpaces(x *assailant) func(context.Context) {
	return times(2, func(ctx context.Context, _ int) {
		w := captest.RandomWallet()
		space := w.Space("new")
		_, did := x.ask(ctx, anyone(), http.MethodGet, "/peer/generate/"+space.String(), "", nil, nil)
		x.post(ctx, w.SignHost(space, did))
	})
}

// adopted sends delegations of Spaces that are not hosted, and hosts them then.
func adopted(x *assailant) func(context.Context) {
	return times(1, func(ctx context.Context, i int) {
		space := x.wallet.Space(fmt.Sprint("later", i))
		for n := range 50 {
			x.post(ctx, x.wallet.SignDelegation(captest.DelegationOptions{Audience: x.session.URI(), Caps: many(space, fmt.Sprint(n), 4)}))
		}
		_, did := x.ask(ctx, anyone(), http.MethodGet, "/peer/generate/"+space.String(), "", nil, nil)
		x.post(ctx, x.wallet.SignHost(space, did))
	})
}

// wokenSpaces dials Spaces of the host, and Spaces that nobody has.
func wokenSpaces(x *assailant) func(context.Context) {
	addr := x.view(x.a, x.owners[0]).Addrs[0]
	var one sync.Mutex
	return times(4, func(ctx context.Context, _ int) {
		c, err := attack.New()
		if err != nil {
			x.Error(err)
			return
		}
		defer c.Close()
		id, err := c.Dial(ctx, addr)
		if err != nil {
			x.came("refused")
			return
		}
		one.Lock()
		defer one.Unlock()
		_, err = c.Hello(ctx, id, attack.Prove(x.owners[0].Space))
		x.came(fmt.Sprint("hello: ", err != nil))
	})
}

// pastTheLimit has a node of the assailant's own host a Space that is here too, and write there more than it may hold here.
func pastTheLimit(x *assailant) func(context.Context) {
	x.Helper()
	own, o := x.accomplice, cluster.NewOwner("brought") // a public Space has another limit
	x.Cleanup(o.Close)
	x.must(o.Host(x.ctx, x.a))
	x.must(o.Host(x.ctx, own))
	x.must(o.Join(x.ctx, own, x.a))
	_, err := o.SignIn(x.ctx, own)
	x.must(err)
	value := make([]byte, 512<<10)
	rand.Read(value)
	x.Cleanup(func() {
		at, err := x.a.Admin.Space(context.WithoutCancel(x.ctx), o.Space)
		if err != nil || at.Bytes > spaceLimit*5/4 {
			x.Errorf("%s: the Space holds %d bytes, %v", x.name, at.Bytes, err)
		}
		x.Logf("%s: the Space holds %d bytes, and %s", x.name, at.Bytes, strings.Join(at.Paused, " "))
	})
	return func(ctx context.Context) {
		until(ctx, 10*breath, func(i int) bool {
			value[i]++
			if err := o.Put(x.ctx, own, fmt.Sprint("more/", i%48), value); err != nil {
				x.Error(x.name, ": ", err)
			}
			x.came("put")
			x.changed()
			return ctx.Err() == nil
		})
	}
}
