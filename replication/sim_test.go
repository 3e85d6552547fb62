//go:build !race

package replication_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/oracletest"
)

const (
	simSteps = 340 // of a run: operations and faults
	simOps   = 300 // operations at least
	simKeys  = 6
)

// TestSimulation runs real hosts over a network in virtual time, with faults, and audits what they end in.
// SIM_SEED=n runs one seed, SIM_SEEDS=n runs so many.
func TestSimulation(t *testing.T) {
	first, n := uint64(0), uint64(simSeeds)
	if s := os.Getenv("SIM_SEEDS"); s != "" {
		n = must(strconv.ParseUint(s, 10, 64))
	}
	if s := os.Getenv("SIM_SEED"); s != "" {
		first, n = must(strconv.ParseUint(s, 10, 64)), 1
	}
	for seed := first; seed < first+n; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, seed)
				defer s.report()
				s.run()
				s.audit()
			})
		})
	}
}

// sim is one run. What happens in it follows from its seed; how goroutines take turns does not, so that
// the trace tells how a run went.
type sim struct {
	t       *testing.T
	seed    uint64
	replay  string // the command
	rng     *rand.Rand
	f       *fabric
	o       *owner
	nodes   []*simNode
	outcast *simNode // is removed some time
	outside []*outsider
	extra   []*owner // sessions that are revoked some time
	trace   []string
	ops     int
	began   time.Time
	faults  map[string]int
	network weather
	lies    lies
	acked   []ack
	met     *glimpse                // when hosts had met that began apart
	early   []*glimpse              // of hosts that had not got all yet
	gone    map[tinycloud.Hash]bool // values that nobody has since an older database took the place of their only holder's
}

// simNode is a host and what the simulation knows of it.
type simNode struct {
	*node
	honest      bool
	delegations []tinycloud.Hash // to its key
	last        *capstore.Token  // the delegation that let it in again
	tell        *capstore.Token  // that, while the host itself may not know it
	revocation  tinycloud.Hash   // that ended the last of them; zero while it is a host
	removed     bool             // some time, so that what it acknowledged may be gone
	backup      string           // directory of a copy of its database
	broken      bool             // its disk takes nothing
	asleep      bool             // it rests, see rest.go
}

// ack is a write that a host answered with success.
type ack struct {
	by    *simNode
	event tinycloud.Hash
	db    string // that it was written to; "" for a key
	lost  bool   // the operator put an older database in its place before anyone else had the write
}

func newSim(t *testing.T, seed uint64) *sim {
	time.Sleep(time.Until(time.UnixMilli(oracletest.Timed).Add(time.Hour))) // from when on times order writes
	s := &sim{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 9)), f: newFabric(t),
		o: newSQLOwner(fmt.Sprint("sim", seed)), began: time.Now(), faults: map[string]int{},
		gone: map[tinycloud.Hash]bool{}, replay: fmt.Sprintf("SIM_SEED=%d go test ./replication -run TestSimulation", seed),
	}
	for i := range 4 + s.rng.IntN(2) {
		n := s.newNode(fmt.Sprint("host ", i))
		n.delegations = []tinycloud.Hash{hostDelegation(t, n.node)}
		if i == 0 {
			n.delegate(s.o.header)
		} else {
			n.join(s.nodes[0].node)
		}
		s.nodes = append(s.nodes, n)
	}
	s.apart()
	for i := range 2 {
		x := &owner{wallet: s.o.wallet, space: s.o.space, session: captest.NewSession(fmt.Sprint("extra", i, " ", seed))}
		x.header = s.o.wallet.SignDelegation(captest.DelegationOptions{
			Audience: x.session.URI(), Expires: time.Now().Add(240 * time.Hour), IssuedAt: time.Now(), Nonce: "nonce0000002",
			Caps: captest.Caps{
				s.o.space.String() + "/kv/k":   {"tinycloud.kv/put", "tinycloud.kv/del"},
				s.o.space.String() + "/sql/db": {"tinycloud.sql/read", "tinycloud.sql/write"},
			},
		})
		s.nodes[0].delegate(x.header)
		s.extra = append(s.extra, x)
	}
	s.same()
	if s.rng.IntN(2) == 0 {
		s.nodes[len(s.nodes)-1].honest = false
	}
	s.outcast = s.nodes[1+s.rng.IntN(len(s.nodes)-1)]
	s.outside = append(s.outside, newOutsider(t, s.f, s.o, "outsider"))
	s.f.setLoss(s.lossy())
	return s
}

