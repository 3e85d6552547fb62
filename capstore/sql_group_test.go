package capstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql"
)

// between does something around what a database asks of the history.
type between struct {
	service.Store
	perform func(ctx context.Context, all []service.Request) []error
}

func (b between) PerformAll(ctx context.Context, all []service.Request) []error {
	if b.perform == nil {
		return b.Store.PerformAll(ctx, all)
	}
	return b.perform(ctx, all)
}

// send has a service carry out what a token was signed for.
func (o author) send(ctx context.Context, svc *sql.Service, store service.Store, tok *capstore.Token, body string) (string, http.Header, error) {
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/invoke", strings.NewReader(body))
	err := svc.Invoke(w, r, service.Call{Store: store, Token: tok, Space: o.space, Ability: tok.Caps[0].Ability})
	return w.Body.String(), w.Header(), err
}

func execute(statement string) string { return `{"action":"execute","sql":` + quoted(statement) + `}` }

func query(statement string) string { return `{"action":"query","sql":` + quoted(statement) + `}` }

// anew has the databases of a store be made from the history.
func (s *sqlStore) anew() {
	s.t.Helper()
	if err := errors.Join(s.sql.Close(), os.RemoveAll(s.dir)); err != nil {
		s.t.Fatal(err)
	}
	fresh := sql.New(sql.Options{Dir: s.dir})
	s.t.Cleanup(func() { _ = fresh.Close() })
	s.sql = fresh
}

// Writers of one database at once, some of whom fail, do nothing, or take the transaction with them: each has the answer of his
// own request, sees what he wrote, and what is there is what was answered.
func TestSQLWritersAtOnce(t *testing.T) { everywhere(t, testSQLWritersAtOnce) }

