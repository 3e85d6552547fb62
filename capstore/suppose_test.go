package capstore_test

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
)

// alone has a store look for what others wrote only when it has to.
func alone(s *capstore.Store) { capstore.SetFollow(s, time.Hour); capstore.SetDeaf(s) }

// Writes of new keys and values take one round trip each, and what the memory knows afterwards is what is stored. What is not
// new is asked for.
func TestSentWhole(t *testing.T) {
	onServers(t, func(t *testing.T) {
		c := newClock()
		s := openWith(t, "one", c, newDatabase(t), func(*capstore.Options) {}, alone)
		o := newOwner(t, "alice", c)
		o.member(s)
		s.delegate(o.header)
		mustPut(t, o, s, "first", "first") // loads the Space
		const puts = 20
		before := capstore.Turns(s.Store)
		for i := range puts {
			mustPut(t, o, s, fmt.Sprint("new", i), fmt.Sprint("value ", i))
		}
		if n := capstore.Turns(s.Store).Whole - before.Whole; n != puts {
			t.Errorf("%d of %d puts were sent whole", n, puts)
		}
		before = capstore.Turns(s.Store)
		mustPut(t, o, s, "new0", "another value")
		mustPut(t, o, s, "new-again", "value 1")
		if after := capstore.Turns(s.Store); after.Whole != before.Whole || after.Wrong != before.Wrong {
			t.Errorf("what this process wrote is supposed to be new: %+v, %+v", before, after)
		}
		other := tinycloud.Sum([]byte("another value"))
		tok := o.invoke(t, "new-too", "tinycloud.kv/put")
		if _, err := s.Write(t.Context(), tok, []kv.Op{putOp(o.space, "new-too", "x")}, &kv.Precondition{Match: &other}); !errors.Is(err, tinycloud.ErrPrecondition) {
			t.Errorf("a put that wants another value there: %v", err)
		}
		if after := capstore.Turns(s.Store); after.Wrong != before.Wrong {
			t.Error("what is refused where the key is new counts as supposed wrongly")
		}
		capstore.SetDoubts(s.Store, true)
		mustPut(t, o, s, "last", "compares what is loaded with what is stored")
		s.sound()
	})
}

