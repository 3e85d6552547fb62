package capstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
)

// takeTurns has processes put to a Space one after the other, and returns how often it was loaded meanwhile.
func takeTurns(t *testing.T, o *owner, n int, stores ...*testStore) (loads int64) {
	t.Helper()
	before := loadsOf(stores)
	for i := range n {
		s, key := stores[i%len(stores)], fmt.Sprint("turn-", i%5)
		op, ability := putOp(o.space, key, fmt.Sprint(i)), "tinycloud.kv/put"
		if i%7 == 6 {
			op, ability = kv.Op{Space: o.space, Key: key, Delete: true}, "tinycloud.kv/del"
		}
		if _, err := s.Write(t.Context(), o.invoke(t, key, ability), []kv.Op{op}, nil); err != nil {
			t.Fatalf("put %d: %v", i, err)
		}
	}
	return loadsOf(stores) - before
}

func loadsOf(stores []*testStore) (n int64) {
	for _, s := range stores {
		n += capstore.Turns(s.Store).Loads
	}
	return n
}

// A Space that is loaded in several processes goes on in all of them when one writes to it, without being loaded again; where
// more happens than writes of this host, it is.
func TestSpaceGoesOnEverywhere(t *testing.T) {
	onServers(t, func(t *testing.T) {
		c, db := newClock(), newServerDatabase(t)
		doubting := func(s *capstore.Store) { capstore.SetFollow(s, time.Hour); capstore.SetDoubts(s, true) }
		a, b := openWith(t, "one", c, db.DSN, func(*capstore.Options) {}, doubting), openWith(t, "one", c, db.DSN, func(*capstore.Options) {}, doubting)
		both := []*testStore{a, b}
		o := newOwner(t, "alice", c)
		o.member(a)
		a.delegate(o.header)
		takeTurns(t, o, 2, both...)
		if n := takeTurns(t, o, 20, both...); n != 0 {
			t.Errorf("loaded %d times in 20 puts", n)
		}
		before := capstore.RememberedNodes(b.Store, o.space)
		for i := range 10 {
			mustPut(t, o, a, "k", fmt.Sprint(i))
			if err := b.Admit(t.Context(), o.invoke(t, "k", "tinycloud.kv/put")); err != nil {
				t.Fatal(err)
			}
		}
		if n := capstore.RememberedNodes(b.Store, o.space); before == 0 || n > before+1 {
			t.Errorf("%d epochs are remembered where nobody wrote, %d before", n, before)
		}
		other := open(t, "two", c, newDatabase(t))
		o.member(other)
		a.pull(other, o.space)
		if n := takeTurns(t, o, 4, both...); n == 0 {
			t.Error("not loaded again when a host came")
		}
		other.pull(a, o.space)
		mustPut(t, o, other, "turn-1", "of another host")
		takeTurns(t, o, 4, both...) // meanwhile, so that there are conflicts
		a.pull(other, o.space)
		if n := takeTurns(t, o, 4, both...); n == 0 {
			t.Error("not loaded again when an entry of another host came")
		}
		if n := takeTurns(t, o, 20, both...); n != 0 {
			t.Errorf("loaded %d times in 20 puts beside another host", n)
		}
		if kind(t) == onPostgres { // no commit tells where its Space stands
			db.Exec("CREATE FUNCTION older() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.advance := NULL; RETURN NEW; END'")
			db.Exec("CREATE TRIGGER older BEFORE INSERT ON commits FOR EACH ROW EXECUTE FUNCTION older()")
		} else {
			db.Exec("CREATE TRIGGER older BEFORE INSERT ON commits FOR EACH ROW SET NEW.advance = NULL")
		}
		takeTurns(t, o, 1, a)
		if n := takeTurns(t, o, 4, b, a); n != 4 {
			t.Errorf("loaded %d times in 4 puts after commits that don't tell", n)
		}
		for _, s := range both {
			if st := s.status(o.space); st.Void != 0 || len(st.Heads) != 1 {
				t.Errorf("%+v", st)
			}
		}
		other.pull(a, o.space)
		if x, y := a.status(o.space), other.status(o.space); x.StateHash != y.StateHash {
			t.Errorf("%+v\nanother host: %+v", x, y)
		}
		a.sound()
	})
}
