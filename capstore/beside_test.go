package capstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// side is some processes on one PostgreSQL, each with a Space of its own that it has loaded, and one more.
type side struct {
	t      *testing.T
	db     *testservers.Database
	stores []*testStore
	owners []*owner
	writes sync.WaitGroup
}

func newSide(t *testing.T, processes, spaces int) *side {
	c := newClock()
	x := &side{t: t, db: servers.Postgres(t)}
	for range processes {
		x.stores = append(x.stores, openWith(t, "one", c, x.db.DSN, func(*capstore.Options) {}))
	}
	for i := range spaces {
		o, s := newOwner(t, fmt.Sprint("owner", i), c), x.stores[i%processes]
		o.member(s)
		s.delegate(o.header)
		x.owners = append(x.owners, o)
		for n := range 3 {
			mustPut(t, o, s, fmt.Sprint("first", n), fmt.Sprint("first-", n))
		}
	}
	return x
}

// put has a process write a value to a Space; done is closed when that is answered.
func (x *side) put(process, space int, value string) (done chan struct{}) {
	x.t.Helper()
	s, o := x.stores[process], x.owners[space]
	tok := o.invoke(x.t, value, "tinycloud.kv/put")
	if err := s.AdmitToPerform(x.t.Context(), tok); err != nil {
		x.t.Fatal(err)
	}
	done = make(chan struct{})
	x.writes.Go(func() {
		defer close(done)
		if _, err := s.Write(context.WithoutCancel(x.t.Context()), tok, []kv.Op{putOp(o.space, value, value)}, nil); err != nil {
			x.t.Errorf("%s: %v", value, err)
		}
	})
	return done
}

// hold keeps a value of a Space from being stored until it is let go.
func (x *side) hold(space int, value string) (letGo func()) {
	x.t.Helper()
	outside, err := sql.Open("pgx", x.db.DSN)
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() { _ = outside.Close() })
	tx, err := outside.Begin()
	hash := tinycloud.Sum([]byte(value))
	if err == nil {
		_, err = tx.Exec("INSERT INTO vals (sid, hash, size) SELECT sid, $1, 1 FROM spaces WHERE space = $2", hash[:], x.owners[space].space.String())
	}
	if err != nil {
		x.t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(); err != nil {
			x.t.Error(err)
		}
	}
}

func (x *side) number(query string) int {
	x.t.Helper()
	n, err := strconv.Atoi(x.db.Exec(query))
	if err != nil {
		x.t.Fatal(err)
	}
	return n
}

// waiting waits until so many transactions wait for others.
func (x *side) waiting(n int) {
	x.t.Helper()
	eventually(x.t, 20*time.Second, func() bool {
		return x.number("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0") >= n
	})
}

// given is the last number of an epoch that was given.
func (x *side) given() int { return x.number("SELECT last_value FROM epochs_eid_seq") }

// done waits for all writes, and looks whether the numbers of epochs rise in the order of commits, and all is sound.
func (x *side) done() {
	x.t.Helper()
	x.writes.Wait()
	if n := x.number("SELECT count(*) FROM commits a JOIN commits b ON a.generation < b.generation AND a.c_epoch >= b.c_epoch WHERE b.c_epoch > 0"); n != 0 {
		x.t.Errorf("%d pairs of commits are not in the order of their epochs", n)
	}
	if n := x.number("SELECT max(generation) - count(DISTINCT generation) FROM commits"); n != 0 {
		x.t.Errorf("%d generations are told by nobody", n)
	}
	for i, o := range x.owners {
		checkLog(x.t, x.stores[i%len(x.stores)], o.space)
	}
	x.stores[0].sound()
}

