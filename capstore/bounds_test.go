package capstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
)

// A host that waits for a Space's history can't say where a removal belongs, so it removes no host; what ends a session
// it takes.
func TestRemovalWaits(t *testing.T) {
	t.Run(onMemory, func(t *testing.T) {
		c := newClock()
		s, o := openNew(t, "late", c), newOwner(t, "alice", c)
		capstore.SetPatience(s.Store, 100*time.Millisecond)
		other := o.member(s)
		options := captest.HostOptions(o.space, newLiar(o).host().String())
		options.IssuedAt = c.now()
		header := o.wallet.SignDelegation(options)
		s.delegate(header)
		options.Audience = string(captest.NewWallet("manager").DID()) // who lets hosts in
		manager := o.wallet.SignDelegation(options)
		s.delegate(manager)
		s.delegate(o.header)
		if err := s.AddJoin(t.Context(), o.space, []string{"/ip4/127.0.0.1/tcp/1"}, false); err != nil {
			t.Fatal(err)
		}
		for _, target := range []tinycloud.Hash{other, captest.ID(header), captest.ID(manager)} {
			if err := s.Revoke(t.Context(), o.revocation(t, target)); !errors.Is(err, tinycloud.ErrUnavailable) {
				t.Errorf("a joining host removes one: %v", err)
			}
		}
		if err := s.Revoke(t.Context(), o.revocation(t, o.proof)); err != nil {
			t.Errorf("a joining host ends a session: %v", err)
		}
		if err := s.Synced(t.Context(), o.space); err != nil {
			t.Fatal(err)
		}
		if err := s.Revoke(t.Context(), o.revocation(t, captest.ID(header))); err != nil {
			t.Errorf("once it has joined: %v", err)
		}
	})
}

// What bytes alone show to be more than a host makes is refused: events and parents of an epoch, metadata of a write,
// the length of a token. An imported history may have more events and parents.
func TestBoundsOfAnEpoch(t *testing.T) {
	onScene(t, func(c *scene) {
		tok := c.invokes(c.o.session, captest.TokenOptions{Proofs: []tinycloud.Hash{c.o.proof}}, "k")
		read := said{token: tok}
		parents := func(n int) (out []tinycloud.Hash) {
			for i := range n {
				out = append(out, tinycloud.Sum([]byte{byte(i)}))
			}
			return out
		}
		headers := func(n int) said {
			op := write("k", "v")
			op.Metadata["x-tinycloud-meta-a"] = strings.Repeat("x", n-len("x-tinycloud-meta-a"))
			return said{tok, []dag.Op{op}}
		}
		long := read
		long.token = &capstore.Token{ID: tinycloud.Sum(bytes.Repeat([]byte("e"), 64<<10+1)), Bytes: bytes.Repeat([]byte("e"), 64<<10+1)}
		for _, tt := range []struct {
			name string
			b    hostlog.Bundle
			want error
		}{
			{"64 parents", c.l.epoch(c.o.clock.now(), parents(64), read), nil},
			{"65 parents", c.l.epoch(c.o.clock.now(), parents(65), read), tinycloud.ErrInvalid},
			{"1,000 events", c.l.epoch(c.o.clock.now(), nil, slices.Repeat([]said{read}, 1000)...), nil},
			{"1,001 events", c.l.epoch(c.o.clock.now(), nil, slices.Repeat([]said{read}, 1001)...), tinycloud.ErrInvalid},
			{"16 KiB of metadata", c.l.epoch(c.o.clock.now(), nil, headers(16<<10)), nil},
			{"more metadata", c.l.epoch(c.o.clock.now(), nil, headers(16<<10+1)), tinycloud.ErrInvalid},
			{"64 KiB of token", c.l.epoch(c.o.clock.now(), nil, long), nil}, // void, as any that can't be read
		} {
			if err := hostlog.CheckAll(c.o.space, []hostlog.Bundle{tt.b}).Bad; !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
			}
		}
		long.ops = []dag.Op{write("k", "k")}
		c.says(c.l, nil, long)
		c.counts("k", false)

		large := putOp(c.o.space, "k", "v")
		large.Metadata = headers(16<<10 + 1).ops[0].Metadata
		if _, err := c.s.Write(c.Context(), tok, ops(large), nil); !errors.Is(err, tinycloud.ErrTooLarge) {
			t.Errorf("a write that no other host would take: %v", err)
		}

		old := hostlog.Bundle{Entry: hostlog.Entry{Space: c.o.space, Host: c.l.host(), At: c.o.clock.now().UnixMilli()}}
		e := c.l.epoch(c.o.clock.now(), parents(65), slices.Repeat([]said{headers(20 << 10)}, 150)...)
		old.Imported = []hostlog.Imported{{At: old.Entry.At, Epoch: e.Epoch, Events: e.Events, Ops: e.Ops}}
		old.Entry.Import = hostlog.ImportHash(old.Imported)
		old = c.l.sign(old)
		if err := hostlog.CheckAll(c.o.space, []hostlog.Bundle{old}).Bad; err != nil {
			t.Errorf("an old history: %v", err)
		}
	})
}

// A host that forks its log a thousand times keeps nobody from comparing histories and from catching up.
func TestForkedOften(t *testing.T) {
	onScene(t, func(c *scene) {
		const forks = 1200 // more than a query of SQLite may have alternatives
		other, late := openNew(t, "other", c.o.clock), openNew(t, "late", c.o.clock)
		c.o.hostOn(other)
		c.o.hostOn(late)
		other.pull(c.s, c.o.space)
		c.s.pull(other, c.o.space)
		base := *c.l
		fork := func(i, length int) (bundles []hostlog.Bundle) {
			l := base
			for k := range length {
				key := fmt.Sprintf("fork/%d/%d", i, k)
				tok := c.invokes(c.o.session, captest.TokenOptions{Proofs: []tinycloud.Hash{c.o.proof}, Nonce: key}, key)
				b := l.epoch(c.o.clock.now(), []tinycloud.Hash{l.last}, c.put(tok, key))
				l.n, l.prev, l.last = l.n+1, b.Entry.Digest(), b.Entry.Epoch
				bundles = append(bundles, b)
			}
			return bundles
		}
		halves := map[*testStore][]hostlog.Bundle{}
		for i := range forks {
			s := []*testStore{c.s, other}[i%2]
			halves[s] = append(halves[s], fork(i, 1+i%100/99)...) // some of them longer
		}
		for s, bundles := range halves {
			for range 2 { // said again they are known
				for part := range slices.Chunk(bundles, 500) {
					if a, err := s.Apply(t.Context(), c.o.space, part); err != nil || a.New+a.Duplicate != len(part) {
						t.Fatalf("%+v %v", a, err)
					}
				}
			}
		}
		c.s.pull(other, c.o.space)
		other.pull(c.s, c.o.space)
		mustPut(t, c.o, c.s, "k", "goes on")
		other.pull(c.s, c.o.space)
		late.pull(other, c.o.space)
		want := c.s.status(c.o.space)
		for _, s := range []*testStore{other, late} {
			if got := s.status(c.o.space); got.StateHash != want.StateHash || got.Keys != forks+forks/100+1 {
				t.Errorf("%s: %+v\nwant %+v", s.name, got, want)
			}
			tips, err := s.Tips(t.Context(), c.o.space)
			if err != nil {
				t.Fatal(err)
			}
			if have, _, err := c.s.Have(t.Context(), c.o.space, tips); err != nil || len(tips)-len(have) > 1 { // but for late's own
				t.Errorf("%d of %s's %d tips are known: %v", len(have), s.name, len(tips), err)
			}
		}
	})
}
