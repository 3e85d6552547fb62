package capstore_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql"
)

func (o author) outcome(s *sqlStore, path, epoch string) string {
	s.t.Helper()
	w, err := o.ask(s, path, `{"action":"outcome","epoch":"`+epoch+`"}`, "read")
	if err != nil {
		return err.Error()
	}
	return w.Body.String()
}

// What became of a write is told also when it does not count any more, and where the same request counts in another place.
func TestSQLOutcome(t *testing.T) { everywhere(t, testSQLOutcome) }

func testSQLOutcome(t *testing.T) {
	o := newAuthor(t, newClock())
	stores, delegations := o.writers(t, "a", "b", "x")
	a, b, x := stores[0], stores[1], stores[2]
	made := o.run(a, "db", "CREATE TABLE t(v)")
	o.clock.ms.Add(5)
	o.exchange(stores...)
	lost := o.run(x, "db", "INSERT INTO t VALUES('lost')")
	b.pull(x.testStore, o.space)
	o.clock.ms.Add(5)
	o.remove(t, a.testStore, delegations[2])
	o.exchange(a, b)
	for _, s := range []*sqlStore{a, b} {
		if s == b { // a never heard of the write
			const want = `{"applied":false,"error":"The write does not count: its epoch is void: `
			if got := o.outcome(s, "db", lost); !strings.HasPrefix(got, want) {
				t.Errorf("%s: of a write of a removed host %s", s.name, got)
			}
		}
		if got := o.outcome(s, "db", made); !strings.HasPrefix(got, `{"applied":true,"error":null,`) {
			t.Errorf("%s: %s", s.name, got)
		}
		for what, epoch := range map[string]string{"no epoch": tinycloud.Sum([]byte("none")).EpochID(), "one without a write": s.status(o.space).Heads[0].EpochID()} {
			if what == "no epoch" || epoch != made {
				if got := o.outcome(s, "db", epoch); got != "No such write of this database" {
					t.Errorf("%s: of %s: %s", s.name, what, got)
				}
			}
		}
		if got := o.outcome(s, "another", made); got != "No such write of this database" {
			t.Errorf("%s: of another database: %s", s.name, got)
		}
	}
	// A client posts one token to both hosts.
	tok := o.sqlToken(t, "db", "write")
	const body = `{"action":"execute","sql":"INSERT INTO t VALUES('twice')"}`
	var epochs []string
	for _, s := range []*sqlStore{a, b} {
		o.clock.ms.Add(5)
		w, err := o.use(s, tok, "db", body)
		if err != nil {
			t.Fatal(err)
		}
		epochs = append(epochs, w.Header().Get(sql.EpochHeader))
	}
	o.exchange(a, b)
	for _, s := range []*sqlStore{a, b} {
		for _, epoch := range epochs {
			if got := o.outcome(s, "db", epoch); !strings.HasPrefix(got, `{"applied":true`) {
				t.Errorf("%s: %s", s.name, got)
			}
		}
		if got := o.rows(s, "db", "SELECT count(*) FROM t"); got != "[[1]]" {
			t.Errorf("%s: %s rows", s.name, got)
		}
	}
	if list, err := a.sql.Databases(t.Context(), a.Store, o.space, true, 10); err != nil || len(list) != 1 || len(list[0].Doubled) != 1 ||
		len(list[0].Doubled[0].Places) != 2 || !list[0].Doubled[0].Places[0].Counts || list[0].Doubled[0].Places[1].Counts {
		t.Errorf("%+v, %v", list, err)
	}
}

// A host lists what it acknowledged and what failed once it met the others: its own writes alone, after a restart too.
func TestSQLFailed(t *testing.T) {
	t.Parallel()
	o := newAuthor(t, newClock())
	stores, _ := o.writers(t, "a", "b")
	a, b := stores[0], stores[1]
	o.run(a, "db", "CREATE TABLE t(v UNIQUE)")
	o.exchange(a, b)
	var epochs []string
	for _, s := range []*sqlStore{a, b} {
		for i := range 20 {
			o.clock.ms.Add(5)
			if i == 3 {
				o.run(s, "db", "INSERT INTO t VALUES('"+string(s.name)+"')")
			}
			w, err := o.ask(s, "db", fmt.Sprintf(`{"action":"batch","statements":[{"sql":"INSERT INTO t VALUES(?)","params":[%d]},{"sql":"UPDATE t SET v = v"}]}`, i), "write")
			if err != nil {
				t.Fatal(err)
			}
			if s == b {
				epochs = append(epochs, w.Header().Get(sql.EpochHeader))
			}
		}
	}
	o.exchange(a, b)
	check := func(when string, s *sqlStore, want int) {
		t.Helper()
		list, err := s.sql.Failed(t.Context(), s.Store, o.space, "db", sql.FailedAfter{}, 100)
		if err != nil || len(list) != want {
			t.Fatalf("%s: %s lists %d, %v", when, s.name, len(list), err)
		}
		for i, f := range list {
			if f.Epoch.EpochID() != epochs[19-i] || f.Error != "SQLite error: UNIQUE constraint failed: t.v" || len(f.Statements) != 2 || f.Statements[0].Params[0] != int64(19-i) {
				t.Errorf("%s: %d: %+v", when, i, f)
			}
		}
		var pages []sql.Failure
		for after := (sql.FailedAfter{}); ; {
			page, err := s.sql.Failed(t.Context(), s.Store, o.space, "db", after, 3)
			if err != nil {
				t.Fatal(err)
			}
			if pages = append(pages, page...); len(page) < 3 {
				break
			}
			after = sql.FailedAfter{At: page[2].At, Epoch: page[2].Epoch}
		}
		if diff := cmp.Diff(list, pages, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s in pages of three: %s", s.name, diff)
		}
		if few, err := s.sql.Failed(t.Context(), s.Store, o.space, "db", sql.FailedAfter{}, 3); err != nil || len(few) != min(want, 3) {
			t.Errorf("%s: of three %d, %v", when, len(few), err)
		}
	}
	check("at once", a, 0)
	check("at once", b, 20)
	if got := o.same("db", "SELECT count(*) FROM t", a, b); got != "[[22]]" {
		t.Errorf("rows %s", got)
	}
	// Files that were opened again know no verdicts.
	again := sql.New(sql.Options{Dir: b.dir})
	if err := errors.Join(b.sql.Close()); err != nil {
		t.Error(err)
	}
	b.sql = again
	t.Cleanup(func() {
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	})
	if list, err := b.sql.Databases(t.Context(), b.Store, o.space, true, 10); err != nil || list[0].Failed != -1 {
		t.Errorf("%+v, %v", list, err)
	}
	check("from files", b, 20)
	list, err := b.sql.Databases(t.Context(), b.Store, o.space, true, 10)
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	other, err := a.sql.Databases(t.Context(), a.Store, o.space, true, 10)
	if err != nil || len(other) != 1 {
		t.Fatalf("%+v, %v", other, err)
	}
	if d := list[0]; d.Name != "db" || d.Writes != 43 || d.Failed != 20 || d.Position != 43 || d.Pending != 0 || d.Bytes < 8192 || d.Hash.IsZero() || d.Hash != other[0].Hash || len(d.Doubled) != 0 {
		t.Errorf("%+v; at the other host %+v", d, other[0])
	}
}