// apart adds, in a third of the runs, a host at which the owner signed in before it knew another one, and whose client
// found nothing there: what that wrote came later than what was there, whatever the clocks say of each write.
func (s *sim) apart() {
	if s.seed%3 != 0 {
		return
	}
	for range 4 {
		s.put(s.nodes[0], s.token(s.nodes[0], s.o, s.key(), "tinycloud.kv/put"), "was there first")
	}
	<-time.After(time.Duration(s.rng.IntN(30)) * time.Second)
	n := s.newNode("apart")
	n.delegations = []tinycloud.Hash{hostDelegation(s.t, n.node)}
	n.delegate(s.o.header)
	for key := range simKeys {
		s.loadOrCreate(n, fmt.Sprint("k/", key))
	}
	<-time.After(time.Duration(s.rng.IntN(30)) * time.Second)
	n.join(s.nodes[0].node)
	s.nodes = append(s.nodes, n)
	s.same()
	s.met = &glimpse{s.bundles(n), s.observe(n)}
}

// glimpse is what a host had, and made of it, some time in a run.
type glimpse struct {
	bundles []hostlog.Bundle
	state   oracletest.State
}

// newNode makes a host with databases, and starts it.
func (s *sim) newNode(name string) *simNode {
	n := &node{t: s.t, o: s.o, name: keys(name), f: s.f, dir: s.t.TempDir(), values: newMemValues(), serveSQL: true}
	n.start(s.t)
	return &simNode{node: n, honest: true}
}

// loadOrCreate is what apps do at their start: they read a key, and write its default where they are told that there is none.
func (s *sim) loadOrCreate(n *simNode, key string) {
	if n.store.Present(context.Background(), s.o.space) != nil {
		return
	}
	if _, err := kv.Of(n.store).Get(context.Background(), s.o.space, key); errors.Is(err, tinycloud.ErrNotFound) {
		s.put(n, s.token(n, s.o, key, "tinycloud.kv/put"), "default of "+string(n.name))
	}
}

