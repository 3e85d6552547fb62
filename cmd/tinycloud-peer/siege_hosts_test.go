package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	bspb "github.com/ipfs/boxo/bitswap/message/pb"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/network"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/attack"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// event is a put or a delete by the owner's session.
func (s *siege) event(key, ability string, op []byte) attack.Event {
	s.Helper()
	return attack.Event{Token: s.invocation(key, ability), Ops: [][]byte{op}}
}

// values names a value that it does not give, and gives others than it names.
func values(s *siege) {
	x := s.traitor()
	never := tinycloud.Sum([]byte("nobody has this"))
	s.tell(x, x.Say(time.Now(), s.heads(s.a), s.event("withheld", "put", attack.Write("withheld", never))))
	var reads sync.WaitGroup
	defer reads.Wait()
	for _, p := range s.nodes.Peers() {
		s.await("the write is known", func() bool { return s.view(p, s.owner).Wants == 1 })
		reads.Go(func() {
			began := time.Now()
			if _, err := s.owner.Get(s.ctx, p, "withheld"); !errors.Is(err, tinycloud.ErrUnavailable) {
				s.Errorf("a withheld value: %v", err)
			}
			if took := time.Since(began); took > 15*time.Second {
				s.Errorf("a get of a withheld value took %s", took)
			}
		})
	}
	// Another value beside the operation, and a manifest that lists another value.
	said := tinycloud.Sum([]byte("as it should be"))
	b := x.Say(time.Now(), s.heads(s.a), s.event("swapped", "put", attack.Write("swapped", said)))
	b.Values = []hostlog.Value{{Bytes: []byte("something else")}}
	s.must(x.gossip.Say(attack.Batch(b)))
	y := s.traitor()
	b = y.Say(time.Now(), s.heads(s.a), s.event("large", "put", attack.Write("large", tinycloud.Sum([]byte("large, they say")))))
	b.Large = []hostlog.Large{{Hash: tinycloud.Sum([]byte("large, they say")), Size: 1 << 40, Manifest: tinycloud.Sum([]byte("plans"))}}
	s.tell(y, b)
	for _, p := range s.nodes.Peers() {
		if got, err := s.owner.Get(s.ctx, p, "swapped"); err == nil {
			s.Errorf("a swapped value was taken: %q", got)
		}
	}
	s.put(s.b, "swapped", "honest again") // ends the wants
	s.put(s.b, "large", "honest again")
}

// lies are epochs of a host that no honest host would make. None changes what the keys say.
func lies(s *siege) {
	s.put(s.a, "target", "honest")
	head := s.heads(s.a)[0]
	s.put(s.a, "later", "honest")
	x := s.traitor()
	del := func(seq uint64, epoch tinycloud.Hash, index uint64) attack.Event {
		return s.event("target", "del", attack.Delete("target", seq, epoch, index))
	}
	evil := attack.Write("target", tinycloud.Sum([]byte("evil")))
	now := time.Now()
	for name, e := range map[string]attack.Event{
		"a place beyond all":            del(1<<62, head, 0),
		"an index beyond all":           del(1, head, 1<<62),
		"an epoch that does not exist":  del(1, tinycloud.Sum([]byte("none")), 0),
		"a put without its ability":     s.event("target", "get", evil),
		"a put to another key":          s.event("elsewhere", "put", evil),
		"an invocation that is nothing": {Token: []byte("eyJhbGciOiJFZERTQSJ9.e30.AAAA"), Ops: [][]byte{evil}},
	} {
		s.tell(x, x.Say(now, s.parents(x), e))
		s.same2("after "+name, "target", "honest")
	}
	// Dated before what it builds on, with a token of now; and far in the future.
	s.must(x.gossip.Say(attack.Batch(x.Say(now.Add(-10*time.Minute), s.parents(x), s.event("target", "put", evil)))))
	s.put(s.b, "beat", "after the past")
	s.same2("after back-dating", "target", "honest")
	y := s.traitor()
	s.must(y.gossip.Say(attack.Batch(y.Say(now.Add(24*time.Hour), s.parents(y), s.event("target", "put", evil)))))
	s.put(s.b, "beat", "after the future")
	s.same2("after fore-dating", "target", "honest")
	s.bounds()
	s.equivocation()
}

// same2 waits until the honest hosts agree and checks a key at both.
func (s *siege) same2(what, key, value string) {
	s.Helper()
	s.converged()
	for _, p := range []*cluster.Peer{s.a, s.b} {
		if got, err := s.owner.Get(s.ctx, p, key); err != nil || string(got) != value {
			s.Errorf("%s: %s is %q at %s, %v; want %q", what, key, got, p.Name, err, value)
		}
	}
}

