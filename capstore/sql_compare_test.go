package capstore_test

import (
	"slices"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

func (o author) sums(s *sqlStore) []hostlog.Sum {
	s.t.Helper()
	sums, err := s.Sums(s.t.Context(), o.space)
	if err != nil {
		s.t.Fatal(err)
	}
	return sums
}

// told has a store hear what another has of the same operations, as the network would tell it.
func (o author) told(s *sqlStore, host hostlog.Key, theirs ...hostlog.Sum) {
	s.t.Helper()
	if err := s.Compared(s.t.Context(), o.space, host, theirs); err != nil {
		s.t.Fatal(err)
	}
}

// differs are the hosts that a store says have other content of a database.
func (o author) differs(s *sqlStore, path string) []string {
	s.t.Helper()
	list, err := s.sql.Databases(s.t.Context(), s.Store, o.space, false, 10)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, x := range list {
		if x.Name == path {
			return x.Differs
		}
	}
	return nil
}

func (o author) host(s *sqlStore) hostlog.Key {
	s.t.Helper()
	return s.status(o.space).Host
}

// A host whose file is not what its writes make learns it from another host, shows it and makes the file anew.
func TestSQLCompare(t *testing.T) {
	o := newAuthor(t, newClock())
	stores, _ := o.writers(t, "a", "b")
	a, b := stores[0], stores[1]
	o.run(a, "db", "CREATE TABLE t(v)")
	now := o.clock.now()
	o.run(a, "db", "INSERT INTO t VALUES('true')")
	o.run(a, "nowhere", "CREATE TABLE t(v)")
	o.exchange(a, b)
	if got := o.sums(b); len(got) != 0 {
		t.Errorf("sums of what is not materialised: %v", got)
	}
	lie := &lyingStore{b, statement(t, "db", now, 1, "INSERT INTO t VALUES('fals')")}
	if _, err := b.sql.Databases(t.Context(), lie, o.space, true, 10); err != nil {
		t.Fatal(err)
	}
	if got := o.rows(b, "db", "SELECT v FROM t"); got != `[["fals"]]` {
		t.Fatalf("the file is as it should be: %s", got)
	}
	good, bad := o.sums(a), o.sums(b)
	i := slices.IndexFunc(good, func(x hostlog.Sum) bool { return x.Subject == "db" })
	k := slices.IndexFunc(bad, func(x hostlog.Sum) bool { return x.Subject == "db" })
	if good[i].State != bad[k].State || good[i].Content == bad[k].Content {
		t.Fatalf("%v and %v", good, bad)
	}
	if got, ok := b.SumOf(o.space, good[i]); !ok || got != bad[k] {
		t.Errorf("asked, b says %v, %v", got, ok)
	}
	other := good[i]
	other.State[0]++
	if got, ok := b.SumOf(o.space, other); ok {
		t.Errorf("asked of another state, b says %v", got)
	}
	if o.told(b, o.host(a), other); len(o.differs(b, "db")) != 0 {
		t.Error("another state is taken for a difference")
	}
	if o.told(b, o.host(a), good...); !slices.Equal(o.differs(b, "db"), []string{o.host(a).String()}) || b.sql.Differing(o.space) != 1 {
		t.Errorf("b differs from %v, in %d databases", o.differs(b, "db"), b.sql.Differing(o.space))
	}
	if got := o.same("db", "SELECT v FROM t", a, b); got != `[["true"]]` {
		t.Errorf("after that: %s", got)
	}
	if o.told(b, o.host(a), good...); b.sql.DifferingAll() != 1 {
		t.Error("the difference is over before the file was looked at again")
	}
	o.sums(b)
	if o.told(b, o.host(a), good...); len(o.differs(b, "db")) != 0 || b.sql.DifferingAll() != 0 {
		t.Errorf("made anew, b differs from %v", o.differs(b, "db"))
	}
}

// A host that says that it has other content has a database made anew once, and no other for an hour.
func TestSQLCompareWithLiars(t *testing.T) {
	o := newAuthor(t, newClock())
	stores, _ := o.writers(t, "a", "b")
	a, liar := stores[0], o.host(stores[1])
	for _, path := range []string{"one", "two"} {
		o.run(a, path, "CREATE TABLE t(v)")
	}
	lies := o.sums(a)
	for i := range lies {
		lies[i].Content = tinycloud.Sum([]byte("a lie"))
	}
	// made reports whether a database was made anew: then it is not known what it hashes to.
	made := func(i int) bool {
		_, ok := a.SumOf(o.space, lies[i])
		return !ok
	}
	// again has what was made anew be used, and hashed.
	again := func() {
		for _, path := range []string{"one", "two"} {
			if got := o.rows(a, path, "SELECT count(*) FROM t"); got != "[[0]]" {
				t.Error(got)
			}
		}
		o.sums(a)
	}
	o.told(a, liar, lies[0], lies[1], lies[0])
	if !made(0) || made(1) || a.sql.Differing(o.space) != 2 {
		t.Errorf("made anew: %v, %v; %d differ", made(0), made(1), a.sql.Differing(o.space))
	}
	again()
	o.clock.ms.Add(time.Hour.Milliseconds() - 1)
	if o.told(a, liar, lies...); made(0) || made(1) {
		t.Errorf("within the hour: %v, %v", made(0), made(1))
	}
	o.clock.ms.Add(1)
	o.told(a, o.host(a), lies...)
	if made(0) || !made(1) {
		t.Errorf("after it: %v, %v", made(0), made(1))
	}
	again()
	o.clock.ms.Add(time.Hour.Milliseconds())
	if o.told(a, liar, lies...); made(0) || made(1) {
		t.Errorf("the same state once more: %v, %v", made(0), made(1))
	}
	o.run(a, "two", "INSERT INTO t VALUES(1)")
	if o.sums(a); slices.Contains(o.differs(a, "two"), liar.String()) {
		t.Error("a new state differs before it was compared")
	}
}