// What is supposed and is not so is found out: keys, values and Spaces that another process wrote to, a revocation, a limit.
func TestSupposedWrong(t *testing.T) {
	onServers(t, func(t *testing.T) {
		c, dsn := newClock(), newDatabase(t)
		o, other := newOwner(t, "alice", c), newOwner(t, "bob", c)
		limit := func(opt *capstore.Options) {
			opt.Limit = func(id tinycloud.SpaceID) (int64, bool) { return 200, id == other.space }
		}
		a, b := openWith(t, "one", c, dsn, limit, alone), openWith(t, "one", c, dsn, limit, alone)
		for _, x := range []*owner{o, other} {
			x.member(a)
			a.delegate(x.header)
			for _, s := range []*testStore{a, b} {
				mustPut(t, x, s, fmt.Sprintf("first-%p", s), fmt.Sprintf("loads the space %p", s))
			}
		}
		// write is a put that the process lets in by what it knows.
		write := func(s *testStore, x *owner, key, value string) error {
			tok := x.invoke(t, key, "tinycloud.kv/put")
			err := s.AdmitToPerform(t.Context(), tok)
			if err == nil {
				_, err = s.Write(t.Context(), tok, []kv.Op{putOp(x.space, key, value)}, nil)
			}
			return err
		}
		wrong := func(what string, s *testStore, f func()) {
			t.Helper()
			before := capstore.Turns(s.Store).Wrong
			f()
			if capstore.Turns(s.Store).Wrong == before {
				t.Errorf("%s: nothing was found wrong", what)
			}
			capstore.SupposeAgain(s.Store)
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(write(b, o, "k", "of b"))
		wrong("another process wrote to the Space", a, func() { must(write(a, o, "k", "of a")) })
		if got := b.get(o.space, "k"); got != "of a" {
			t.Errorf("k is %q", got)
		}
		must(write(a, o, "next", "next")) // b has the Space of before again
		must(b.Admit(t.Context(), o.invoke(t, "k", "tinycloud.kv/get")))
		wrong("a key that another process wrote", b, func() { must(write(b, o, "next", "of b too")) })
		must(a.Admit(t.Context(), o.invoke(t, "k", "tinycloud.kv/get")))
		wrong("a value that another process wrote", a, func() { must(write(a, o, "third", "of b too")) })

		used := o.invoke(t, "used", "tinycloud.kv/put")
		for _, s := range []*testStore{a, b} {
			must(s.AdmitToPerform(t.Context(), used))
		}
		_, err := a.Write(t.Context(), used, []kv.Op{putOp(o.space, "used", "by a")}, nil)
		must(err)
		must(b.Admit(t.Context(), o.invoke(t, "k", "tinycloud.kv/get")))
		wrong("a token that another process used", b, func() {
			if _, err := b.Write(t.Context(), used, []kv.Op{putOp(o.space, "used", "by b")}, nil); !errors.Is(err, tinycloud.ErrConflict) {
				t.Errorf("a put by a token that was used: %v", err)
			}
		})

		before := capstore.Turns(a.Store).Whole
		must(write(a, other, "fits", "0123456789"))
		if capstore.Turns(a.Store).Whole == before {
			t.Error("a put to a Space with a limit is not sent whole")
		}
		wrong("a limit", a, func() {
			if err := write(a, other, "too-much", fmt.Sprintf("%0200d", 1)); !errors.Is(err, tinycloud.ErrTooLarge) {
				t.Errorf("a put beyond the limit: %v", err)
			}
		})
		must(write(a, other, "fits-too", "9876543210"))

		tok := o.invoke(t, "revoked", "tinycloud.kv/put")
		must(a.AdmitToPerform(t.Context(), tok))
		must(b.Revoke(t.Context(), o.revocation(t, o.proof)))
		wrong("a revocation", a, func() {
			if _, err := a.Write(t.Context(), tok, []kv.Op{putOp(o.space, "revoked", "x")}, nil); !errors.Is(err, tinycloud.ErrUnauthorized) {
				t.Errorf("a put by a revoked session: %v", err)
			}
		})
		for _, s := range []*testStore{a, b} {
			s.sound()
		}
	})
}

// Processes that write to Spaces of their own send whole, side by side, and know of one another's writes.
func TestSentWholeSideBySide(t *testing.T) {
	onServers(t, func(t *testing.T) {
		const puts = 30
		c, dsn := newClock(), newDatabase(t)
		stores := []*testStore{openWith(t, "one", c, dsn, func(*capstore.Options) {}), openWith(t, "one", c, dsn, func(*capstore.Options) {})}
		owners := []*owner{newOwner(t, "alice", c), newOwner(t, "bob", c)}
		for i, o := range owners {
			o.member(stores[i])
			stores[i].delegate(o.header)
			for _, s := range stores {
				mustPut(t, o, s, fmt.Sprintf("first-%p", s), fmt.Sprintf("loads the space %p", s))
			}
		}
		before := []capstore.Turned{capstore.Turns(stores[0].Store), capstore.Turns(stores[1].Store)}
		var writing sync.WaitGroup
		for i, o := range owners {
			for w := range 4 {
				var toks []*capstore.Token
				for n := range puts {
					toks = append(toks, o.invoke(t, fmt.Sprint("k", w, "-", n), "tinycloud.kv/put"))
				}
				writing.Go(func() {
					for n, tok := range toks {
						err := stores[i].AdmitToPerform(t.Context(), tok)
						if err == nil {
							_, err = stores[i].Write(t.Context(), tok, []kv.Op{putOp(o.space, fmt.Sprint("k", w, "-", n), fmt.Sprint(i, w, n))}, nil)
						}
						if err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
		writing.Wait()
		whole, met := int64(0), int64(0)
		for i, s := range stores {
			after := capstore.Turns(s.Store)
			whole, met = whole+after.Whole-before[i].Whole, met+after.Met-before[i].Met
		}
		if whole < puts || met == 0 {
			t.Errorf("%d transactions were sent whole, %d of them met another process", whole, met)
		}
		for _, o := range owners {
			x, y := stores[0].status(o.space), stores[1].status(o.space)
			if fmt.Sprint(x) != fmt.Sprint(y) || x.Void != 0 {
				t.Errorf("%+v\n%+v", x, y)
			}
			checkLog(t, stores[0], o.space)
		}
		for _, s := range stores {
			capstore.SetDoubts(s.Store, true)
			for _, o := range owners {
				mustPut(t, o, s, fmt.Sprintf("last-%p", s), fmt.Sprintf("compares what is loaded with what is stored %p", s))
			}
			s.sound()
		}
	})
}

// crossing is a way to a server that can lose what is on it.
type crossing struct {
	net.Listener
	to string
	// What is asked next does not arrive, or what is answered. Then the connection ends.
	loseAsked, loseAnswer atomic.Bool
	running               sync.WaitGroup
}

func newCrossing(t *testing.T, dsn string) (*crossing, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x := &crossing{Listener: l, to: u.Host}
	x.running.Go(x.serve)
	t.Cleanup(func() { _ = l.Close(); x.running.Wait() })
	u.Host = l.Addr().String()
	return x, u.String()
}

func (x *crossing) serve() {
	for {
		near, err := x.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", x.to)
		if err != nil {
			_ = near.Close()
			continue
		}
		x.running.Go(func() { carry(near, far, &x.loseAsked) })
		x.running.Go(func() { carry(far, near, &x.loseAnswer) })
	}
}

func carry(from, to net.Conn, lose *atomic.Bool) {
	defer func() { _ = errors.Join(from.Close(), to.Close()) }()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if err != nil || lose.Swap(false) {
			return
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

// A write whose connection ends is neither lost nor made twice, whether the server had it or not, and is answered.
func TestAnswerLost(t *testing.T) {
	onServers(t, func(t *testing.T) {
		c := newClock()
		way, dsn := newCrossing(t, newDatabase(t))
		s := openWith(t, "one", c, dsn, func(*capstore.Options) {}, alone)
		o := newOwner(t, "alice", c)
		o.member(s)
		s.delegate(o.header)
		mustPut(t, o, s, "first", "first")
		for i, lose := range []*atomic.Bool{&way.loseAnswer, &way.loseAsked, &way.loseAnswer} {
			tok := o.invoke(t, fmt.Sprint("k", i), "tinycloud.kv/put")
			if err := s.AdmitToPerform(t.Context(), tok); err != nil {
				t.Fatal(err)
			}
			before := s.status(o.space).Epochs
			lose.Store(true)
			if _, err := s.Write(t.Context(), tok, []kv.Op{putOp(o.space, fmt.Sprint("k", i), fmt.Sprint("value ", i))}, nil); err != nil {
				t.Errorf("write %d: %v", i, err)
			}
			if lose.Load() {
				t.Errorf("write %d: nothing was lost", i)
			}
			if after := s.status(o.space).Epochs; after != before+1 || s.get(o.space, fmt.Sprint("k", i)) != fmt.Sprint("value ", i) {
				t.Errorf("write %d: %d epochs, %d before", i, after, before)
			}
			mustPut(t, o, s, fmt.Sprint("then", i), fmt.Sprint("it goes on ", i))
		}
		s.sound()
	})
}

// Of several processes that make the same new keys at the same time, if they are not there, one makes each; nothing that was
// acknowledged is lost.
func TestOneMakesIt(t *testing.T) {
	onServers(t, func(t *testing.T) {
		const keys = 40
		c, dsn := newClock(), newDatabase(t)
		o := newOwner(t, "alice", c)
		var stores []*testStore
		for range 3 {
			stores = append(stores, openWith(t, "one", c, dsn, func(*capstore.Options) {}))
		}
		o.member(stores[0])
		stores[0].delegate(o.header)
		for _, s := range stores {
			mustPut(t, o, s, fmt.Sprintf("first-%p", s), fmt.Sprintf("loads the space %p", s))
		}
		var made [keys]atomic.Int64 // by whom
		var racing sync.WaitGroup
		for i, s := range stores {
			for w := range 2 {
				toks := make([]*capstore.Token, keys)
				for k := range toks {
					toks[k] = o.invoke(t, fmt.Sprint("k", k), "tinycloud.kv/put")
				}
				racing.Go(func() {
					for n := range keys {
						k := (n + 3*w + i) % keys
						err := s.AdmitToPerform(t.Context(), toks[k])
						if err == nil {
							_, err = s.Write(t.Context(), toks[k], []kv.Op{putOp(o.space, fmt.Sprint("k", k), fmt.Sprint(k, " by ", 1+2*i+w))}, &kv.Precondition{Absent: true})
						}
						switch {
						case err == nil && !made[k].CompareAndSwap(0, int64(1+2*i+w)):
							t.Errorf("key %d is made twice", k)
						case err != nil && !errors.Is(err, tinycloud.ErrPrecondition):
							t.Error(err)
						}
					}
				})
			}
		}
		racing.Wait()
		supposed := int64(0)
		for _, s := range stores {
			turns := capstore.Turns(s.Store)
			supposed += turns.Whole + turns.Wrong
			for k := range keys {
				if got, want := s.get(o.space, fmt.Sprint("k", k)), fmt.Sprint(k, " by ", made[k].Load()); got != want {
					t.Errorf("key %d is %q, made was %q", k, got, want)
				}
			}
		}
		if supposed == 0 {
			t.Error("nothing was supposed")
		}
		checkLog(t, stores[0], o.space)
		stores[1].sound()
	})
}

// Writes that come together and are too large for one message are sent in several.
func TestSentWholeInParts(t *testing.T) {
	onServers(t, func(t *testing.T) {
		c := newClock()
		s := openWith(t, "one", c, newDatabase(t), func(*capstore.Options) {}, alone)
		o := newOwner(t, "alice", c)
		o.member(s)
		s.delegate(o.header)
		mustPut(t, o, s, "first", "first")
		before := capstore.Turns(s.Store)
		var writing sync.WaitGroup
		for i := range 48 {
			tok := o.invoke(t, fmt.Sprint("k", i), "tinycloud.kv/put")
			writing.Go(func() {
				op := putOp(o.space, fmt.Sprint("k", i), fmt.Sprintf("%060000d", i))
				if _, err := s.Write(t.Context(), tok, []kv.Op{op}, nil); err != nil {
					t.Error(err)
				}
			})
		}
		writing.Wait()
		if after := capstore.Turns(s.Store); after.Wrong > before.Wrong || after.Whole == before.Whole {
			t.Errorf("%+v, before: %+v", after, before)
		}
		s.sound()
	})
}
