package capstore_test

import (
	"context"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
)

// A database that cannot be used says so at once, names its setting and hides the password.
func TestOpenRefusals(t *testing.T) {
	onServers(t, func(t *testing.T) {
		db := newServerDatabase(t)
		good, err := url.Parse(db.DSN)
		if err != nil {
			t.Fatal(err)
		}
		silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		with := func(change func(*url.URL)) string {
			u := *good
			change(&u)
			return u.String()
		}
		newer := newServerDatabase(t)
		open(t, "one", newClock(), newer.DSN).stop()
		newer.Exec("UPDATE goose_db_version SET version_id = 999999 WHERE version_id = 8")
		reference := newServerDatabase(t)
		reference.Exec("CREATE TABLE seaql_migrations (version VARCHAR(64) PRIMARY KEY)")
		for name, tt := range map[string]struct{ dsn, want string }{
			"nobody there":   {with(func(u *url.URL) { u.Host = "127.0.0.1:1" }), "refused"},
			"silent":         {with(func(u *url.URL) { u.Host = silent.Addr().String() }), ""},
			"wrong password": {with(func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "hunter2") }), "tinycloud"},
			"no database":    {with(func(u *url.URL) { u.Path = "/nowhere" }), "nowhere"},
			"newer":          {newer.DSN, "newer than this program"},
			"reference":      {reference.DSN, "import-reference"},
		} {
			begin := time.Now()
			s, err := capstore.Open(t.Context(), capstore.Options{Services: servicetest.Services(), Database: tt.dsn, Keys: keys("one")})
			if err == nil {
				t.Errorf("%s: opened, %v", name, s.Close())
				continue
			}
			text := err.Error()
			if !strings.HasPrefix(text, "storage.database ") || !strings.Contains(text, tt.want) {
				t.Errorf("%s: %s", name, text)
			}
			for _, secret := range []string{"hunter2", "p%40ss", "p@ss"} {
				if strings.Contains(text, secret) {
					t.Errorf("%s: the password is in %s", name, text)
				}
			}
			if took := time.Since(begin); took > 15*time.Second {
				t.Errorf("%s: after %s", name, took)
			}
		}
	})
}

// Keys of any bytes and of any length are listed in byte order, alike on each database.
func TestKeyOrder(t *testing.T) { everywhere(t, testKeyOrder) }

func testKeyOrder(t *testing.T) {
	c := newClock()
	s, o := openNew(t, "one", c), newOwner(t, "alice", c)
	o.hostOn(s)
	s.delegate(o.header)
	long := strings.Repeat("l", 900)
	want := []string{
		"a", "aa", "a/", "a/b", "a//", "a-", "a.", "a~", "a_", "B/", "a%20", "a%2F", "a\x00", "a\x00b", "a\x01", "a ", "a b", "A", "Z", "ä", "é", "日本", "\U0010ffff", "\\x61", "'", "%", "a%", "_",
		long[:899], long, long + "\x00", long + "a", long + strings.Repeat("z", 20), long + strings.Repeat("z", 32), long + strings.Repeat("z", 33),
		long + strings.Repeat("z", 40), long + strings.Repeat("y", 5000), long + strings.Repeat("y", 5000) + "1", long + strings.Repeat("y", 15000),
		long[:899] + "m", long[:899] + "m" + strings.Repeat("q", 2000), "m", strings.Repeat("\U0010ffff", 300), strings.Repeat("\U0010ffff", 301),
	}
	want = slices.DeleteFunc(want, func(key string) bool { _, ok := o.space.NewKey("kv", key); return !ok })
	if len(want) < 25 {
		t.Fatalf("only %d keys fit into a resource: %.20q", len(want), want)
	}
	for _, key := range want {
		if err := o.put(s, key, "v"); err != nil {
			t.Fatalf("%.40q: %v", key, err)
		}
	}
	slices.Sort(want)
	list := func(prefix, after string, limit int) ([]string, bool) {
		t.Helper()
		got, more, err := s.List(t.Context(), o.space, prefix, after, limit)
		if err != nil {
			t.Fatal(err)
		}
		return got, more
	}
	got, more := list("", "", 0)
	if diff := cmp.Diff(want, got); diff != "" || more {
		t.Errorf("all, more %v: %s", more, diff)
	}
	for i, key := range want {
		if r := s.get(o.space, key); r != "v" {
			t.Errorf("%.40q = %q", key, r)
		}
		got, more = list("", key, 3)
		if diff := cmp.Diff(want[i+1:min(i+4, len(want))], got, cmp.Comparer(slices.Equal[[]string])); diff != "" || more != (i+4 < len(want)) {
			t.Errorf("after %.40q, more %v: %s", key, more, diff)
		}
		var below []string
		for _, k := range want {
			if strings.HasPrefix(k, key) {
				below = append(below, k)
			}
		}
		got, _ = list(key, "", 0)
		if diff := cmp.Diff(below, got); diff != "" {
			t.Errorf("below %.40q: %s", key, diff)
		}
	}
	late := openNew(t, "late", c)
	o.hostOn(late)
	late.pull(s, o.space)
	if a, b := s.status(o.space), late.status(o.space); a.StateHash != b.StateHash || a.Keys != int64(len(want)) {
		t.Errorf("%+v\n%+v", a, b)
	}
}

// A server that hangs is no reason to hang.
func TestServerPaused(t *testing.T) {
	onServers(t, func(t *testing.T) {
		srv := ownServer(t)
		c := newClock()
		s, o := open(t, "one", c, srv.DSN), newOwner(t, "alice", c)
		o.hostOn(s)
		s.delegate(o.header)
		srv.Pause()
		defer srv.Resume()
		begin := time.Now()
		if err := s.Ping(t.Context()); err == nil || time.Since(begin) > 15*time.Second {
			t.Errorf("ping: %v after %s", err, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Get(ctx, o.space, "k"); err == nil {
			t.Error("a get was answered")
		}
		srv.Resume()
		eventually(t, 20*time.Second, func() bool { return o.put(s, "k", "v") == nil })
	})
}
