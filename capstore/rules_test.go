package capstore_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
)

// The rules are tables in internal/judge. Here a host that signs what it likes shows that a store asks them: with the times,
// the past and the facts that it keeps.

// A store judges by the time of the entry, by F, of void epochs too, and parks what is of the future.
func TestWindows(t *testing.T) {
	onScene(t, func(c *scene) {
		base, slack := c.o.clock.now(), 120*time.Second
		at := func(d time.Duration) time.Time { return base.Add(d) }
		writes := func(moment time.Time, key string, want bool, o captest.TokenOptions, parents ...tinycloud.Hash) {
			c.Helper()
			o.Nonce, o.Proofs = key, []tinycloud.Hash{c.o.proof}
			c.saysAt(c.l, moment, parents, c.put(c.invokes(c.o.session, o, key), key))
			c.counts(key, want)
		}
		until := captest.TokenOptions{Expires: at(60 * time.Second)}
		for _, e := range []struct {
			after time.Duration
			want  bool
		}{{60*time.Second + slack, true}, {60*time.Second + slack + time.Millisecond, false}} {
			c.o.clock.ms.Store(at(e.after).UnixMilli())
			writes(at(e.after), e.after.String(), e.want, until)
		}

		guest := c.other("guest")
		options := captest.HostOptions(c.o.space, guest.host().String())
		options.IssuedAt, options.NotBefore, options.Expires = base, at(3000*time.Second), at(4000*time.Second)
		in := c.delegation(c.o.wallet.SignDelegation(options))
		void := c.s.status(c.o.space).Void
		for i, moment := range []struct {
			after time.Duration
			void  int64
		}{
			{3000 * time.Second, 1}, // too early by a moment; the delegation counts from this void epoch
			{3000*time.Second + time.Millisecond, 1},
			{4000*time.Second + time.Millisecond, 2},
		} {
			c.o.clock.ms.Store(at(moment.after).UnixMilli())
			event := in
			if i > 0 {
				event = said{token: c.invokes(c.o.session, captest.TokenOptions{Proofs: []tinycloud.Hash{c.o.proof}}, "none")}
			}
			c.saysAt(guest, at(moment.after), nil, event)
			if got := c.s.status(c.o.space).Void - void; got != moment.void {
				c.Errorf("entry %d of the guest: %d void epochs, want %d", i, got, moment.void)
			}
		}

		floor := at(4000*time.Second + time.Millisecond) // of an epoch that is void
		writes(floor.Add(-slack-time.Millisecond), "too-early", false, captest.TokenOptions{}, guest.last)
		writes(floor.Add(-slack), "early", true, captest.TokenOptions{}, guest.last)

		now := c.o.clock.now()
		tok := c.invokes(c.o.session, captest.TokenOptions{Proofs: []tinycloud.Hash{c.o.proof}}, "soon")
		early := c.l.epoch(now.Add(slack+time.Millisecond), []tinycloud.Hash{c.l.last}, c.put(tok, "soon"))
		if a, err := c.s.Apply(c.Context(), c.o.space, []hostlog.Bundle{early}); err != nil || a.Held != 1 {
			c.Errorf("an entry more than 120 s ahead: %+v %v", a, err)
		}
		c.saysAt(c.l, now.Add(slack), nil, c.put(tok, "soon"))
		c.counts("soon", true)
	})
}

