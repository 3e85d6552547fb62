package capstore_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
)

// chaos makes a history as hosts may sign it that follow no rule: epochs on any parents, dated about now, with tokens of
// anybody for anything, some forked and some of hosts that are removed, let in again, or never were any.
type chaos struct {
	*scene
	rng    *rand.Rand
	base   time.Time
	hosts  []*liar
	past   map[*liar][]liar // what a host may fork from
	people []*captest.SessionKey
	grants []said // delegations, also of hosts
	epochs []tinycloud.Hash
	writes []placed
	seq    map[tinycloud.Hash]uint64
	n      int
}

type placed struct {
	key     string
	version dag.Version
}

// nonce is another one each time, and the same for a seed.
func (c *chaos) nonce() string {
	c.n++
	return fmt.Sprintf("nonce%08d", c.n)
}

func (c *chaos) one(n int) int { return c.rng.IntN(n) }

func (c *chaos) moment(from, to time.Duration) time.Time {
	return c.base.Add(from + time.Duration(c.rng.Int64N(int64(to-from)))).Truncate(time.Millisecond)
}

func (c *chaos) proofs() (ids []tinycloud.Hash) {
	for range 1 + c.one(2) {
		ids = append(ids, c.grants[c.one(len(c.grants))].token.ID)
	}
	return ids
}

// held returns a delegation to a session, and that session.
func (c *chaos) held() (said, *captest.SessionKey) {
	for range 20 {
		g := c.grants[c.one(len(c.grants))]
		for _, p := range c.people {
			if g.token.Audience == p.DID() {
				return g, p
			}
		}
	}
	return c.grants[0], c.people[0]
}

func (c *chaos) caps() captest.Caps {
	path := []string{"", "/a", "/b"}[c.one(3)]
	switch c.one(8) {
	case 0:
		return captest.Caps{c.o.space.String() + "/space": {"tinycloud.space/host"}}
	case 1:
		return captest.Caps{c.o.space.String() + "/delegation": {"tinycloud.delegation/revoke"}}
	case 2:
		return c.kv(path, "tinycloud.kv/put")
	}
	return c.kv(path, "tinycloud.kv/put", "tinycloud.kv/del")
}

func (c *chaos) audience() string {
	if c.one(3) == 0 {
		return c.hosts[c.one(len(c.hosts))].host().String()
	}
	return c.people[c.one(len(c.people))].URI()
}

func (c *chaos) grant() said {
	caps := c.caps()
	audience := c.audience()
	if c.one(2) == 0 {
		o := captest.DelegationOptions{Audience: audience, Caps: caps, IssuedAt: c.moment(0, time.Hour), Nonce: c.nonce()}
		if c.one(2) == 0 {
			o.Expires = c.moment(0, 2*time.Hour)
		}
		if c.one(6) == 0 {
			o.NotBefore = c.moment(0, time.Hour)
		}
		return c.delegation(c.o.wallet.SignDelegation(o))
	}
	g, by := c.held()
	who := tinycloud.Principal(audience)
	for _, p := range c.people {
		if audience == p.URI() {
			who = p.DID()
		}
	}
	if who == by.DID() {
		who = c.people[(c.one(len(c.people)-1)+1)%len(c.people)].DID()
		if who == by.DID() {
			return g
		}
	}
	return c.delegation(by.Delegate(who, captest.TokenOptions{
		Caps: caps, Proofs: append(c.proofs(), g.token.ID), Expires: c.moment(0, 2*time.Hour), Nonce: c.nonce(),
	}))
}

func (c *chaos) revoke() said {
	target := c.grants[c.one(len(c.grants))].token.ID
	o := captest.TokenOptions{Expires: c.base.Add(2 * time.Hour), Nonce: c.nonce()}
	switch c.one(4) {
	case 0:
		return c.revocation(c.o.wallet.SignDelegation(captest.DelegationOptions{
			Audience: "ucan:" + target.EventID(), IssuedAt: c.moment(0, time.Hour), Nonce: c.nonce(),
		}))
	case 1:
		return c.revocation(c.hosts[c.one(len(c.hosts))].session().Revoke(target, o))
	case 2:
		g, by := c.held()
		o.Proofs = []tinycloud.Hash{g.token.ID}
		return c.revocation(by.Revoke(target, o))
	}
	return c.revocation(c.people[c.one(len(c.people))].Revoke(target, o))
}

func (c *chaos) operation() said {
	key := []string{"a", "a/x", "b"}[c.one(3)]
	op, ability := write(key, fmt.Sprint(c.one(5))), "tinycloud.kv/put"
	if c.one(3) == 0 {
		op, ability = dag.Op{Key: key, Delete: true}, "tinycloud.kv/del"
		if len(c.writes) > 0 && c.one(2) == 0 {
			w := c.writes[c.one(len(c.writes))]
			op.Key, op.Version = w.key, &w.version
			if c.one(8) == 0 {
				op.Version.Seq++
			}
		}
	}
	g, by := c.held()
	proofs := []tinycloud.Hash{g.token.ID}
	if c.one(4) == 0 {
		proofs = append(c.proofs(), proofs...)
	}
	o := captest.TokenOptions{
		Proofs: proofs, Nonce: c.nonce(), Expires: c.moment(0, 90*time.Minute),
		Caps: captest.Caps{c.o.space.String() + "/kv/" + op.Key: {ability}},
	}
	tok, err := capstore.ParseInvocation(by.Invoke(o))
	if err != nil {
		c.Fatal(err)
	}
	return said{tok, []dag.Op{op}}
}