// note adds a line to the trace.
func (s *sim) note(format string, args ...any) {
	var tv syscall.Timeval
	_ = syscall.Gettimeofday(&tv)
	if os.Getenv("SIM_REAL") != "" {
		fmt.Printf("%d.%03d opened %d traffic %d %s %s\n", tv.Sec%10000, tv.Usec/1000, s.f.opened, s.f.traffic, time.Since(s.began).Round(time.Millisecond), fmt.Sprintf(format, args...))
	}
	s.trace = append(s.trace, fmt.Sprintf("%9s ", time.Since(s.began).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

// report prints how to run a failed seed again, and what happened in it.
func (s *sim) report() {
	if s.t.Failed() {
		s.compare()
		s.t.Logf("replay: %s\n%s", s.replay, strings.Join(s.trace, "\n"))
	}
}

// compare tells in what each host differs from what its own entries say.
func (s *sim) compare() {
	for _, n := range s.hosts() {
		want, err := oracletest.Fold(s.bundles(n), oracletest.Rules{})
		if err != nil {
			s.t.Logf("%s: %v", n.name, err)
			continue
		}
		for _, d := range differences(want, s.observe(n)) {
			s.t.Logf("%s, by its own entries: %s", n.name, d)
		}
	}
}

// run lets operations and faults happen, then heals everything.
func (s *sim) run() {
	for s.ops < simOps || len(s.trace) < simSteps {
		if n := len(s.early); s.ops > (n+1)*simOps/8 {
			s.glimpseDatabases(n == 3)
		}
		if s.rng.IntN(7) == 0 {
			s.fault()
		} else {
			s.operate()
		}
		s.wake()
		switch s.rng.IntN(4) {
		case 0: // races
		case 1:
			synctest.Wait()
		default:
			<-time.After(time.Duration(s.rng.IntN(12_000)) * time.Millisecond)
			synctest.Wait()
		}
	}
	for key := range simKeys { // so that some are written at one place in the order
		s.race(s.o, fmt.Sprint("k/", key))
	}
	s.heal()
	s.same()
	s.restAndWrite()
	s.same()
}

// restAndWrite has the hosts rest, as far as they agree, and one write; then those that are told wake.
func (s *sim) restAndWrite() {
	<-time.After(2 * time.Minute) // by then each has compared with every other
	for _, n := range s.hosts() {
		s.rest(n)
	}
	<-time.After(5 * time.Minute)
	n := s.hosts()[s.rng.IntN(len(s.hosts()))]
	s.put(n, s.token(n, s.o, s.key(), "tinycloud.kv/put"), "after a rest")
	for range 10 {
		<-time.After(time.Second)
		s.wake()
	}
}

// race writes one key at two hosts at once.
func (s *sim) race(x *owner, key string) {
	for _, i := range s.rng.Perm(len(s.nodes))[:2] {
		s.put(s.nodes[i], s.token(s.nodes[i], x, key, "tinycloud.kv/put"), fmt.Sprint("race ", s.rng.IntN(1000)))
	}
}

// pick is a host that runs.
func (s *sim) pick() *simNode { return s.nodes[s.rng.IntN(len(s.nodes))] }

// key is one of few, so that writes meet.
func (s *sim) key() string { return fmt.Sprint("k/", s.rng.IntN(simKeys)) }

// operate does one operation of the workload.
func (s *sim) operate() {
	s.ops++
	n, x := s.pick(), s.o
	if s.rng.IntN(3) == 0 {
		x = s.extra[s.rng.IntN(len(s.extra))]
	}
	switch s.rng.IntN(26) {
	default:
		value := fmt.Sprint("value ", s.rng.IntN(1000))
		if s.rng.IntN(3) == 0 { // too long to travel with its write
			value = strings.Repeat(value+", ", 800)
		}
		s.put(n, s.token(n, x, s.key(), "tinycloud.kv/put"), value)
	case 0, 1, 2:
		s.del(n, s.token(n, x, s.key(), "tinycloud.kv/del"))
	case 3:
		s.loadOrCreate(n, s.key())
	case 4:
		s.race(x, s.key())
	case 5: // one token at two hosts
		tok := s.token(n, x, s.key(), "tinycloud.kv/put")
		value := fmt.Sprint("twice ", s.rng.IntN(1000))
		for _, i := range s.rng.Perm(len(s.nodes))[:2] {
			s.put(s.nodes[i], tok, value)
		}
	case 6:
		if s.rng.IntN(4) == 0 {
			s.revokeWhileWriting()
		}
	case 8, 9, 10, 11, 12, 13, 14, 15:
		s.operateDatabase(n, x)
	case 7:
		if s.rng.IntN(6) == 0 {
			s.removeOrAdmit()
		}
	}
}

type call struct {
	*capstore.Token
	key string
}

// token signs an invocation that the host's clock takes for timely.
func (s *sim) token(n *simNode, x *owner, key, ability string) call {
	tok, err := capstore.ParseInvocation(x.session.Invoke(captest.TokenOptions{
		Caps:   captest.Caps{s.o.space.String() + "/kv/" + key: {ability}},
		Proofs: []tinycloud.Hash{captest.ID(x.header)}, Nonce: fmt.Sprint("nonce ", s.rng.Uint64()),
		Expires: n.clock().Add(time.Minute),
	}))
	if err != nil {
		s.t.Fatal(err)
	}
	return call{tok, key}
}

func (s *sim) put(n *simNode, c call, value string) {
	s.write(n, c, kv.Op{
		Space: s.o.space, Key: c.key, Value: tinycloud.Sum([]byte(value)), Size: int64(len(value)), Inline: []byte(value),
	}, value[:min(len(value), 24)])
}

func (s *sim) del(n *simNode, c call) {
	s.write(n, c, kv.Op{Space: s.o.space, Key: c.key, Delete: true}, "delete")
}

func (s *sim) write(n *simNode, c call, op kv.Op, what string) {
	err := n.store.Admit(context.Background(), c.Token)
	if err == nil {
		_, err = kv.Of(n.store).Write(context.Background(), c.Token, []kv.Op{op}, nil)
	}
	if err == nil {
		s.acked = append(s.acked, ack{by: n, event: c.ID})
	}
	s.done(n, fmt.Sprintf("%s %s (%s)", c.key, what, c.ID.EventID()[:14]), err)
}

// done notes how an operation ended. Only a host whose disk is broken may fail in a way of its own.
func (s *sim) done(n *simNode, what string, err error) {
	s.note("%s: %s: %v", n.name, what, err)
	if n.broken {
		return
	}
	for _, class := range []error{
		nil, tinycloud.ErrUnauthorized, tinycloud.ErrNotFound, tinycloud.ErrConflict, tinycloud.ErrUnavailable, tinycloud.ErrForbidden, errSQLite,
	} {
		if errors.Is(err, class) {
			return
		}
	}
	s.t.Errorf("%s: %s: %v", n.name, what, err)
}

// revokeWhileWriting ends a session at one host while another host takes its writes.
func (s *sim) revokeWhileWriting() {
	x := s.extra[s.rng.IntN(len(s.extra))]
	order := s.rng.Perm(len(s.nodes))
	at, other := s.nodes[order[0]], s.nodes[order[1]]
	s.put(other, s.token(other, x, s.key(), "tinycloud.kv/put"), "before the revocation")
	tok, err := capstore.ParseRevocation(x.wallet.SignRevocation(captest.ID(x.header)))
	if err != nil {
		s.t.Fatal(err)
	}
	s.done(at, "revokes a session", at.store.Revoke(context.Background(), tok))
	s.put(other, s.token(other, x, s.key(), "tinycloud.kv/put"), "beside the revocation")
}

// removeOrAdmit removes a host, the same one in all of a run, or lets it in again.
func (s *sim) removeOrAdmit() {
	x, at := s.outcast, s.pick()
	if at == x {
		return
	}
	if x.revocation.IsZero() {
		tok, err := capstore.ParseRevocation(s.o.wallet.SignDelegation(captest.DelegationOptions{
			Audience: "ucan:" + x.delegations[len(x.delegations)-1].EventID(), IssuedAt: at.clock(),
		}))
		if err != nil {
			s.t.Fatal(err)
		}
		err = at.store.Revoke(context.Background(), tok)
		s.done(at, "removes "+string(x.name), err)
		if err == nil {
			x.revocation, x.removed = tok.ID, true
			<-time.After(time.Second) // by then it is cut off
			synctest.Wait()
		}
		return
	}
	header := s.o.hosting(x.key(), captest.DelegationOptions{IssuedAt: time.Now().Add(time.Hour)}) // later than what removed it, whatever the clocks
	tok, err := capstore.ParseDelegation(header)
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = at.store.Delegate(context.Background(), tok)
	s.done(at, "admits "+string(x.name)+" again", err)
	if err != nil {
		return
	}
	x.delegations, x.revocation = append(x.delegations, tok.ID), tinycloud.Hash{}
	x.last = tok
	if x.tell = tok; x.told() {
		s.note("%s: is told so", x.name)
	}
}

// told reports whether a host knows of its last delegation, which its operator posts to it until it takes it.
func (n *simNode) told() bool {
	if n.tell == nil {
		return true
	}
	_, err := n.store.Delegate(context.Background(), n.tell)
	if err == nil {
		n.tell = nil
	}
	return err == nil
}

// hosts are the nodes that have to agree.
func (s *sim) hosts() (out []*simNode) {
	for _, n := range s.nodes {
		if n.honest && n.revocation.IsZero() {
			out = append(out, n)
		}
	}
	return out
}

// same waits until the hosts agree and have all values that are left.
func (s *sim) same() {
	s.t.Helper()
	var nodes []*node
	for _, n := range s.hosts() {
		nodes = append(nodes, n.node)
	}
	s.note("equal after %s", sameBut(s.t, s.lacking, nodes...))
}

// lacking is how many values a node waits for that some other may have.
func (s *sim) lacking(n *node) (count int) {
	for _, h := range s.hashes(n, "SELECT hash FROM wants w WHERE EXISTS (SELECT 1 FROM kv k WHERE k.sid = w.sid AND k.value = w.hash AND k.live = 1)") {
		if !s.lost(h) {
			count++
		}
	}
	return count
}

// lost reports whether nobody can give a value: it went with an older database, or with the host that is removed. That
// may have overwritten it before others had it, and its removal made it current again.
func (s *sim) lost(h tinycloud.Hash) (held bool) {
	if s.gone[h] || s.outcast.revocation.IsZero() {
		return s.gone[h]
	}
	for _, n := range s.nodes {
		if slices.Contains(s.hashes(n.node, "SELECT hash FROM vals WHERE inline IS NOT NULL"), h) {
			if n != s.outcast {
				return false
			}
			held = true
		}
	}
	return held
}

func (n *node) clock() time.Time { return time.Now().Add(time.Duration(n.ahead.Load())) }

func (s *sim) bundles(n *simNode) (out []hostlog.Bundle) {
	s.t.Helper()
	err := n.store.Missing(context.Background(), s.o.space, nil, 1<<20, func(b hostlog.Bundle) error {
		out = append(out, b)
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// events are the ids of the tokens in a history.
func events(bundles []hostlog.Bundle) map[tinycloud.Hash]bool {
	out := map[tinycloud.Hash]bool{}
	for _, b := range bundles {
		for _, e := range b.Events {
			out[tinycloud.Sum(e)] = true
		}
	}
	return out
}
