package capstore_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// files are those of the only database of a store, but for the index of its log: that is memory while a node runs, and deleted
// before one looks at it.
func (s *sqlStore) files() []string {
	s.t.Helper()
	var out []string
	all, err := filepath.Glob(filepath.Join(s.dir, "*", "*", "*"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, path := range all {
		if info, err := os.Stat(path); err == nil && info.Size() > 0 && filepath.Ext(path) != ".db-shm" {
			out = append(out, path)
		}
	}
	return out
}

// damages are what may happen to a file, of which flips are of one bit each.
func damages(rng *rand.Rand, path string) (what string, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	switch rng.IntN(6) {
	case 0:
		return "is deleted", os.Remove(path)
	case 1:
		return "is cut", os.Truncate(path, rng.Int64N(int64(len(b))))
	case 2:
		return "is empty", os.Truncate(path, 0)
	}
	at := rng.IntN(len(b))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	_, err = f.WriteAt([]byte{b[at] ^ 1<<rng.IntN(8)}, int64(at))
	return fmt.Sprint("has another bit at ", at), errors.Join(err, f.Close())
}

// Whatever becomes of the files under a node that runs, or that is stopped, no wrong answer is given: what is there is what was
// written, at once or when it is asked for again.
func TestSQLDamagedFiles(t *testing.T) {
	t.Parallel()
	for _, stopped := range []bool{false, true} {
		t.Run(fmt.Sprint("stopped ", stopped), func(t *testing.T) {
			t.Parallel()
			c := newClock()
			o := newAuthor(t, c)
			s := openSQL(t, "a", c, filepath.Join(t.TempDir(), "caps.db"), t.TempDir())
			o.member(s.testStore)
			s.delegate(o.header)
			o.run(s, "db", "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)")
			add := func() {
				c.ms.Add(1)
				const insert = `{"action":"execute","sql":"INSERT INTO t(v) SELECT hex(randomblob(1500)) FROM json_each('[1,2,3,4,5,6,7,8,9,10]')"}`
				_, err := o.ask(s, "db", insert, "write")
				if errors.Is(err, tinycloud.ErrUnavailable) { // what is damaged may be found by a write, which says so
					_, err = o.ask(s, "db", insert, "write")
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			for range 100 { // more than a connection keeps in memory
				add()
			}
			for range 26 { // and than is kept in the log
				o.run(s, "db", "UPDATE t SET v = hex(randomblob(1500)) WHERE id % 5 = 0")
			}
			const all = "SELECT * FROM t ORDER BY id"
			want := o.rows(s, "db", all)
			if len(want) < 3_000_000 || len(s.files()) < 4 {
				t.Fatalf("%d bytes of rows, files %v", len(want), s.files())
			}
			rng := rand.New(rand.NewPCG(3, 4))
			for i := range scaled(t, "SQL_FAULTS", 8) {
				if i%4 == 3 {
					add()
					want = o.rows(s, "db", all)
				}
				files := s.files()
				if len(files) < 3 { // it goes on with those that are deleted
					s = s.reopen()
					if got := o.rows(s, "db", all); got != want {
						t.Fatalf("after a restart without files: %d bytes of rows, not %d", len(got), len(want))
					}
					files = s.files()
				}
				path := files[rng.IntN(len(files))]
				if stopped {
					if err := s.sql.Close(); err != nil {
						t.Error(err)
					}
				}
				what, err := damages(rng, path)
				if err != nil {
					t.Fatal(err)
				}
				if stopped {
					s = s.reopen()
				}
				got := o.rows(s, "db", all)
				if got != want && got != "The database could not be used; retry the request" {
					t.Fatalf("%d: %s %s: %d bytes of rows, not %d: %.200s", i, filepath.Base(path), what, len(got), len(want), got)
				}
				if got := o.rows(s, "db", all); got != want {
					t.Fatalf("%d: %s %s: %d bytes of rows, not %d, when asked again: %.200s", i, filepath.Base(path), what, len(got), len(want), got)
				}
			}
			// What no query reads, such as a free page, is found by who verifies: then all of it is made anew.
			err := s.VerifyStored(t.Context(), capstore.VerifyOptions{}, func(d capstore.Damage) {
				if d.What != "database whose files are damaged" {
					t.Errorf("%+v", d)
				}
			})
			if err != nil {
				t.Error(err)
			}
			if got := o.rows(s, "db", all); got != want {
				t.Errorf("after it was verified: %d bytes of rows, not %d", len(got), len(want))
			}
			s.sound()
		})
	}
}

// A disk of its own that takes no more lets no request through that it would lose, answers what is there, and goes on when there
// is room again; what was acknowledged is there, and nothing else.
func TestSQLFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=6m"); err != nil {
		t.Fatalf("a disk of 6 MB (needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 5<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newClock()
	o := newAuthor(t, c)
	s := openSQL(t, "a", c, filepath.Join(t.TempDir(), "caps.db"), filepath.Join(dir, "sql"))
	o.member(s.testStore)
	s.delegate(o.header)
	o.run(s, "db", "CREATE TABLE t(v)")
	acknowledged, refused := 0, 0
	for range 40 {
		c.ms.Add(1)
		_, err := o.ask(s, "db", `{"action":"execute","sql":"INSERT INTO t VALUES(zeroblob(100000))"}`, "write")
		switch {
		case err == nil:
			acknowledged++
		case errors.Is(err, tinycloud.ErrUnavailable):
			refused++
		default:
			t.Errorf("on a full disk: %v", err)
		}
	}
	if acknowledged == 0 || refused == 0 {
		t.Errorf("%d acknowledged, %d refused", acknowledged, refused)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	o.run(s, "db", "INSERT INTO t VALUES(1)")
	if got, want := o.rows(s, "db", "SELECT count(*) FROM t"), fmt.Sprintf("[[%d]]", acknowledged+1); got != want {
		t.Errorf("rows %s, want %s", got, want)
	}
	s.sound()
	s = s.reopen()
	if got, want := o.rows(s, "db", "SELECT count(*) FROM t"), fmt.Sprintf("[[%d]]", acknowledged+1); got != want {
		t.Errorf("after a restart: rows %s, want %s", got, want)
	}
	if text := strings.TrimSpace(o.rows(s, "db", "SELECT 1")); text != "[[1]]" {
		t.Error(text)
	}
}

// scaled is a number of rounds that an environment variable may set.
func scaled(t *testing.T, name string, few int) int {
	t.Helper()
	text, ok := os.LookupEnv(name)
	if !ok {
		return few
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s: %q", name, text)
	}
	return n
}