// step has some host say something.
func (c *chaos) step(i int, again []said) []said {
	x := c.hosts[c.one(len(c.hosts))]
	if c.one(12) == 0 && len(c.past[x]) > 0 {
		*x = c.past[x][c.one(len(c.past[x]))] // it forgets what it said since
	}
	var events []said
	for range 1 + c.one(3) {
		switch c.one(9) {
		case 0, 1:
			g := c.grant()
			c.grants = append(c.grants, g)
			if c.one(4) > 0 { // else somebody may say it later
				events = append(events, g)
			}
		case 2:
			events = append(events, c.revoke())
		case 3:
			events = append(events, c.grants[c.one(len(c.grants))])
		case 4:
			if len(again) > 0 {
				events = append(events, again[c.one(len(again))])
			}
		default:
			op := c.operation()
			again, events = append(again, op), append(events, op)
		}
	}
	if len(events) == 0 {
		events = append(events, c.operation())
	}
	var parents []tinycloud.Hash
	if x.n > 0 {
		parents = append(parents, x.last)
	}
	for range c.one(3) {
		p := c.epochs[max(0, len(c.epochs)-1-c.one(6))]
		if len(parents) == 0 || p != parents[0] {
			parents = append(parents, p)
		}
	}
	at := c.base.Add(time.Duration(i)*time.Minute + time.Duration(c.one(240_000)-160_000)*time.Millisecond)
	b := x.epoch(at, parents, events...)
	before := *x
	a, err := c.s.Apply(c.Context(), c.o.space, []hostlog.Bundle{b})
	if err != nil || a.New != 1 {
		return again // such as an epoch that it said before
	}
	c.past[x] = append(c.past[x], before)
	x.n, x.prev, x.last = x.n+1, b.Entry.Digest(), b.Entry.Epoch
	for _, p := range parents {
		c.seq[x.last] = max(c.seq[x.last], c.seq[p]+1)
	}
	for i, e := range events {
		for _, op := range e.ops {
			if !op.Delete {
				c.writes = append(c.writes, placed{op.Key, dag.Version{Seq: c.seq[x.last], Epoch: x.last, Index: uint64(i)}})
			}
		}
	}
	c.epochs = append(c.epochs, x.last)
	return again
}

// newChaos makes a Space with three hosts that say what they like, and two more that may be let in.
func newChaos(t *testing.T, seed uint64, s *testStore) *chaos {
	clk := s.clock
	o := newOwner(t, fmt.Sprint("any", seed), clk)
	c := &chaos{
		scene: &scene{t, s, o, nil}, rng: rand.New(rand.NewPCG(seed, 3)), base: clk.now(), past: map[*liar][]liar{},
		seq: map[tinycloud.Hash]uint64{}, people: []*captest.SessionKey{o.session},
	}
	c.hosting(s)
	c.epochs = c.heads()
	for i := range 3 {
		c.people = append(c.people, captest.NewSession(fmt.Sprint("someone", i)))
	}
	c.grants = append(c.grants, c.delegation(o.header))
	for i := range 5 {
		c.hosts = append(c.hosts, c.other(fmt.Sprint("host", i)))
	}
	clk.ms.Add(2 * time.Hour.Milliseconds()) // so that nothing is of the future
	for _, x := range c.hosts[:3] {
		options := captest.HostOptions(o.space, x.host().String())
		options.IssuedAt, options.Nonce = c.base, c.nonce()
		in := c.delegation(o.wallet.SignDelegation(options))
		c.grants = append(c.grants, in)
		c.saysAt(x, c.base, c.epochs[:1], in, c.grants[0])
		c.epochs = append(c.epochs, x.last)
		c.seq[x.last] = 1
	}
	return c
}

// newHistory has a store hold a whole random history.
func newHistory(t *testing.T, seed uint64, s *testStore) *chaos {
	t.Helper()
	c := newChaos(t, seed, s)
	var again []said
	for i := range 45 {
		again = c.step(i, again)
	}
	s.redate()
	return c
}

// hosting makes a store a host.
func (c *chaos) hosting(s *testStore) {
	options := captest.HostOptions(c.o.space, s.host(c.o.space).String())
	options.IssuedAt, options.Nonce = c.base, c.nonce()
	s.delegate(c.o.wallet.SignDelegation(options))
}

// TestAnyHistory: hosts that get the same entries agree on what they mean, whatever lying hosts say and in whatever order
// it comes, and a history that is judged anew means the same. $ANY_SEEDS says how many seeds are tried.
func TestAnyHistory(t *testing.T) {
	seeds := []uint64{15, 17, 22, 29}
	if n, err := strconv.Atoi(os.Getenv("ANY_SEEDS")); err == nil {
		seeds = nil
		for i := range n {
			seeds = append(seeds, uint64(i))
		}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			s := openNew(t, "honest", newClock())
			c := newHistory(t, seed, s)
			want, bundles := s.status(c.o.space), all(t, s, c.o.space)
			s.whole()
			for i := range 3 {
				late := openNew(t, fmt.Sprint("late", i), s.clock)
				c.hosting(late)
				feed(t, c.rng, late, c.o.space, bundles)
				late.redate()
				if got := late.status(c.o.space); got.StateHash != want.StateHash || got.Void != want.Void {
					t.Errorf("late %d: %d void, %v\nwant %d void, %v", i, got.Void, state(t, late, c.o.space), want.Void, state(t, s, c.o.space))
				}
				late.whole()
			}
		})
	}
}