// bounds are entries out of all bounds: the peer that sends them is cut off, nothing of them is kept.
func (s *siege) bounds() {
	s.Helper()
	for name, spoil := range map[string]func(x *traitor) hostlog.Bundle{
		"number": func(x *traitor) hostlog.Bundle {
			x.N = 1 << 60
			return x.Say(time.Now(), s.heads(s.a))
		},
		"time":      func(x *traitor) hostlog.Bundle { return x.Say(time.UnixMilli(1<<60), s.heads(s.a)) },
		"signature": func(x *traitor) hostlog.Bundle { b := x.Say(time.Now(), s.heads(s.a)); b.Sig[0] ^= 1; return b },
		"parents": func(x *traitor) hostlog.Bundle {
			return x.Say(time.Now(), slices.Repeat(s.heads(s.a), 65))
		},
	} {
		x := s.traitor()
		before := s.view(s.a, s.owner).Epochs
		s.must(x.gossip.Say(attack.Batch(spoil(x))))
		s.put(s.b, "beat", "after "+name)
		s.converged()
		for _, h := range s.view(s.a, s.owner).Hosts {
			if h.PeerID == x.ID().String() && h.Forked {
				s.Errorf("%s: the host counts as forked", name)
			}
		}
		_ = before
	}
}

// equivocation makes two entries with one number. Both are kept, and every honest host says so.
func (s *siege) equivocation() {
	s.Helper()
	x := s.traitor()
	twin := *x.Log
	one := x.Say(time.Now(), s.heads(s.a), s.event("twin", "put", attack.Write("twin", tinycloud.Sum([]byte("one")))))
	two := twin.Say(time.Now(), s.heads(s.a), s.event("twin", "put", attack.Write("twin", tinycloud.Sum([]byte("two")))))
	one.Values = []hostlog.Value{{Bytes: []byte("one")}}
	two.Values = []hostlog.Value{{Bytes: []byte("two")}}
	s.tell(x, one, two)
	s.converged()
	for _, p := range s.nodes.Peers() {
		if !slices.ContainsFunc(s.view(p, s.owner).Hosts, func(h node.HostView) bool { return h.PeerID == x.ID().String() && h.Forked }) {
			s.Errorf("%s does not tell that a host equivocated", p.Name)
		}
	}
	got, err := s.owner.Get(s.ctx, s.a, "twin")
	s.must(err)
	s.same2("equivocation", "twin", string(got))
}

// replays sends what was said once again: bundles by gossip, and a token in a further epoch.
func replays(s *siege) {
	x := s.traitor()
	put := s.event("replayed", "put", attack.Write("replayed", tinycloud.Sum([]byte("first"))))
	b := x.Say(time.Now(), s.heads(s.a), put)
	b.Values = []hostlog.Value{{Bytes: []byte("first")}}
	s.tell(x, b)
	s.put(s.a, "replayed", "second")
	s.converged()
	for range 500 {
		s.must(x.gossip.Say(attack.Batch(b)))
	}
	s.tell(x, x.Say(time.Now(), s.parents(x), put)) // the token once more, at a greater place
	s.same2("replayed event", "replayed", "second")
	// A client's invocation is refused everywhere once it is in the history.
	for _, p := range s.nodes.Peers() {
		token := s.owner.Token("kv/once", "tinycloud.kv/put")
		first, err := s.owner.Call(s.ctx, p, "POST", "/invoke", token, nil, strings.NewReader("once"))
		s.must(err)
		s.converged()
		for _, q := range s.nodes.Peers() {
			again, err := s.owner.Call(s.ctx, q, "POST", "/invoke", token, nil, strings.NewReader("twice"))
			s.must(err)
			if first.Status != 200 || again.Status != 409 {
				s.Errorf("token at %s: %d, again at %s: %d", p.Name, first.Status, q.Name, again.Status)
			}
		}
	}
}

