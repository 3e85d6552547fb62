package capstore_test

import (
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
)

// liar is a host that signs whatever it likes.
type liar struct {
	o    *owner
	key  ed25519.PrivateKey
	n    uint64
	prev tinycloud.Hash
	last tinycloud.Hash // epoch

	delegation tinycloud.Hash
	removal    []byte
	entries    []tinycloud.Hash
}

func newLiar(o *owner) *liar {
	return &liar{o: o, key: keys("liar").SpaceKey(o.space)}
}

func (l *liar) host() hostlog.Key { return hostlog.Key(l.key.Public().(ed25519.PublicKey)) }

// bundle makes the liar's next entry, for an epoch of one event.
func (l *liar) bundle(at time.Time, parents []tinycloud.Hash, event []byte, ops ...dag.Op) hostlog.Bundle {
	encoded := make([][]byte, len(ops))
	for i, op := range ops {
		encoded[i] = op.Encode()
	}
	return l.raw(at, parents, event, encoded...)
}

// raw is the same of operations of any service.
func (l *liar) raw(at time.Time, parents []tinycloud.Hash, event []byte, ops ...[]byte) hostlog.Bundle {
	b := hostlog.Bundle{Events: [][]byte{event}}
	ref := dag.EventRef{Event: tinycloud.Sum(event)}
	for _, op := range ops {
		b.Ops, ref.Ops = append(b.Ops, op), append(ref.Ops, tinycloud.Sum(op))
	}
	b.Epoch = dag.Epoch{Parents: parents, Events: []dag.EventRef{ref}}.Encode()
	b.Entry = hostlog.Entry{Space: l.o.space, Host: l.host(), N: l.n, Prev: l.prev, Epoch: tinycloud.Sum(b.Epoch), At: at.UnixMilli()}
	return l.sign(b)
}

func (l *liar) sign(b hostlog.Bundle) hostlog.Bundle {
	digest := b.Entry.Digest()
	b.Sig = hostlog.Signature(ed25519.Sign(l.key, append([]byte("tinycloud/hostlog/1"), digest[:]...)))
	return b
}

// say applies the liar's bundle and makes it the last of its log.
func (l *liar) say(t *testing.T, s *testStore, b hostlog.Bundle) {
	t.Helper()
	a, err := s.Apply(t.Context(), l.o.space, []hostlog.Bundle{b})
	if err != nil || a.New != 1 {
		t.Fatalf("applied %+v: %v", a, err)
	}
	l.n, l.prev, l.last = l.n+1, b.Entry.Digest(), b.Entry.Epoch
	l.entries = append(l.entries, l.prev)
}

// welcome gives the liar a host delegation on its first epoch.
func (l *liar) welcome(t *testing.T, s *testStore) {
	t.Helper()
	tok, err := capstore.ParseDelegation(l.o.signHost(l.host()))
	if err != nil {
		t.Fatal(err)
	}
	l.delegation = tok.ID
	l.say(t, s, l.bundle(l.o.clock.now(), s.status(l.o.space).Heads, tok.Bytes))
}

func write(key, value string) dag.Op {
	return dag.Op{Key: key, Value: tinycloud.Sum([]byte(value)), Metadata: map[string]string{}}
}

func setUp(t *testing.T) (*testStore, *owner, *liar) {
	t.Helper()
	c := newClock()
	s, o := openNew(t, "honest", c), newOwner(t, "alice", c)
	o.hostOn(s)
	s.delegate(o.header)
	if err := o.put(s, "k", "honest"); err != nil {
		t.Fatal(err)
	}
	l := newLiar(o)
	return s, o, l
}

func TestLyingHost(t *testing.T) { everywhere(t, testLyingHost) }