// A store judges with the delegations that it learns, and the revocations that stand in the past of an event; what it
// judged too early it judges again.
func TestChains(t *testing.T) {
	onScene(t, func(c *scene) {
		now := c.o.clock.now()
		n := 0
		writes := func(want bool, by *captest.SessionKey, key string, proofs ...tinycloud.Hash) {
			c.Helper()
			n++
			tok := c.invokes(by, captest.TokenOptions{Proofs: proofs, Nonce: fmt.Sprint(n)}, key)
			c.says(c.l, nil, c.put(tok, key))
			c.counts(key, want)
		}
		grant := func(by *captest.SessionKey, to *captest.SessionKey, path string, proofs ...tinycloud.Hash) said {
			return c.delegation(by.Delegate(to.DID(), captest.TokenOptions{
				Caps: c.kv(path, "tinycloud.kv/put"), Proofs: proofs, Expires: now.Add(time.Hour),
			}))
		}
		root, sub, leaf := c.o.session, captest.NewSession("sub"), captest.NewSession("leaf")
		narrow := grant(root, sub, "/a", c.o.proof)
		c.says(c.l, nil, narrow)
		writes(true, sub, "a/b", narrow.token.ID)
		writes(false, sub, "ab", narrow.token.ID)

		late := grant(root, sub, "/late", c.o.proof)
		writes(false, sub, "late", late.token.ID)
		c.says(c.l, nil, late) // what it waited for
		c.counts("late", true)

		// Who did not hear of a revocation may go on.
		mine := grant(sub, leaf, "/a", narrow.token.ID)
		c.says(c.l, nil, mine)
		before := c.l.last
		c.says(c.l, nil, c.revocation(captest.NewWallet("mallory").SignRevocation(mine.token.ID)))
		writes(true, leaf, "a/1", mine.token.ID)
		c.says(c.l, nil, c.revocation(sub.Revoke(mine.token.ID, captest.TokenOptions{})))
		writes(false, leaf, "a/2", mine.token.ID)
		c.counts("a/1", true)
		rival := c.other("rival")
		in := c.delegation(c.o.signHost(rival.host()))
		tok := c.invokes(leaf, captest.TokenOptions{Proofs: []tinycloud.Hash{mine.token.ID}, Nonce: "rival"}, "a/rival")
		c.says(rival, []tinycloud.Hash{before}, in, c.put(tok, "a/rival"))
		c.counts("a/rival", true)
		c.says(c.l, []tinycloud.Hash{rival.last}, in)
		c.counts("a/rival", true)

		// The events before an event in its epoch are in its past.
		ended := grant(sub, leaf, "/a/x", narrow.token.ID)
		inner := c.invokes(leaf, captest.TokenOptions{Proofs: []tinycloud.Hash{ended.token.ID}, Nonce: "inner"}, "a/x/inner")
		outer := c.invokes(leaf, captest.TokenOptions{Proofs: []tinycloud.Hash{ended.token.ID}, Nonce: "outer"}, "a/x/outer")
		end := c.revocation(root.Revoke(narrow.token.ID, captest.TokenOptions{})) // of what it rests on
		c.says(c.l, nil, ended, c.put(outer, "a/x/outer"), end, c.put(inner, "a/x/inner"))
		c.counts("a/x/outer", true)
		c.counts("a/x/inner", false)
	})
}

// A store takes what a removed host wrote afterwards out of the history, also of one that a removed manager let in, and
// tells whom to cut off.
func TestWhoRemovesAHost(t *testing.T) {
	onScene(t, func(c *scene) {
		now := c.o.clock.now()
		hosting := captest.Caps{c.o.space.String() + "/space": {"tinycloud.space/host"}}
		issued := func(iat time.Time, host string) said {
			options := captest.HostOptions(c.o.space, host)
			options.IssuedAt = iat
			return c.delegation(c.o.wallet.SignDelegation(options))
		}
		by := func(iat time.Time, w *captest.Wallet, target tinycloud.Hash) said {
			return c.revocation(w.SignDelegation(captest.DelegationOptions{Audience: "ucan:" + target.EventID(), IssuedAt: iat}))
		}
		writes := func(x *liar, key string, want bool) {
			c.Helper()
			tok := c.invokes(c.o.session, captest.TokenOptions{Proofs: []tinycloud.Hash{c.o.proof}, Nonce: key}, key)
			void := c.s.status(c.o.space).Void
			c.says(x, []tinycloud.Hash{c.l.last}, c.put(tok, key))
			c.counts(key, want)
			if got := c.s.status(c.o.space).Void == void; got != want {
				c.Errorf("the epoch of %q is valid: %v, want %v", key, got, want)
			}
		}
		x := c.other("twice")
		first, second, third := issued(now, x.host().String()), issued(now.Add(time.Second), x.host().String()), issued(now.Add(2*time.Second), x.host().String())
		c.says(x, []tinycloud.Hash{c.l.last}, first)
		c.says(x, nil, second)
		c.says(c.l, []tinycloud.Hash{x.last}, by(now, captest.NewWallet("mallory"), first.token.ID))
		writes(x, "strange", true)
		c.says(c.l, []tinycloud.Hash{x.last}, by(now.Add(time.Second-time.Millisecond), c.o.wallet, first.token.ID))
		writes(x, "younger", true)
		c.says(c.l, []tinycloud.Hash{x.last}, by(now.Add(time.Second), c.o.wallet, first.token.ID))
		writes(x, "older", false)
		c.says(c.l, nil, third)
		writes(x, "again", true)

		manager, y := captest.NewSession("manager"), c.other("of the manager")
		toManager := issued(now, manager.URI())
		c.says(c.l, nil, toManager)
		in := c.delegation(manager.Delegate(tinycloud.Principal(y.host().String()), captest.TokenOptions{
			Caps: hosting, Proofs: []tinycloud.Hash{toManager.token.ID}, Expires: now.Add(time.Hour),
		}))
		c.says(y, []tinycloud.Hash{c.l.last}, in)
		writes(y, "managed", true)
		c.says(c.l, []tinycloud.Hash{y.last}, by(now, c.o.wallet, toManager.token.ID))
		writes(y, "unmanaged", false)
		c.counts("managed", true)
		told := map[hostlog.Key]int{}
		for _, commit := range c.s.told() {
			for _, host := range commit.Revoked {
				told[host]++
			}
		}
		if told[x.host()] != 1 || told[y.host()] != 1 || told[c.l.host()] != 0 {
			c.Errorf("told to cut off %v, want %s and %s once each", told, x.host(), y.host())
		}
	})
}

