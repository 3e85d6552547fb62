package capstore_test

import (
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
)

// reviewed is a database with two Spaces, the history of one of which has to be judged anew.
type reviewed struct {
	*testing.T
	c           *clock
	o, other    *owner
	path        string
	want        status
	bundles     []hostlog.Bundle // of a peer, not known here
	put, beside *capstore.Token
}

func newReviewed(t *testing.T) *reviewed {
	t.Helper()
	r := &reviewed{T: t, c: newClock(), path: filepath.Join(t.TempDir(), "caps.db")}
	r.o, r.other = newOwner(t, "alice", r.c), newOwner(t, "bob", r.c)
	a, b := open(t, "one", r.c, r.path), openNew(t, "two", r.c)
	for _, o := range []*owner{r.o, r.other} {
		o.hostOn(a)
		a.delegate(o.header)
	}
	r.o.hostOn(b)
	r.o.meet(a, b)
	for i := range 60 {
		mustPut(t, r.o, []*testStore{a, b}[i%2], fmt.Sprint("k", i%7), fmt.Sprint(i))
		r.c.ms.Add(1)
	}
	r.o.meet(a, b)
	r.want = a.status(r.o.space)
	mustPut(t, r.o, b, "peers", "value")
	r.bundles = all(t, b, r.o.space)
	r.put, r.beside = r.o.invoke(t, "k", "tinycloud.kv/put"), r.other.invoke(t, "k", "tinycloud.kv/put")
	a.stop()
	// It was judged by older rules, that made something else of it.
	for _, query := range []string{
		"UPDATE spaces SET rules = 3 WHERE", "UPDATE epochs SET written = 0, begin_of = x'', t = 0 WHERE", "DELETE FROM conflicts WHERE",
		"UPDATE kv SET live = 0 WHERE CAST(key AS TEXT) = 'k3' AND",
	} {
		r.exec(query + " sid = (SELECT sid FROM spaces WHERE space = '" + r.o.space.String() + "')")
	}
	return r
}

// file opens the database, which nobody else may have open to change it.
func (r *reviewed) file() *sql.DB {
	r.Helper()
	db, err := sql.Open("sqlite", r.path)
	if err != nil {
		r.Fatal(err)
	}
	return db
}

func (r *reviewed) exec(query string) {
	r.Helper()
	db := r.file()
	defer db.Close()
	if _, err := db.ExecContext(r.Context(), query); err != nil {
		r.Fatal(err)
	}
}

// rules are those by which the history is judged, as the database says.
func (r *reviewed) rules() (rules int) {
	r.Helper()
	db := r.file()
	defer db.Close()
	if err := db.QueryRowContext(r.Context(), "SELECT rules FROM spaces WHERE space = ?", r.o.space.String()).Scan(&rules); err != nil {
		r.Fatal(err)
	}
	return rules
}

// closed opens the database, to be judged in parts as small as can be, with requests that wait before it runs. It tells
// when so many parts are done.
func (r *reviewed) closed(parts int) (s *testStore, told <-chan struct{}, answers map[string]chan error) {
	r.Helper()
	commits, begun := 0, make(chan struct{}, 1)
	answers = map[string]chan error{}
	s = openWith(r.T, "one", r.c, r.path, func(o *capstore.Options) {
		o.Committed = func(c capstore.Commit) {
			if c.Space != r.o.space {
				return
			}
			if commits++; commits == parts {
				begun <- struct{}{}
			}
		}
	}, func(s *capstore.Store) {
		capstore.SetReview(s, 10, time.Microsecond)
		requests := map[string]func() error{
			"a put": func() error {
				_, err := kv.Of(s).Write(r.Context(), r.put, ops(putOp(r.o.space, "k", "v")), nil)
				return err
			},
			"a peer's entries": func() error {
				_, err := s.Apply(r.Context(), r.o.space, r.bundles[len(r.bundles)-1:])
				return err
			},
			"a put in another Space": func() error {
				_, err := kv.Of(s).Write(r.Context(), r.beside, ops(putOp(r.other.space, "k", "v")), nil)
				return err
			},
		}
		for name, request := range requests {
			answer := make(chan error, 1)
			answers[name] = answer
			go func() { answer <- request() }()
		}
		for jobs := 0; jobs < len(requests); jobs, _ = capstore.Waiting(s) { // they come before the first part
			runtime.Gosched()
		}
	})
	return s, begun, answers
}

