package capstore_test

import (
	"path/filepath"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// newerRules are those of a release that is not made yet.
var newerRules = map[uint64]engine.Rules{2: {
	Tiers: []engine.Tier{{Length: 1 << 20, Steps: 1_000_000}}, Bytes: 1 << 28, Rows: 1 << 26, Temporary: 1 << 26, Growth: 4096, Pages: 262144,
}}

func openNewer(t *testing.T, name string, c *clock, path, dir string) *sqlStore {
	t.Helper()
	s := &sqlStore{sql: sql.New(sql.Options{Dir: dir, Newer: newerRules}), dir: dir}
	s.testStore = openWith(t, name, c, path, func(o *capstore.Options) { o.Services = servicetest.Services(s.sql) })
	t.Cleanup(func() {
		if err := s.sql.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// rulesOf are the rules of the last SQL operation that a store has of a Space.
func (o author) rulesOf(s *sqlStore, db string) (rules uint64) {
	s.t.Helper()
	for _, b := range all(s.t, s.testStore, o.space) {
		for _, op := range b.Ops {
			if p, err := request.ReadPart(db, op, 99); err == nil {
				rules = p.Rules
			}
		}
	}
	return rules
}

// A host writes by the greatest rules that all hosts know which told theirs. What is of newer ones waits for an upgrade, and
// stops nothing else.
func TestSQLRules(t *testing.T) {
	t.Run(onMemory, func(t *testing.T) {
		o := newAuthor(t, newClock())
		path, dir := filepath.Join(t.TempDir(), "caps.db"), t.TempDir()
		old := openSQL(t, "old", o.clock, path, dir)
		o.member(old.testStore)
		old.delegate(o.header)
		b := openNewer(t, "b", o.clock, newDatabase(t), t.TempDir())
		delegation := o.member(b.testStore)
		o.exchange(old, b)
		if got := b.Hello(); len(got.Services) != 2 || got.Services[1] != (hostlog.Service{Name: "sql", Version: 2}) {
			t.Errorf("told %+v", got)
		}
		tell := func(s, of *sqlStore, h hostlog.Hello) {
			if _, err := s.SaveHello(t.Context(), o.space, of.host(o.space), h); err != nil {
				t.Fatal(err)
			}
		}
		writes := func(db string, want uint64, readable bool) {
			t.Helper()
			o.clock.ms.Add(5)
			o.run(b, db, "CREATE TABLE IF NOT EXISTS t(v)")
			o.run(b, db, "INSERT INTO t VALUES(1)")
			if got := o.rulesOf(b, db); got != want {
				t.Errorf("%s is written by rules %d, want %d", db, got, want)
			}
			o.exchange(old, b)
			got := o.rows(old, db, "SELECT count(*) > 0 FROM t")
			if readable != (got == "[[1]]") || !readable && got != "Written by a newer release; this host needs an upgrade" {
				t.Errorf("%s at the older host: %s", db, got)
			}
			o.run(old, "other", "CREATE TABLE IF NOT EXISTS t(v)")
		}
		writes("unheard", 2, false)
		tell(b, old, old.Hello())
		tell(old, b, b.Hello())
		writes("heard", 1, true)
		tell(b, old, hostlog.Hello{Rules: capstore.Rules, Services: []hostlog.Service{{Name: "kv", Version: 1}}})
		writes("without-sql", 2, false)
		tell(b, old, old.Hello())
		o.run(old, "heard", "INSERT INTO t VALUES(2)")
		o.exchange(old, b)
		for _, s := range []*sqlStore{old, b} {
			if got := o.rows(s, "heard", "SELECT sum(v) FROM t"); got != "[[3]]" {
				t.Errorf("%s: by both: %s", s.name, got)
			}
		}
		// The older host is upgraded: it judges what waited, and tells so.
		if err := old.sql.Close(); err != nil {
			t.Error(err)
		}
		old.stop()
		now := openNewer(t, "old", o.clock, path, dir)
		now.status(o.space) // it is judged when it is loaded
		if got := o.same("unheard", "SELECT count(*) FROM t", now, b); got != "[[1]]" {
			t.Errorf("after the upgrade: %s", got)
		}
		tell(b, now, now.Hello())
		o.clock.ms.Add(5)
		o.run(b, "heard", "INSERT INTO t VALUES(3)")
		o.exchange(now, b)
		if got, rules := o.same("heard", "SELECT sum(v) FROM t", now, b), o.rulesOf(b, "heard"); got != "[[6]]" || rules != 2 {
			t.Errorf("by rules %d: %s", rules, got)
		}
		now.sound()
		b.sound()
		// One that went back to the older release holds the others back, until it is removed.
		tell(now, b, hostlog.Hello{Rules: capstore.Rules, Services: []hostlog.Service{{Name: "kv", Version: 1}, {Name: "sql", Version: 1}}})
		o.run(now, "heard", "INSERT INTO t VALUES(4)")
		if got := o.rulesOf(now, "heard"); got != 1 {
			t.Errorf("beside an older host it writes by rules %d", got)
		}
		o.clock.ms.Add(5)
		o.remove(t, now.testStore, delegation)
		o.run(now, "heard", "INSERT INTO t VALUES(5)")
		if got := o.rulesOf(now, "heard"); got != 2 {
			t.Errorf("once it is removed by rules %d", got)
		}
	})
}