// A delete removes the write it names, if that is in its past and at the place it says, and all below it. What is
// below never comes back, what is above stays. Places follow the longest path, through void epochs too.
func TestPlaces(t *testing.T) {
	onScene(t, func(c *scene) {
		o := c.o
		n := 0
		tok := func(ability, key string) *capstore.Token {
			n++
			return o.invokeFor(c.T, time.Hour, key, ability)
		}
		put := func(key, value string) said {
			return said{tok("tinycloud.kv/put", key), []dag.Op{write(key, value)}}
		}
		del := func(key string, v *dag.Version) said {
			return said{tok("tinycloud.kv/del", key), []dag.Op{{Key: key, Delete: true, Version: v}}}
		}
		seqs := map[tinycloud.Hash]uint64{}
		seq := func(epoch tinycloud.Hash) uint64 {
			for _, b := range all(c.T, c.s, o.space) {
				e, err := dag.DecodeEpoch(b.Epoch)
				if err != nil {
					c.Fatal(err)
				}
				seqs[b.Entry.Epoch] = 0
				for _, p := range e.Parents {
					seqs[b.Entry.Epoch] = max(seqs[b.Entry.Epoch], seqs[p]+1)
				}
			}
			return seqs[epoch]
		}
		is := func(key, want string) {
			c.Helper()
			got := "(none)"
			if r, err := c.s.Get(c.Context(), o.space, key); err == nil {
				got = "?"
				for _, v := range []string{"1", "2", "3", "4"} {
					if r.Value == tinycloud.Sum([]byte(v)) {
						got = v
					}
				}
			}
			if got != want {
				c.Errorf("%s = %s, want %s", key, got, want)
			}
		}
		rival := c.other("rival")
		c.says(rival, []tinycloud.Hash{c.l.last}, c.delegation(o.signHost(rival.host())))
		c.says(c.l, []tinycloud.Hash{rival.last}, c.delegation(o.signHost(rival.host())))

		keys := []string{"seq", "index", "key", "delete", "unseen", "right"}
		var writes []said
		for _, key := range keys {
			writes = append(writes, put(key, "1"))
		}
		at := c.says(c.l, nil, writes...)
		s := seq(at)
		beside := c.says(rival, []tinycloud.Hash{at}, put("delete", "2"))
		for range 9 {
			c.says(rival, nil, put("other", "1"))
		}
		hidden := c.says(rival, nil, put("unseen", "2"), put("lately", "2")) // l hears of it later
		is("unseen", "2")
		c.says(c.l, nil, put("lately", "1"))
		deleted := c.says(c.l, nil, del("delete", nil), del("lately", nil))
		is("delete", "2")
		is("lately", "2")
		if seq(deleted) <= seq(beside) {
			c.Fatal("the delete is to be above what it has not seen")
		}
		for _, bad := range []said{
			del("seq", &dag.Version{Seq: s + 1, Epoch: at, Index: 0}),
			del("seq", &dag.Version{Seq: s - 1, Epoch: at, Index: 0}),
			del("index", &dag.Version{Seq: s, Epoch: at, Index: uint64(len(keys))}),
			del("index", &dag.Version{Seq: s, Epoch: at, Index: 1 << 40}),
			del("key", &dag.Version{Seq: s, Epoch: at, Index: 5}), // the write of another key
			del("delete", &dag.Version{Seq: seq(deleted), Epoch: deleted, Index: 0}),
			del("unseen", &dag.Version{Seq: seq(hidden), Epoch: hidden, Index: 0}),
			del("right", &dag.Version{Seq: s, Epoch: tinycloud.Sum([]byte("?")), Index: 5}),
		} {
			c.says(c.l, nil, bad)
		}
		for _, key := range []string{"seq", "index", "key", "right"} {
			is(key, "1")
		}
		is("delete", "2")
		is("unseen", "2")
		c.says(c.l, nil, del("right", &dag.Version{Seq: s, Epoch: at, Index: 5}))
		is("right", "(none)")

		// Whatever version a delete names, it takes all that is at or below the greatest write in its past with it, and leaves
		// what is above that.
		other := c.other("other")
		c.says(other, c.heads(), c.delegation(c.o.signHost(other.host())))
		low := c.says(c.l, []tinycloud.Hash{other.last}, put("k", "1"))
		mid := c.says(c.l, nil, put("k", "2"))
		c.says(c.l, nil, put("k", "3"))
		c.says(c.l, nil, del("k", &dag.Version{Seq: seq(mid), Epoch: mid, Index: 0}))
		is("k", "(none)")
		c.says(other, []tinycloud.Hash{low}, put("k", "4")) // no later, no higher, and not seen by the delete
		is("k", "(none)")
		c.o.clock.ms.Add(1)
		c.says(other, nil, put("k", "2")) // later, and not seen by the delete
		is("k", "2")
		c.says(c.l, nil, del("k", nil)) // the greatest in its past
		is("k", "2")
		c.says(c.l, []tinycloud.Hash{other.last}, del("k", nil))
		is("k", "(none)")

		// In one epoch the lower events come first.
		c.says(c.l, nil, put("one", "1"), del("one", nil), put("two", "1"), put("two", "2"))
		is("one", "(none)")
		is("two", "2")
		c.says(c.l, nil, del("two", nil), put("two", "3"))
		is("two", "3")
		first := put("thrice", "1")
		c.says(c.l, nil, first, put("thrice", "2"), first) // it counts where it stands first
		is("thrice", "2")

		// Void epochs count for the place.
		stranger := c.other("stranger")
		fork := c.says(c.l, nil, put("v", "1"))
		c.says(stranger, []tinycloud.Hash{fork}, put("v", "4"))
		for range 2 {
			c.says(stranger, nil, put("v", "4"))
		}
		c.says(rival, []tinycloud.Hash{stranger.last}, put("v", "2"))
		c.says(c.l, nil, put("v", "3"))
		is("v", "2")
		if got := naive(c.T, all(c.T, c.s, o.space)); got["v"] != tinycloud.Sum([]byte("2")) || len(got) != len(state(c.T, c.s, o.space)) {
			c.Errorf("naively %v", got)
		}
	})
}