// A long history is judged anew in parts. Its Space takes nothing meanwhile and says so, another one does; a restart in
// the middle begins anew; and what comes of it is what judging at once makes of it.
func TestReviewInParts(t *testing.T) {
	r := newReviewed(t)
	copied := filepath.Join(t.TempDir(), "copy.db")
	b, err := os.ReadFile(r.path)
	if err == nil {
		err = os.WriteFile(copied, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}

	s, begun, answers := r.closed(20)
	for name, want := range map[string]error{"a put": tinycloud.ErrUnavailable, "a peer's entries": tinycloud.ErrUnavailable, "a put in another Space": nil} {
		is(t, name, <-answers[name], want)
	}
	await(t, begun, 10*time.Second)
	if got := s.get(r.o.space, "k2"); got != "58" { // as before
		t.Errorf("k2 = %q while it is judged", got)
	}
	s.stop()
	if got := r.rules(); got != 0 {
		t.Fatalf("all was judged by rules %d before the restart", got)
	}

	s, _, answers = r.closed(1)
	is(t, "a put after the restart", <-answers["a put"], tinycloud.ErrUnavailable)
	is(t, "the same put in the other Space", <-answers["a put in another Space"], tinycloud.ErrConflict)
	eventually(t, 10*time.Second, func() bool { return r.o.put(s, "k", "open") == nil })
	if err := r.o.del(s, "k"); err != nil {
		t.Error(err)
	}
	if got := r.rules(); got != capstore.Rules {
		t.Errorf("judged by rules %d", got)
	}
	atOnce := open(t, "one", r.c, copied)
	mustPut(t, r.o, atOnce, "k", "open")
	if err := r.o.del(atOnce, "k"); err != nil {
		t.Error(err)
	}
	for name, s := range map[string]*testStore{"in parts": s, "at once": atOnce} {
		got := s.status(r.o.space)
		if got.StateHash != r.want.StateHash || got.Void != r.want.Void || got.Keys != r.want.Keys || got.Conflicts != r.want.Conflicts || len(got.Heads) != 1 {
			t.Errorf("%s: %+v\nwant %+v", name, got, r.want)
		}
		s.whole()
	}
	if a, err := s.Apply(t.Context(), r.o.space, r.bundles[len(r.bundles)-1:]); err != nil || a.New != 1 {
		t.Errorf("the peer's entries: %+v, %v", a, err)
	}
}

// Whatever makes a history to be judged anew, in parts it comes to what others come to that judge it at once.
func TestReviewsConverge(t *testing.T) {
	for _, seed := range []uint64{15, 22} {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			s := openNew(t, "honest", newClock())
			c := newHistory(t, seed, s)
			want, bundles := s.status(c.o.space), all(t, s, c.o.space)
			parts := openWith(t, "parts", s.clock, newDatabase(t), func(*capstore.Options) {}, func(s *capstore.Store) {
				capstore.SetReview(s, 1, time.Microsecond)
			})
			c.hosting(parts)
			closed := 0
			rng := rand.New(rand.NewPCG(seed, 9))
			for len(bundles) > 0 {
				n := min(len(bundles), 1+rng.IntN(4))
				a, err := parts.Apply(t.Context(), c.o.space, bundles[:n])
				if errors.Is(err, tinycloud.ErrUnavailable) {
					closed++
					err = parts.Review(t.Context())
				}
				if err != nil || a.Gap {
					t.Fatal(a, err)
				}
				bundles = bundles[a.Covered:]
			}
			if err := parts.Review(t.Context()); err != nil {
				t.Fatal(err)
			}
			parts.redate()
			if closed == 0 {
				t.Error("it was never closed")
			}
			if got := parts.status(c.o.space); got.StateHash != want.StateHash || got.Void != want.Void || got.Conflicts != want.Conflicts {
				t.Errorf("%+v\nwant %+v", got, want)
			}
			parts.whole()
		})
	}
}