func testLyingHost(t *testing.T) {
	for _, tt := range []struct {
		name string
		lie  func(t *testing.T, s *testStore, o *owner, l *liar) hostlog.Bundle
		want string // value of k afterwards
		void int64  // epochs
	}{
		{"honest", func(t *testing.T, s *testStore, o *owner, l *liar) hostlog.Bundle {
			return l.bundle(o.clock.now(), s.status(o.space).Heads, o.invoke(t, "k", "tinycloud.kv/put").Bytes, write("k", "liar"))
		}, "liar", 0},
		{"after the revocation", func(t *testing.T, s *testStore, o *owner, l *liar) hostlog.Bundle {
			rev, err := capstore.ParseRevocation(o.wallet.SignRevocation(o.proof))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Revoke(t.Context(), rev); err != nil {
				t.Fatal(err)
			}
			return l.bundle(o.clock.now(), append(s.status(o.space).Heads, l.last), o.invoke(t, "k", "tinycloud.kv/put").Bytes, write("k", "liar"))
		}, "honest", 0},
		{"outside the token's window", func(t *testing.T, s *testStore, o *owner, l *liar) hostlog.Bundle {
			tok := o.invoke(t, "k", "tinycloud.kv/put")
			o.clock.ms.Add(600_000)
			return l.bundle(o.clock.now(), s.status(o.space).Heads, tok.Bytes, write("k", "liar"))
		}, "honest", 0},
		{"a key that was not invoked", func(t *testing.T, s *testStore, o *owner, l *liar) hostlog.Bundle {
			return l.bundle(o.clock.now(), s.status(o.space).Heads, o.invoke(t, "other", "tinycloud.kv/put").Bytes, write("k", "liar"))
		}, "honest", 0},
		{"a delete where a put was invoked", func(t *testing.T, s *testStore, o *owner, l *liar) hostlog.Bundle {
			return l.bundle(o.clock.now(), s.status(o.space).Heads, o.invoke(t, "k", "tinycloud.kv/put").Bytes, dag.Op{Key: "k", Delete: true})
		}, "honest", 0},
		{"older than what it builds on", func(t *testing.T, s *testStore, o *owner, l *liar) hostlog.Bundle {
			tok := o.invoke(t, "k", "tinycloud.kv/put").Bytes
			return l.bundle(o.clock.now().Add(-121*time.Second), s.status(o.space).Heads, tok, write("k", "liar"))
		}, "honest", 1},
		{"a delete of what is not in its past", func(t *testing.T, s *testStore, o *owner, l *liar) hostlog.Bundle {
			v := &dag.Version{Seq: 2, Epoch: s.status(o.space).Heads[0], Index: 7}
			return l.bundle(o.clock.now(), s.status(o.space).Heads, o.invoke(t, "k", "tinycloud.kv/del").Bytes, dag.Op{Key: "k", Delete: true, Version: v})
		}, "honest", 0},
		{"a delete without version", func(t *testing.T, s *testStore, o *owner, l *liar) hostlog.Bundle {
			return l.bundle(o.clock.now(), s.status(o.space).Heads, o.invoke(t, "k", "tinycloud.kv/del").Bytes, dag.Op{Key: "k", Delete: true})
		}, "(none)", 0},
		{"an event of a stranger", func(t *testing.T, s *testStore, o *owner, l *liar) hostlog.Bundle {
			mallory := &owner{wallet: o.wallet, space: o.space, session: captest.NewSession("mallory"), proof: o.proof, clock: o.clock}
			return l.bundle(o.clock.now(), s.status(o.space).Heads, mallory.invoke(t, "k", "tinycloud.kv/put").Bytes, write("k", "liar"))
		}, "honest", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, o, l := setUp(t)
			l.welcome(t, s)
			l.say(t, s, tt.lie(t, s, o, l))
			r, err := s.Get(t.Context(), o.space, "k")
			got := "(none)"
			for _, v := range []string{"honest", "liar"} {
				if err == nil && r.Value == tinycloud.Sum([]byte(v)) {
					got = v
				}
			}
			if got != tt.want {
				t.Errorf("k = %s, want %s", got, tt.want)
			}
			if st := s.status(o.space); st.Void != tt.void {
				t.Errorf("%d void epochs, want %d", st.Void, tt.void)
			}
		})
	}
}

func TestStrangerHost(t *testing.T) { everywhere(t, testStrangerHost) }

func testStrangerHost(t *testing.T) {
	s, o, l := setUp(t)
	heads := s.status(o.space).Heads
	l.say(t, s, l.bundle(o.clock.now(), heads, o.invoke(t, "k", "tinycloud.kv/put").Bytes, write("k", "liar")))
	if got := s.get(o.space, "k"); got != "honest" {
		t.Errorf("k = %q", got)
	}
	st := s.status(o.space)
	if st.Void != 1 || len(st.Heads) != 1 || st.Heads[0] != heads[0] {
		t.Errorf("a stranger's epoch counts: %+v", st)
	}
}

func TestRefusedBundles(t *testing.T) { everywhere(t, testRefusedBundles) }