// It does not matter in which order hosts hear of delegations and revocations that stand beside each other: what was
// judged without them is judged again.
func TestFactsInAnyOrder(t *testing.T) {
	onScene(t, func(c *scene) {
		now := c.o.clock.now()
		until := now.Add(time.Hour)
		grant := func(by, to *captest.SessionKey, caps captest.Caps, proofs ...tinycloud.Hash) said {
			return c.delegation(by.Delegate(to.DID(), captest.TokenOptions{Caps: caps, Proofs: proofs, Expires: until}))
		}
		session := func(name string) *captest.SessionKey { return captest.NewSession(name) }
		revoke := captest.Caps{c.o.space.String() + "/delegation": {"tinycloud.delegation/revoke"}}
		hosting := captest.Caps{c.o.space.String() + "/space": {"tinycloud.space/host"}}
		fromOwner := func(to *captest.SessionKey, caps captest.Caps) said {
			return c.delegation(c.o.wallet.SignDelegation(captest.DelegationOptions{Audience: to.URI(), IssuedAt: now, Expires: until, Caps: caps}))
		}

		// Each fact is told by a host of its own, on top of the same heads.
		start := c.heads()
		var aside []*liar
		tell := func(events ...said) {
			x := c.other(fmt.Sprint("aside", len(aside)))
			aside = append(aside, x)
			in := c.delegation(c.o.signHost(x.host()))
			c.says(x, start, append([]said{in}, events...)...)
		}
		puts := func(by *captest.SessionKey, key string, proofs ...tinycloud.Hash) said {
			return c.put(c.invokes(by, captest.TokenOptions{Proofs: proofs, Nonce: "any " + key}, key), key)
		}

		// A chain of which the middle comes aside.
		top := fromOwner(session("top"), c.kv("", "tinycloud.kv/put"))
		middle := grant(session("top"), session("middle"), c.kv("", "tinycloud.kv/put"), top.token.ID)
		bottom := grant(session("middle"), session("bottom"), c.kv("", "tinycloud.kv/put"), middle.token.ID)
		tell(middle)
		c.says(c.l, nil, top)
		c.says(c.l, nil, bottom)
		c.says(c.l, nil, puts(session("bottom"), "chain", bottom.token.ID))

		// A revocation of which the right to it comes aside.
		target := grant(c.o.session, session("target"), c.kv("", "tinycloud.kv/put"), c.o.proof)
		right := fromOwner(session("reaper"), revoke)
		tell(right)
		c.says(c.l, nil, target)
		c.says(c.l, nil, c.revocation(session("reaper").Revoke(target.token.ID, captest.TokenOptions{Proofs: []tinycloud.Hash{right.token.ID}})))
		c.says(c.l, nil, puts(session("target"), "target", target.token.ID))

		// A revocation whose target comes aside.
		hidden := grant(c.o.session, session("hidden"), c.kv("", "tinycloud.kv/put"), c.o.proof)
		tell(hidden)
		c.says(c.l, nil, c.revocation(c.o.wallet.SignRevocation(hidden.token.ID)))
		c.says(c.l, nil, puts(session("hidden"), "hidden", hidden.token.ID))

		// A host whose manager's delegation comes aside, and one that a manager removes who is known aside.
		manager := fromOwner(session("manager"), hosting)
		guest := c.other("guest")
		in := grant(session("manager"), guest.session(), hosting, manager.token.ID)
		tell(manager)
		c.says(guest, start, in)
		c.says(guest, []tinycloud.Hash{c.l.last}, puts(c.o.session, "guest", c.o.proof))
		second := fromOwner(session("second"), hosting)
		leaver := c.other("leaver")
		out := grant(session("second"), leaver.session(), hosting, second.token.ID)
		tell(second)
		c.says(leaver, start, out)
		c.says(c.l, []tinycloud.Hash{leaver.last}, c.revocation(session("second").Revoke(out.token.ID, captest.TokenOptions{})))
		c.says(leaver, []tinycloud.Hash{c.l.last}, puts(c.o.session, "leaver", c.o.proof))

		want := c.s.status(c.o.space)
		for key, counts := range map[string]bool{"chain": true, "target": false, "hidden": false, "guest": true, "leaver": false} {
			c.counts(key, counts)
		}
		bundles := all(c.T, c.s, c.o.space)
		for seed := range uint64(8) {
			rng := rand.New(rand.NewPCG(seed, 2))
			late := openNew(c.T, fmt.Sprint("late", seed), c.o.clock)
			c.o.hostOn(late)
			feed(c.T, rng, late, c.o.space, bundles)
			if got := late.status(c.o.space); got.StateHash != want.StateHash || got.Void != want.Void {
				c.Errorf("seed %d: %d void, %v\nwant %d void, %v", seed, got.Void, state(c.T, late, c.o.space), want.Void, state(c.T, c.s, c.o.space))
			}
		}
	})
}