// removedBranch has an accomplice pass on what a removed host signs afterwards: epochs of others copied onto its
// branch, and a write of its own.
func removedBranch(s *siege) {
	x, accomplice := s.traitor(), s.traitor()
	b := x.Say(time.Now(), s.heads(s.a), s.event("removed/before", "put", attack.Write("removed/before", tinycloud.Sum([]byte("before")))))
	b.Values = []hostlog.Value{{Bytes: []byte("before")}}
	s.tell(x, b)
	s.put(s.a, "removed/built-on", "honest")
	s.converged()
	s.must(s.owner.RevokeHost(s.ctx, s.a, x.header))
	s.await("cut off", func() bool { return x.Gone(x.at) })
	s.converged()
	s.reads("removed/before", "before", s.a, s.b) // an honest host built on it before the removal
	// The epoch of a bundle that is the accomplice's, claimed by the removed host; then one of its own.
	foreign := accomplice.Say(time.Now(), s.heads(s.a), s.event("removed/foreign", "put", attack.Write("removed/foreign", tinycloud.Sum([]byte("foreign")))))
	foreign.Values = []hostlog.Value{{Bytes: []byte("foreign")}}
	copied := x.Claim(time.Now(), foreign)
	late := x.Say(time.Now(), []tinycloud.Hash{copied.Entry.Epoch}, s.event("removed/late", "put", attack.Write("removed/late", tinycloud.Sum([]byte("late")))))
	late.Values = []hostlog.Value{{Bytes: []byte("late")}}
	s.must(accomplice.gossip.Say(attack.Batch(foreign), attack.Batch(copied), attack.Batch(late)))
	s.await("the accomplice is heard", func() bool {
		got, err := s.owner.Get(s.ctx, s.b, "removed/foreign")
		return err == nil && string(got) == "foreign"
	})
	s.put(s.a, "removed/after", "honest")
	s.converged()
	s.reads("removed/built-on", "honest", s.a, s.b)
	for _, p := range s.nodes.Peers() {
		if got, err := s.owner.Get(s.ctx, p, "removed/late"); err == nil {
			s.Errorf("%s: a removed host wrote %q", p.Name, got)
		}
	}
	if _, err := x.Dial(s.ctx, s.addr); err == nil {
		chain, _ := s.token(x.header), 0
		if _, err := x.Hello(s.ctx, x.at, attack.Prove(s.owner.Space, chain)); !errors.Is(err, attack.ErrRefused) {
			s.Errorf("the removed host comes back: %v", err)
		}
	}
}

// garbage of a host ends with the host being cut off and refused.
func garbage(s *siege) {
	wrong := attack.Frame(attack.Message("done", time.Now().UnixMilli(), false))
	for name, send := range map[string][]byte{
		"garbage":     []byte("\x07garbage"),
		"empty frame": {0},
		"long length": {0xff, 0xff, 0xff, 0xff, 1},
		"oversized":   attack.Frame(make([]byte, 384<<10+1)),
		"no request":  wrong,
		"deep":        attack.Frame(bytes.Repeat([]byte{0x81}, 300<<10)),
		"huge array":  attack.Frame(append([]byte{0xa1, 0x66, 'l', 'o', 'c', 'a', 't', 'e', 0x81, 0x9a, 0x7f, 0xff, 0xff, 0xff}, make([]byte, 1<<10)...)),
		"acknowledges what was not sent": slices.Concat(attack.Open(tinycloud.Hash{1}), attack.HaveNothing(),
			attack.Frame(attack.Message("ack", 7))),
	} {
		x := s.traitor()
		for i := 0; i < 6 && !x.Gone(x.at); i++ {
			st, err := x.NewStream(s.ctx, x.at, attack.SyncProtocol)
			if err != nil {
				break
			}
			_, _ = st.Write(send)
			_, _ = readAll(st, 10*time.Second)
			_ = st.Reset()
		}
		s.await(name+": cut off", func() bool { return x.Gone(x.at) })
		id, err := x.Dial(s.ctx, s.addr)
		s.must(err)
		chain, _ := s.delegated(x.Client)
		if _, err := x.Hello(s.ctx, id, attack.Prove(s.owner.Space, chain)); !errors.Is(err, attack.ErrRefused) {
			s.Errorf("%s: it comes back at once: %v", name, err)
		}
		_ = x.Client.Close()
	}
}

func readAll(st network.Stream, d time.Duration) (n int, err error) {
	_ = st.SetReadDeadline(time.Now().Add(d))
	b := make([]byte, 32<<10)
	for err == nil {
		var k int
		k, err = st.Read(b)
		n += k
	}
	return n, err
}

// requests of a host come in numbers, stop halfway, or are never read.
func requests(s *siege) {
	x := s.traitor()
	for i := range 64 { // halves of frames: as much as it may hold open
		st, err := x.NewStream(s.ctx, x.at, attack.SyncProtocol)
		if err != nil {
			break
		}
		_ = st.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = st.Write(attack.Frame(make([]byte, 300<<10))[:200<<10+i])
	}
	y := s.traitor()
	hashes := make([]tinycloud.Hash, 256)
	for i := range hashes {
		_, _ = rand.Read(hashes[i][:])
	}
	diary := tinycloud.Sum([]byte("dear diary, nobody reads this"))
	hashes[0] = diary
	answered := 0
	for range 400 {
		st, err := y.NewStream(s.ctx, y.at, attack.SyncProtocol)
		if err != nil {
			break
		}
		_, _ = st.Write(attack.Locate(hashes...))
		_ = st.SetReadDeadline(time.Now().Add(5 * time.Second))
		if b, err := attack.ReadFrame(st, 1<<20); err == nil {
			answered++
			if name, parts, err := attack.Parse(b); err != nil || name != "located" || !bytes.HasPrefix(parts[0][3:], []byte{0x82, 0x20}) {
				s.Fatalf("a value of another space was located: %s %x, %v", name, b[:min(len(b), 40)], err)
			}
		}
		_ = st.Reset()
	}
	if answered == 0 {
		s.Error("no request was answered")
	}
	z := s.traitor()
	for range 64 { // histories that are asked for and not read
		if st, err := z.NewStream(s.ctx, z.at, attack.SyncProtocol); err == nil {
			_, _ = st.Write(slices.Concat(attack.Open(tinycloud.Hash{1}), attack.HaveNothing()))
		}
	}
	s.put(s.a, "beat", "while they wait")
	s.converged()
	others := map[string][]byte{}
	for name, secret := range s.secrets {
		if strings.Contains(name, "other") {
			others[name] = secret
		}
	}
	for _, c := range []*traitor{x, y, z} {
		if found := c.Told.Holds(others); len(found) > 0 {
			s.Errorf("a host of one space was told %s", strings.Join(found, ", "))
		}
	}
}