func testSQLWritersAtOnce(t *testing.T) {
	const writers, each = 12, 15
	o := newAuthor(t, newClock())
	stores, _ := o.writers(t, "a")
	s := stores[0]
	o.run(s, "db", "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT UNIQUE, n INTEGER)")
	o.run(s, "db", "CREATE TABLE counter(n INTEGER)")
	o.run(s, "db", "INSERT INTO counter VALUES(0)")
	o.run(s, "db", "INSERT INTO t(name) VALUES('taken')")
	type request struct{ write, read *capstore.Token }
	plan := make([][each]request, writers)
	for i := range plan {
		for k := range plan[i] {
			plan[i][k] = request{o.sqlToken(t, "db", "write"), o.sqlToken(t, "db", "read")}
		}
	}
	var rows, added, groups, grouped atomic.Int64
	var sent sync.WaitGroup // all have sent their first request before the first group is made durable
	sent.Add(writers)
	store := between{Store: s.Store, perform: func(ctx context.Context, all []service.Request) []error {
		sent.Wait()
		groups.Add(1)
		grouped.Add(int64(len(all)))
		return s.PerformAll(ctx, all)
	}}
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(7, uint64(i)))
			for k, r := range plan[i] {
				name := fmt.Sprintf("%d/%d", i, k)
				body, see := execute("INSERT INTO t(name) VALUES('"+name+"')"), true
				kind := rng.IntN(6)
				switch kind {
				case 0:
					body, see = execute("INSERT INTO t(name) VALUES('"+name+"'), ('taken')"), false
				case 1:
					body, see = execute("INSERT OR ROLLBACK INTO t(name) VALUES('"+name+"'), ('"+name+"')"), false
				case 2:
					body, see = execute("DELETE FROM t WHERE name = 'nobody'"), false
				case 3:
					body, see = execute("UPDATE counter SET n = n + 1"), false
				}
				if k == 0 {
					sent.Done()
				}
				out, header, err := o.send(t.Context(), s.sql, store, r.write, body)
				switch {
				case kind < 2 && err == nil, kind > 1 && err != nil:
					t.Errorf("%s: %s: %s %v", name, body, out, err)
				case kind == 2 && (header.Get(sql.EpochHeader) != "" || !strings.Contains(out, `"changes":0`)), kind > 2 && header.Get(sql.EpochHeader) == "":
					t.Errorf("%s: %s: %s %v", name, body, out, header)
				}
				switch {
				case kind == 3:
					added.Add(1)
				case kind > 3:
					rows.Add(1)
				}
				if !see {
					continue
				}
				out, _, err = o.send(t.Context(), s.sql, store, r.read, query("SELECT count(*) FROM t WHERE name = '"+name+"'"))
				if err != nil || !strings.Contains(out, "[[1]]") {
					t.Errorf("%s is not there when its write was answered: %s %v", name, out, err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d requests in %d groups", grouped.Load(), groups.Load())
	if groups.Load() >= grouped.Load() {
		t.Error("no two requests were made durable together")
	}
	want := fmt.Sprintf("[[%d,%d]]", 1+rows.Load(), added.Load())
	const all = "SELECT count(*), (SELECT n FROM counter) FROM t"
	if got := o.rows(s, "db", all); got != want {
		t.Errorf("there are %s, want %s", got, want)
	}
	is := o.rows(s, "db", "SELECT * FROM t ORDER BY id")
	s.anew()
	if got := o.rows(s, "db", "SELECT * FROM t ORDER BY id"); got != is || o.rows(s, "db", all) != want {
		t.Errorf("made anew: %s\nwas %s", got, is)
	}
	s.sound()
}

// What happens between a group being tried and being answered: some are refused by the history, operations come in between, what
// became of them is not known, the files fail, the process ends. Nothing that was answered is lost, and nothing counts twice.
func TestSQLGroupsInterrupted(t *testing.T) {
	const writers = 6
	errLost := errors.New("the answer is lost")
	for name, interrupt := range map[string]func(o author, s *sqlStore, n int, all []service.Request) []error{
		"nothing": func(_ author, s *sqlStore, _ int, all []service.Request) []error {
			return s.PerformAll(s.t.Context(), all)
		},
		"one is refused": func(_ author, s *sqlStore, _ int, all []service.Request) []error {
			errs := make([]error, len(all))
			for i := range all {
				if errs[i] = tinycloud.Refuse(tinycloud.ErrForbidden, "refused"); i != len(all)/2 || len(all) == 1 {
					errs[i] = s.PerformAll(s.t.Context(), all[i:i+1])[0]
				}
			}
			return errs
		},
		"others come": func(o author, s *sqlStore, n int, all []service.Request) []error {
			if n < 8 {
				foreign := sql.New(sql.Options{Dir: s.t.TempDir()})
				defer foreign.Close() //nolint:errcheck // of a test
				if _, _, err := o.send(s.t.Context(), foreign, s.Store, o.sqlToken(s.t, "db", "write"), execute("UPDATE counter SET n = n + 100")); err != nil {
					s.t.Error(err)
				}
			}
			return s.PerformAll(s.t.Context(), all)
		},
		"the outcome is unknown": func(_ author, s *sqlStore, n int, all []service.Request) []error {
			errs := s.PerformAll(s.t.Context(), all)
			for i := range errs {
				if n%2 == 0 && errs[i] == nil {
					errs[i] = fmt.Errorf("%w: %w", errLost, tinycloud.ErrUnavailable)
				}
			}
			return errs
		},
		"the files go": func(_ author, s *sqlStore, _ int, all []service.Request) []error {
			errs := s.PerformAll(s.t.Context(), all)
			logs, err := filepath.Glob(filepath.Join(s.dir, "*", "*", "base.db-*"))
			for _, path := range logs {
				err = errors.Join(err, os.Truncate(path, 0))
			}
			if err != nil {
				s.t.Error(err)
			}
			return errs
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Run(onMemory, func(t *testing.T) {
				o := newAuthor(t, newClock())
				stores, _ := o.writers(t, "a")
				s := stores[0]
				o.run(s, "db", "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT)")
				o.run(s, "db", "CREATE TABLE counter(n INTEGER)")
				o.run(s, "db", "INSERT INTO counter VALUES(0)")
				n := 0
				var mu sync.Mutex       // of the author: he numbers his tokens
				var sent sync.WaitGroup // as above
				store := between{Store: s.Store, perform: func(_ context.Context, all []service.Request) []error {
					sent.Wait()
					mu.Lock()
					defer mu.Unlock()
					n++
					return interrupt(o, s, n, all)
				}}
				var tokens [writers][8]*capstore.Token
				for i := range tokens {
					for k := range tokens[i] {
						tokens[i][k] = o.sqlToken(t, "db", "write")
					}
				}
				var acknowledged, unknown sync.Map
				sent.Add(writers)
				var wg sync.WaitGroup
				for i := range tokens {
					wg.Go(func() {
						for k, tok := range tokens[i] {
							name := fmt.Sprintf("%d/%d", i, k)
							if k == 0 {
								sent.Done()
							}
							_, _, err := o.send(t.Context(), s.sql, store, tok, execute("INSERT INTO t(name) VALUES('"+name+"')"))
							switch {
							case err == nil:
								acknowledged.Store(name, true)
							case errors.Is(err, errLost):
								unknown.Store(name, true)
							case !errors.Is(err, tinycloud.ErrForbidden):
								t.Errorf("%s: %v", name, err)
							}
						}
					})
				}
				wg.Wait()
				check := func() string {
					got := o.rows(s, "db", "SELECT group_concat(name, ' '), count(*), (SELECT n FROM counter) FROM t")
					names := " " + strings.Trim(strings.SplitN(got, `",`, 2)[0], `["`) + " "
					acknowledged.Range(func(name, _ any) bool {
						if strings.Count(names, fmt.Sprintf(" %s ", name)) != 1 {
							t.Errorf("%s was answered: %s", name, got)
						}
						names = strings.Replace(names, fmt.Sprintf(" %s ", name), "  ", 1)
						return true
					})
					for name := range strings.FieldsSeq(names) {
						if _, ok := unknown.LoadAndDelete(name); !ok {
							t.Errorf("%s was not answered, or is there twice: %s", name, got)
						}
					}
					return got
				}
				before := check()
				s.anew()
				if after := o.rows(s, "db", "SELECT group_concat(name, ' '), count(*), (SELECT n FROM counter) FROM t"); after != before {
					t.Errorf("made anew: %s\nwas %s", after, before)
				}
				s.sound()
			})
		})
	}
}

// Files of a process that ended when a group was durable, and not yet in them.
func TestSQLEndsBeforeFilesFollow(t *testing.T) {
	t.Parallel()
	c := newClock()
	o := newAuthor(t, c)
	s := openSQL(t, "a", c, filepath.Join(t.TempDir(), "caps.db"), filepath.Join(t.TempDir(), "sql"))
	o.member(s.testStore)
	s.delegate(o.header)
	o.run(s, "db", "CREATE TABLE t(v)")
	left := filepath.Join(t.TempDir(), "left")
	store := between{Store: s.Store, perform: func(ctx context.Context, all []service.Request) []error {
		errs := s.PerformAll(ctx, all)
		if err := os.CopyFS(left, os.DirFS(s.dir)); err != nil {
			t.Error(err)
		}
		return errs
	}}
	if _, _, err := o.send(t.Context(), s.sql, store, o.sqlToken(t, "db", "write"), execute("INSERT INTO t VALUES(5)")); err != nil {
		t.Fatal(err)
	}
	s.dir = left
	s = s.reopen()
	if got := o.rows(s, "db", "SELECT count(*), sum(v) FROM t"); got != "[[1,5]]" {
		t.Errorf("after the end: %s", got)
	}
	s.sound()
}

// A query waits neither for a write's disk nor for whoever has the turn, if all is in the files that was answered before.
func TestSQLQueriesDoNotWait(t *testing.T) {
	t.Run(onMemory, func(t *testing.T) {
		o := newAuthor(t, newClock())
		stores, _ := o.writers(t, "a")
		s := stores[0]
		o.run(s, "db", "CREATE TABLE t(v)")
		o.run(s, "db", "INSERT INTO t VALUES(1)")
		durable, goOn := make(chan struct{}), make(chan struct{})
		store := between{Store: s.Store, perform: func(ctx context.Context, all []service.Request) []error {
			errs := s.PerformAll(ctx, all)
			close(durable)
			<-goOn
			return errs
		}}
		tok, ended := o.sqlToken(t, "db", "write"), make(chan error)
		go func() {
			_, _, err := o.send(t.Context(), s.sql, store, tok, execute("INSERT INTO t VALUES(2)"))
			ended <- err
		}()
		<-durable // and nobody was told
		if got := o.rows(s, "db", "SELECT sum(v) FROM t"); got != "[[1]]" {
			t.Errorf("beside the write: %s", got)
		}
		close(goOn)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := o.rows(s, "db", "SELECT sum(v) FROM t"); got != "[[3]]" {
			t.Errorf("after it: %s", got)
		}
	})
}

// A client that goes away while its request waits, is tried, or is made durable.
func TestSQLClientsGoAway(t *testing.T) {
	t.Run(onMemory, func(t *testing.T) {
		o := newAuthor(t, newClock())
		stores, _ := o.writers(t, "a")
		s := stores[0]
		o.run(s, "db", "CREATE TABLE t(v)")
		ctx, leave := context.WithCancel(t.Context())
		began, goOn := make(chan struct{}), make(chan struct{})
		store := between{Store: s.Store, perform: func(ctx context.Context, all []service.Request) []error {
			close(began)
			<-goOn
			return s.PerformAll(ctx, all)
		}}
		first, second, third := o.sqlToken(t, "db", "write"), o.sqlToken(t, "db", "write"), o.sqlToken(t, "db", "write")
		durable, waits := make(chan error), make(chan error)
		go func() {
			_, _, err := o.send(ctx, s.sql, store, first, execute("INSERT INTO t VALUES(1)"))
			durable <- err
		}()
		<-began
		go func() {
			_, _, err := o.send(ctx, s.sql, s.Store, second, execute("INSERT INTO t VALUES(2)"))
			waits <- err
		}()
		leave()
		if err := <-waits; !errors.Is(err, context.Canceled) {
			t.Errorf("one that waited: %v", err)
		}
		close(goOn)
		if err := <-durable; err != nil { // what came of it is known
			t.Errorf("one that was made durable: %v", err)
		}
		if _, _, err := o.send(ctx, s.sql, s.Store, third, execute("INSERT INTO t VALUES(3)")); !errors.Is(err, context.Canceled) {
			t.Errorf("one that had gone before: %v", err)
		}
		if got := o.rows(s, "db", "SELECT group_concat(v) FROM t"); got != `[["1"]]` {
			t.Errorf("there is %s", got)
		}
	})
}