func answered(done chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// Writes of several processes to different Spaces are carried out side by side, and are durable in the order in which they were
// given numbers.
func TestSideBySide(t *testing.T) { t.Run(onPostgres, testSideBySide) }

func testSideBySide(t *testing.T) {
	t.Parallel()
	x := newSide(t, 3, 4)
	before, asked := x.given(), x.stores[0].status(x.owners[3].space).Epochs
	letGo := x.hold(0, "held")
	held := x.put(0, 0, "held")
	x.waiting(1)
	second := x.put(1, 1, "second")
	x.waiting(2)
	third := x.put(2, 2, "third")
	x.waiting(3)
	if n := x.given() - before; n < 3 {
		t.Errorf("%d of 3 writes were given a number while the first is held up", n)
	}
	asks := x.put(0, 3, "first-0") // its value is there, as this process knows; the one before it has to be answered first
	again := x.put(2, 2, "later")
	if answered(held) || answered(second) || answered(third) || answered(asks) || answered(again) {
		t.Error("a write is answered before the one that was given a number before it")
	}
	letGo()
	x.done()
	if n := x.stores[0].status(x.owners[3].space).Epochs; n != asked+1 {
		t.Errorf("%d epochs of the one that asks, %d before", n, asked)
	}
}

// A transaction that is given up while an earlier one is held up lets later ones pass it; then the earlier one is tried again.
func TestSideBySideGivenUp(t *testing.T) { t.Run(onPostgres, testSideBySideGivenUp) }

func testSideBySideGivenUp(t *testing.T) {
	t.Parallel()
	x := newSide(t, 3, 3)
	letGo := x.hold(0, "held")
	held := x.put(0, 0, "held")
	x.waiting(1)
	x.put(1, 1, "given-up")
	x.waiting(2)
	last := x.put(2, 2, "last")
	x.waiting(3)
	wrong := capstore.Turns(x.stores[0].Store).Wrong
	// Whom the one waits for who is waited for by somebody, and who waits himself for one who waits.
	x.db.Exec(`SELECT pg_terminate_backend(b.pid) FROM pg_stat_activity a JOIN pg_stat_activity b ON a.pid = ANY (pg_blocking_pids(b.pid))
		WHERE a.datname = current_database() AND cardinality(pg_blocking_pids(a.pid)) > 0 AND EXISTS (SELECT 1 FROM pg_stat_activity c WHERE b.pid = ANY (pg_blocking_pids(c.pid)))`)
	<-last
	if answered(held) {
		t.Error("what is held up was answered")
	}
	letGo()
	x.done()
	if capstore.Turns(x.stores[0].Store).Wrong != wrong+1 {
		t.Error("the one that others passed was not tried again")
	}
}

// Who reads changes by one cursor over all Spaces misses none, whichever transaction is durable first.
func TestChangesSideBySide(t *testing.T) { t.Run(onPostgres, testChangesSideBySide) }

func testChangesSideBySide(t *testing.T) {
	t.Parallel()
	const processes, spaces, puts = 3, 9, 25
	x := newSide(t, processes, spaces)
	reader := x.stores[0]
	from, err := reader.LatestChange(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []tinycloud.SpaceID
	for i, o := range x.owners {
		all = append(all, o.space)
		var toks []*capstore.Token
		for n := range puts {
			toks = append(toks, o.invoke(t, fmt.Sprint("k", n), "tinycloud.kv/put"))
		}
		x.writes.Go(func() {
			for n, tok := range toks {
				s := x.stores[i%processes]
				err := s.AdmitToPerform(t.Context(), tok)
				if err == nil {
					_, err = s.Write(t.Context(), tok, []kv.Op{putOp(o.space, fmt.Sprint("k", n), fmt.Sprint(i, " ", n))}, nil)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	seen := map[string]bool{}
	for len(seen) < spaces*puts {
		changes, next, _, err := reader.ChangesSince(t.Context(), all, from, 7)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			name := c.Space.String() + " " + c.Key
			if seen[name] || c.Cursor.Compare(from) <= 0 {
				t.Errorf("%s is told again, or too late", name)
			}
			seen[name], from = true, c.Cursor
		}
		from = next
		if t.Context().Err() != nil {
			t.Fatalf("%d of %d changes", len(seen), spaces*puts)
		}
	}
	x.done()
	for i, s := range x.stores {
		if turns := capstore.Turns(s.Store); turns.Whole == 0 {
			t.Errorf("process %d sent nothing whole: %+v", i, turns)
		}
	}
}