func testRefusedBundles(t *testing.T) {
	s, o, l := setUp(t)
	l.welcome(t, s)
	tok := o.invoke(t, "k", "tinycloud.kv/put").Bytes
	heads := s.status(o.space).Heads
	good := l.bundle(o.clock.now(), heads, tok, write("k", "liar"))
	for _, tt := range []struct {
		name  string
		spoil func(b hostlog.Bundle) hostlog.Bundle
		want  error
	}{
		{"entry's signature", func(b hostlog.Bundle) hostlog.Bundle { b.Sig[3] ^= 1; return b }, tinycloud.ErrForged},
		{"entry's time", func(b hostlog.Bundle) hostlog.Bundle { b.Entry.At++; return b }, tinycloud.ErrForged},
		{"event", func(b hostlog.Bundle) hostlog.Bundle { b.Events = [][]byte{append([]byte{}, "eyJ"...)}; return b }, tinycloud.ErrForged},
		{"operation", func(b hostlog.Bundle) hostlog.Bundle { b.Ops = [][]byte{write("k", "x").Encode()}; return b }, tinycloud.ErrForged},
		{"operation missing", func(b hostlog.Bundle) hostlog.Bundle { b.Ops = nil; return b }, tinycloud.ErrInvalid},
		{"operation too many", func(b hostlog.Bundle) hostlog.Bundle { b.Ops = append(b.Ops, b.Ops...); return b }, tinycloud.ErrInvalid},
		{"epoch", func(b hostlog.Bundle) hostlog.Bundle { b.Epoch = append([]byte{0}, b.Epoch...); return b }, tinycloud.ErrForged},
		{"value", func(b hostlog.Bundle) hostlog.Bundle {
			b.Values = []hostlog.Value{{Hash: tinycloud.Sum(nil), Bytes: []byte("x")}}
			return b
		}, tinycloud.ErrForged},
		{"another space", func(b hostlog.Bundle) hostlog.Bundle { b.Entry.Space = o.wallet.Space("other"); return b }, tinycloud.ErrInvalid},
		{"a number beyond all", func(hostlog.Bundle) hostlog.Bundle {
			far := *l
			far.n = 1 << 63
			return far.bundle(o.clock.now(), heads, tok, write("k", "liar"))
		}, tinycloud.ErrInvalid},
		{"skips its own last epoch", func(hostlog.Bundle) hostlog.Bundle {
			return l.bundle(o.clock.now(), nil, tok, write("k", "liar"))
		}, tinycloud.ErrInvalid},
	} {
		before := s.status(o.space)
		_, err := s.Apply(t.Context(), o.space, []hostlog.Bundle{tt.spoil(good)})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if after := s.status(o.space); after.Epochs != before.Epochs || after.StateHash != before.StateHash {
			t.Errorf("%s: left something behind", tt.name)
		}
	}
	future := l.bundle(o.clock.now().Add(3*time.Minute), heads, tok, write("k", "liar"))
	if a, err := s.Apply(t.Context(), o.space, []hostlog.Bundle{future}); err != nil || a.Held != 1 || a.Covered != 1 {
		t.Errorf("an entry of the future: %+v %v", a, err)
	}
	gap := l.bundle(o.clock.now(), []tinycloud.Hash{l.last, tinycloud.Sum([]byte("?"))}, tok, write("k", "liar"))
	if a, err := s.Apply(t.Context(), o.space, []hostlog.Bundle{gap}); err != nil || !a.Gap {
		t.Errorf("an epoch with an unknown parent: %+v %v", a, err)
	}
	if a, err := s.Apply(t.Context(), o.space, []hostlog.Bundle{good, good}); err != nil || a.New != 1 || a.Duplicate != 1 {
		t.Errorf("the good one, twice: %+v %v", a, err)
	}
}

// An equivocating host is seen through, and its fork does not split the honest hosts.
func TestEquivocation(t *testing.T) { everywhere(t, testEquivocation) }

func testEquivocation(t *testing.T) {
	s, o, l := setUp(t)
	other := openNew(t, "other", o.clock)
	o.hostOn(other)
	l.welcome(t, s)
	other.pull(s, o.space)
	s.pull(other, o.space)
	heads := s.status(o.space).Heads
	one := l.bundle(o.clock.now(), heads, o.invoke(t, "k", "tinycloud.kv/put").Bytes, write("k", "one"))
	two := l.bundle(o.clock.now(), heads, o.invoke(t, "k", "tinycloud.kv/put").Bytes, write("k", "two"))
	for _, x := range []struct {
		s *testStore
		b hostlog.Bundle
	}{{s, one}, {other, two}, {s, two}, {other, one}} {
		if a, err := x.s.Apply(t.Context(), o.space, []hostlog.Bundle{x.b}); err != nil || a.New != 1 {
			t.Fatalf("%+v %v", a, err)
		}
	}
	if a, b := s.status(o.space), other.status(o.space); a.StateHash != b.StateHash {
		t.Errorf("diverged: %+v %+v", a, b)
	}
	hosts, err := s.Hosts(t.Context(), o.space)
	if err != nil {
		t.Fatal(err)
	}
	forked := 0
	for _, h := range hosts {
		if h.Forked {
			forked++
		}
	}
	if forked != 1 {
		t.Errorf("%d hosts forked, want the liar alone", forked)
	}
	if err := o.put(s, "k", "after"); err != nil {
		t.Fatal(err)
	}
	other.pull(s, o.space)
	if got := other.get(o.space, "k"); got != "after" {
		t.Errorf("k = %q", got)
	}
}
