package capstore_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
)

// What a transaction knows without asking is what the database would answer, whatever its requests write: in one Space with
// a limit and one without, beside another process.
func TestWhatIsKnownHolds(t *testing.T) {
	onServers(t, func(t *testing.T) {
		c, url := newClock(), newDatabase(t)
		first, second := newOwner(t, "alice", c), newOwner(t, "bob", c)
		limit := func(o *capstore.Options) {
			o.Limit = func(id tinycloud.SpaceID) (int64, bool) { return 8, id == first.space }
		}
		doubting := func(s *capstore.Store) { capstore.SetDoubts(s, true) }
		stores := []*testStore{openWith(t, "one", c, url, limit, doubting), openWith(t, "one", c, url, limit, doubting)}
		owners := []*owner{first, second}
		for _, o := range owners {
			o.hostOn(stores[0])
			stores[1].delegate(o.header)
		}
		var wg sync.WaitGroup
		for w := range 12 {
			s, o := stores[w%2], owners[w/2%2]
			var toks []*capstore.Token
			var todo []kv.Op
			for i := range 10 {
				key := fmt.Sprint("k", (w+i)%5)
				ability, op := "tinycloud.kv/put", putOp(o.space, key, fmt.Sprint("v", (w*i)%7))
				if (w+i)%4 == 3 {
					ability, op = "tinycloud.kv/del", kv.Op{Space: o.space, Key: key, Delete: true}
				}
				toks, todo = append(toks, o.invoke(t, key, ability)), append(todo, op)
			}
			wg.Go(func() {
				for i, tok := range toks {
					err := s.AdmitToPerform(t.Context(), tok)
					if err == nil {
						_, err = s.Write(t.Context(), tok, todo[i:i+1], nil)
					}
					if err != nil && !errors.Is(err, tinycloud.ErrNotFound) && !errors.Is(err, tinycloud.ErrQuota) && !errors.Is(err, tinycloud.ErrTooLarge) {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		for _, o := range owners {
			a, b := stores[0].status(o.space), stores[1].status(o.space)
			if fmt.Sprint(a) != fmt.Sprint(b) || a.Void != 0 {
				t.Errorf("%+v\n%+v", a, b)
			}
			checkLog(t, stores[0], o.space)
		}
		stores[0].sound()
	})
}

// A used token is refused where it is used again, even when it was let in.
func TestUsedTokenIsRefusedUnderTheLock(t *testing.T) {
	onServers(t, func(t *testing.T) {
		c, url := newClock(), newDatabase(t)
		a, b := open(t, "one", c, url), open(t, "one", c, url)
		o := newOwner(t, "alice", c)
		o.hostOn(a)
		b.delegate(o.header)
		if err := o.put(b, "other", "v"); err != nil {
			t.Fatal(err)
		}
		tok := o.invoke(t, "k", "tinycloud.kv/put")
		for i, s := range []*testStore{a, b, a} {
			err := s.AdmitToPerform(t.Context(), tok)
			if err == nil {
				_, err = s.Write(t.Context(), tok, []kv.Op{putOp(o.space, "k", fmt.Sprint(i))}, nil)
			}
			if i == 0 && err != nil || i > 0 && !errors.Is(err, tinycloud.ErrConflict) {
				t.Errorf("use %d: %v", i+1, err)
			}
		}
		if got := b.get(o.space, "k"); got != "0" {
			t.Error(got)
		}
	})
}

// A statement that is kept back and refused later fails its own job and no other, and leaves nothing of it.
func TestRefusedLater(t *testing.T) {
	onServers(t, func(t *testing.T) {
		c := newClock()
		s := openNew(t, "one", c)
		o := newOwner(t, "alice", c)
		o.hostOn(s)
		s.delegate(o.header)
		var wg sync.WaitGroup
		for i := range 8 {
			tok := o.invoke(t, fmt.Sprint("k", i), "tinycloud.kv/put")
			wg.Go(func() {
				if i%4 != 3 {
					if _, err := s.Write(t.Context(), tok, []kv.Op{putOp(o.space, fmt.Sprint("k", i), "v")}, nil); err != nil {
						t.Error(err)
					}
					return
				}
				err := s.Beside().Update(t.Context(), false, func(tx capstore.BesideTx) error {
					if err := tx.Add(capstore.Insert{Into: "quotas", Columns: "space bytes"}, fmt.Sprint("left ", i), int64(1)); err != nil {
						return err
					}
					return tx.Exec("UPDATE no_such_table SET x = ?", int64(i))
				})
				if !errors.Is(err, tinycloud.ErrUnavailable) {
					t.Errorf("refused statement: %v", err)
				}
			})
		}
		wg.Wait()
		if st := s.status(o.space); st.Keys != 6 {
			t.Errorf("%+v", st)
		}
		var left int
		db := s.inspect()
		defer db.Close()
		if err := db.QueryRow("SELECT count(*) FROM quotas").Scan(&left); err != nil || left != 0 {
			t.Error(left, err)
		}
	})
}

// A put of what is new takes one round trip of the writer, one of what is not two or three, and what follows them few more.
func TestRoundTrips(t *testing.T) {
	onServers(t, func(t *testing.T) {
		c := newClock()
		s := openNew(t, "one", c)
		o := newOwner(t, "alice", c)
		o.hostOn(s)
		s.delegate(o.header)
		if err := o.put(s, "k", "first"); err != nil { // loads the Space
			t.Fatal(err)
		}
		const puts = 20
		toks := make([]*capstore.Token, puts)
		for i := range toks {
			toks[i] = o.invoke(t, fmt.Sprint("k", i), "tinycloud.kv/put")
		}
		turns, least := capstore.Turns(s.Store), int64(100) // beside the puts the follower asks now and then
		for i, tok := range toks {
			before := capstore.Trips(s.Store)
			err := s.AdmitToPerform(t.Context(), tok)
			if err == nil {
				_, err = s.Write(t.Context(), tok, []kv.Op{putOp(o.space, fmt.Sprint("k", i), fmt.Sprint(i))}, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			least = min(least, capstore.Trips(s.Store)-before)
		}
		after := capstore.Turns(s.Store)
		if least != 1 || after.Whole-turns.Whole != puts || after.Wrong != turns.Wrong {
			t.Errorf("%d round trips for a put, %d of %d were sent whole, %d supposed wrongly", least, after.Whole-turns.Whole, puts, after.Wrong-turns.Wrong)
		}
	})
}

// Reads that come together share a round trip, and what the server refuses of one takes nothing from the others.
func TestReadsShareARoundTrip(t *testing.T) {
	onServers(t, func(t *testing.T) {
		c := newClock()
		s := openNew(t, "one", c)
		o := newOwner(t, "alice", c)
		together := func(toks ...*capstore.Token) (refused []error, trips int64) {
			t.Helper()
			before := capstore.Trips(s.Store)
			refused, found, err := capstore.Together(t.Context(), s.Store, toks, "SELECT id FROM node WHERE id = ?", 1, 2, 1)
			if err != nil {
				t.Fatal(err)
			}
			for i, there := range []bool{true, false, true} {
				if (found[i] != nil) != there {
					t.Errorf("row %d: %v", i, found[i])
				}
			}
			return refused, capstore.Trips(s.Store) - before
		}
		tok := func() *capstore.Token { return o.invoke(t, "k", "tinycloud.kv/get") }
		least := int64(100) // beside them the store asks now and then
		for range 10 {
			refused, trips := together(tok(), tok())
			if err := errors.Join(refused...); err != nil {
				t.Error(err)
			}
			least = min(least, trips)
		}
		if least != 1 {
			t.Errorf("%d round trips", least)
		}
		used := tok()
		together(used)
		least = 100
		for range 10 {
			refused, trips := together(tok(), used, tok())
			for i, err := range refused {
				if want := map[bool]error{true: tinycloud.ErrConflict}[i == 1]; !errors.Is(err, want) {
					t.Errorf("token %d: %v, not %v", i, err, want)
				}
			}
			least = min(least, trips)
		}
		if least > 4 { // refused, undone, asked which, and again
			t.Errorf("%d round trips where one token was used", least)
		}
		if refused, _ := together(used); !errors.Is(refused[0], tinycloud.ErrConflict) {
			t.Errorf("one that was used: %v", refused)
		}
	})
}

// A read that this process admits by what it knows is judged by what all processes know.
func TestReadsAreJudgedByAll(t *testing.T) {
	onServers(t, func(t *testing.T) {
		c, url := newClock(), newDatabase(t)
		o := newOwner(t, "alice", c)
		deaf := func(s *capstore.Store) { capstore.SetFollow(s, time.Hour) }
		a, b := openWith(t, "one", c, url, func(*capstore.Options) {}, deaf), openWith(t, "one", c, url, func(*capstore.Options) {}, deaf)
		o.hostOn(a)
		a.delegate(o.header)
		mustPut(t, o, a, "k", "v")
		read := func(s *testStore, tok *capstore.Token) (admitted, spent error) {
			if admitted = s.AdmitToPerform(t.Context(), tok); admitted == nil {
				spent = s.Spend(t.Context(), tok)
			}
			return admitted, spent
		}
		first := o.invoke(t, "k", "tinycloud.kv/get")
		if admitted, spent := read(b, first); admitted != nil || spent != nil {
			t.Fatal(admitted, spent)
		}
		if _, spent := read(a, first); !errors.Is(spent, tinycloud.ErrConflict) {
			t.Errorf("a read that another process served: %v", spent)
		}
		last := o.invoke(t, "k", "tinycloud.kv/get")
		o.remove(t, a, o.proof)
		admitted, spent := read(b, last)
		if !errors.Is(admitted, tinycloud.ErrUnauthorized) && !errors.Is(spent, tinycloud.ErrUnauthorized) {
			t.Errorf("a session that was revoked elsewhere: %v, %v", admitted, spent)
		}
		if kind(t) == onMySQL && admitted != nil { // PostgreSQL has told it
			t.Errorf("not admitted by what is known: %v", admitted)
		}
	})
}

// A process is told by PostgreSQL what another wrote, without looking.
func TestTold(t *testing.T) {
	t.Run(onPostgres, func(t *testing.T) {
		c, url := newClock(), newDatabase(t)
		o := newOwner(t, "alice", c)
		told := make(chan capstore.Commit, 64)
		openWith(t, "one", c, url, func(op *capstore.Options) {
			op.Committed = func(c capstore.Commit) { told <- c }
		}, func(s *capstore.Store) { capstore.SetFollow(s, time.Hour) })
		a := open(t, "one", c, url)
		o.hostOn(a)
		a.delegate(o.header)
		if err := o.put(a, "k", "v"); err != nil {
			t.Fatal(err)
		}
		late := time.After(30 * time.Second)
		for {
			select {
			case c := <-told:
				if len(c.Writes) == 1 && c.Writes[0].Key == "k" {
					return
				}
			case <-late:
				t.Fatal("not told")
			}
		}
	})
}

// A process that has no use for what others wrote is told that they did, and nothing is read for that.
func TestUnheeded(t *testing.T) {
	onServers(t, func(t *testing.T) {
		c, url := newClock(), newDatabase(t)
		o, quiet := newOwner(t, "alice", c), newOwner(t, "bob", c)
		told := make(chan capstore.Commit, 64)
		openWith(t, "one", c, url, func(op *capstore.Options) {
			op.Committed = func(c capstore.Commit) { told <- c }
			op.Heeds = func(id tinycloud.SpaceID) (entries, changes bool) { return id == o.space, id == o.space }
		})
		a := open(t, "one", c, url)
		for _, x := range []*owner{quiet, o} {
			x.hostOn(a)
			a.delegate(x.header)
			mustPut(t, x, a, "k", "v")
		}
		late := time.After(30 * time.Second)
		own := map[tinycloud.SpaceID]int{}
		for own[quiet.space] < 3 || own[o.space] < 3 {
			select {
			case c := <-told:
				own[c.Space] += c.Own
				wrote := c.LastWrite != (capstore.Cursor{})
				if heeds := c.Space == o.space; heeds && len(c.Local) != c.Own || !heeds && len(c.Local) > 0 || heeds && wrote != (len(c.Writes) > 0) || !heeds && len(c.Writes) > 0 {
					t.Errorf("%s: %d of %d entries, %d changes", c.Space, len(c.Local), c.Own, len(c.Writes))
				}
			case <-late:
				t.Fatalf("told of %v", own)
			}
		}
	})
}

// What another process wrote is read for many transactions together, and is what is read of one by itself.
func TestRelayedTogether(t *testing.T) {
	onServers(t, func(t *testing.T) {
		c, url := newClock(), newDatabase(t)
		a := open(t, "one", c, url)
		owners := []*owner{newOwner(t, "alice", c), newOwner(t, "bob", c), newOwner(t, "carol", c)}
		var b *testStore
		const puts = 30
		for i := range 2 + puts {
			for k, o := range owners {
				switch i {
				case 0:
					o.hostOn(a)
				case 1:
					a.delegate(o.header)
					if k == len(owners)-1 { // it begins when nothing is left to tell
						b = openWith(t, "one", c, url, func(op *capstore.Options) {
							op.Heeds = func(tinycloud.SpaceID) (entries, changes bool) { return true, false }
						}, func(s *capstore.Store) { capstore.SetFollow(s, time.Hour) })
					}
				default:
					mustPut(t, o, a, fmt.Sprint("k", i), strings.Repeat("v", 1+i*40))
				}
			}
		}
		capstore.FollowNow(b.Store)
		told := map[tinycloud.SpaceID][]hostlog.Bundle{}
		eventually(t, 30*time.Second, func() bool {
			clear(told)
			n := 0
			b.mu.Lock()
			defer b.mu.Unlock()
			for _, c := range b.commits {
				told[c.Space] = append(told[c.Space], c.Local...)
				n += len(c.Local)
			}
			return n == puts*len(owners)
		})
		for _, o := range owners {
			for _, x := range told[o.space] {
				y, err := capstore.BundleOf(t.Context(), a.Store, o.space, x.Entry, 64<<10)
				if err != nil || !reflect.DeepEqual(x, y) {
					t.Errorf("told of %+v, is %+v, %v", x, y, err)
				}
				if err := hostlog.CheckAll(o.space, []hostlog.Bundle{x}).Bad; err != nil {
					t.Error(err)
				}
			}
		}
		// PostgreSQL tells of each commit, so that they may be read one by one.
		if n := capstore.Trips(b.Store); kind(t) != onPostgres && n > 4*puts*int64(len(owners)) {
			t.Errorf("%d round trips for %d entries", n, puts*len(owners))
		}
	})
}
