package capstore_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql"
)

func openLimited(t *testing.T, name string, c *clock, limit *int64) *sqlStore {
	t.Helper()
	s := &sqlStore{sql: sql.New(sql.Options{Dir: t.TempDir()})}
	s.testStore = openWith(t, name, c, newDatabase(t), func(o *capstore.Options) {
		o.Services = servicetest.Services(s.sql)
		o.Limit = func(tinycloud.SpaceID) (int64, bool) { return *limit, true }
	})
	t.Cleanup(func() {
		if err := s.sql.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Databases count in the usage of their Space: their operations, and the pages that they take. A Space that is full takes
// no write but one that makes room. What other hosts write is never refused for it.
func TestSQLUsage(t *testing.T) { everywhere(t, testSQLUsage) }

func testSQLUsage(t *testing.T) {
	c := newClock()
	o := newAuthor(t, c)
	limit, none := int64(1<<20), int64(1<<40)
	a, b := openLimited(t, "a", c, &none), openLimited(t, "b", c, &limit)
	o.member(a.testStore)
	o.member(b.testStore)
	a.delegate(o.header)
	o.exchange(a, b)
	used := func(s *sqlStore) int64 {
		t.Helper()
		n, err := s.Usage(t.Context(), o.space)
		if err != nil {
			t.Fatal(err)
		}
		if st := s.status(o.space); st.Bytes != n {
			t.Errorf("%s: status tells of %d bytes, usage of %d", s.name, st.Bytes, n)
		}
		return n
	}
	if n := used(b); n != 0 {
		t.Fatalf("%d bytes before any write", n)
	}
	o.run(b, "db", "CREATE TABLE t(v)")
	before := used(b)
	if before < 8192 || before > 8192+500 { // two pages, and the operation
		t.Errorf("%d bytes of an empty table", before)
	}
	add := func(s *sqlStore, n int) error {
		_, err := o.ask(s, "db", fmt.Sprintf(`{"action":"execute","sql":"INSERT INTO t VALUES(?)","params":["%s"]}`, strings.Repeat("x", n)), "write")
		return err
	}
	if err := add(b, 100_000); err != nil {
		t.Fatal(err)
	}
	if n := used(b) - before; n < 198_000 || n > 215_000 { // as an operation, and in pages
		t.Errorf("a row of 100 kB takes %d bytes", n)
	}
	// Another host writes far more: it comes, and counts.
	o.exchange(a, b)
	for range 5 {
		c.ms.Add(5)
		if err := add(a, 200_000); err != nil {
			t.Fatal(err)
		}
	}
	o.exchange(a, b)
	if got := o.same("db", "SELECT count(*), sum(length(v)) FROM t", a, b); got != "[[6,1100000]]" {
		t.Errorf("rows %s", got)
	}
	full := used(b)
	if full < 2_200_000 || full > 2_300_000 {
		t.Errorf("%d bytes after replication", full)
	}
	c.ms.Add(5)
	err := add(b, 10)
	if want := fmt.Sprintf("Storage quota exceeded. Used: %d bytes, Limit: %d bytes", full, limit); !errors.Is(err, tinycloud.ErrQuota) || err.Error() != want {
		t.Errorf("a write to a full Space: %v", err)
	}
	if err := o.put(b.testStore, "k", "v"); !errors.Is(err, tinycloud.ErrQuota) {
		t.Errorf("a value in a full Space: %v", err)
	}
	if got := o.rows(b, "db", "SELECT count(*) FROM t"); got != "[[6]]" {
		t.Errorf("rows %s", got)
	}
	o.run(b, "db", "DELETE FROM t WHERE length(v) = 200000")
	if n := full - used(b); n < 990_000 || n > 1_010_000 {
		t.Errorf("a delete made room for %d bytes", n)
	}
	limit = used(b) + 1
	if err := add(b, 10); err != nil {
		t.Errorf("with a byte left: %v", err)
	}
	o.exchange(a, b)
	o.same("db", "SELECT * FROM t", a, b)
	a.sound()
	b.sound()
}