// gossip of a host comes faster than it can be judged, and is wrong, or right, or of other topics.
func gossip(s *siege) {
	for name, flood := range map[string]struct {
		say func(x *traitor, i int) error
		cut bool // nothing of it is what an honest host might send
	}{
		"garbage": {func(x *traitor, i int) error { return x.gossip.Say(make([]byte, 1+i%1000)) }, true},
		"forged": {func(x *traitor, i int) error {
			l := *x.Log
			b := l.Say(time.Now(), s.known(x), attack.Event{Token: make([]byte, 4<<10)})
			b.Sig[0] ^= byte(1 + i)
			return x.gossip.Say(attack.Batch(b))
		}, true},
		"oversized": {func(x *traitor, _ int) error { return x.gossip.Say(make([]byte, 65<<10)) }, true},
		"the same": {func(x *traitor, _ int) error {
			return x.gossip.Say(slices.Repeat([][]byte{x.batch}, 16)...)
		}, false},
		"topics": {func(x *traitor, i int) error {
			rpc := &pb.RPC{}
			for k := range 100 {
				yes, topic := true, fmt.Sprintf("topic %d %d %0200d", i, k, k)
				rpc.Subscriptions = append(rpc.Subscriptions, &pb.RPC_SubOpts{Subscribe: &yes, Topicid: &topic})
			}
			return x.gossip.Send(rpc)
		}, false},
		"control": {func(x *traitor, i int) error {
			topic := attack.Topic
			ids := make([]string, 500)
			for k := range ids {
				ids[k] = fmt.Sprintf("message %d %d", i, k)
			}
			return x.gossip.Send(&pb.RPC{Control: &pb.ControlMessage{
				Ihave: []*pb.ControlIHave{{TopicID: &topic, MessageIDs: ids}}, Iwant: []*pb.ControlIWant{{MessageIDs: ids}},
				Graft: []*pb.ControlGraft{{TopicID: &topic}},
			}})
		}, false},
	} {
		s.under(name, func(s *siege) {
			x := s.traitor()
			x.batch = attack.Batch(x.told...)
			_ = x.gossip.SetWriteDeadline(time.Now().Add(2 * time.Second))
			sent := 0
			for err := error(nil); err == nil && sent < 20_000; sent++ {
				err = flood.say(x, sent)
			}
			s.Logf("%d RPCs", sent)
			if flood.cut {
				s.await("cut off", func() bool { return x.Gone(x.at) })
			}
			_ = x.Client.Close()
		})
	}
}

// known is a parent for bundles that nobody will keep.
func (s *siege) known(x *traitor) []tinycloud.Hash { return []tinycloud.Hash{x.Last} }

// hostWants asks by bitswap for another Space's value and for more than can be had.
func hostWants(s *siege) {
	x := s.traitor()
	st, err := x.NewStream(s.ctx, x.at, attack.Bitswap)
	s.must(err)
	defer st.Reset() //nolint:errcheck // over
	diary := tinycloud.Sum([]byte("dear diary, nobody reads this"))
	_ = st.SetWriteDeadline(time.Now().Add(3 * time.Second))
	for i := range 200 {
		m := bsmsg.New(true)
		m.AddEntry(diary.CID(tinycloud.RawCodec), 1, bspb.Message_Wantlist_Block, true)
		for k := range 1000 {
			h := tinycloud.Sum(fmt.Append(nil, i, k))
			m.AddEntry(h.CID(tinycloud.RawCodec), 1, bspb.Message_Wantlist_Block, true)
		}
		if err := m.ToNetV1(st); err != nil {
			break
		}
	}
	s.put(s.a, "beat", "while much is wanted")
	s.converged()
	if found := x.Told.Holds(map[string][]byte{"value": s.secrets["other value"]}); len(found) > 0 {
		s.Error("a value of another space was given")
	}
}
