package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// behind starts hosts that replicate a Space and know each other by ways that can be cut; the first is joined by the others.
func (g *group) behind(hosts int, env ...[]string) (peers []*cluster.Peer, ways []*cluster.WAN) {
	g.Helper()
	for i := range hosts {
		var more []string
		if i < len(env) {
			more = env[i]
		}
		p, err := g.nodes.Add(g.ctx, more...)
		g.must(err)
		ways = append(ways, g.remote(p, 0))
		g.must(g.owner.Host(g.ctx, p))
		if i == 0 {
			_, err = g.owner.SignIn(g.ctx, p)
			g.must(err)
		} else {
			g.must(g.owner.Join(g.ctx, p, peers[0]))
		}
		peers = append(peers, p)
	}
	g.same()
	return peers, ways
}

// longer gives a group without peers more time: a minute for each round, two at least.
func (g *group) longer(rounds int) {
	ctx, cancel := context.WithTimeoutCause(g.Context(), time.Duration(max(2, rounds))*time.Minute, errors.New("not in time"))
	g.Cleanup(cancel)
	g.ctx = ctx
}

// ask sends a request on the database of these tests; it may be called by several goroutines.
func (g *group) ask(p *cluster.Peer, ability string, body any) (cluster.Answer, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return cluster.Answer{}, err
	}
	return g.owner.Call(g.ctx, p, http.MethodPost, "/invoke", g.owner.Token(database, "tinycloud.sql/"+ability), nil, strings.NewReader(string(b)))
}

// write executes a statement that has to succeed, and returns the epoch of its event.
func (g *group) write(p *cluster.Peer, statement string, params ...any) (epoch string) {
	a, err := g.ask(p, "write", map[string]any{"action": "execute", "sql": statement, "params": append([]any{}, params...)})
	if err != nil || a.Status != http.StatusOK {
		g.Errorf("%s: %s %v: %d %s %v", p.Name, statement, params, a.Status, a.Body, err)
	}
	return a.Header.Get(sql.EpochHeader)
}

// outcome asks what became of a write.
func (g *group) outcome(p *cluster.Peer, epoch string) (applied bool, reason string) {
	g.Helper()
	a, err := g.ask(p, "read", map[string]any{"action": "outcome", "epoch": epoch})
	g.must(err)
	var out struct {
		Applied   bool
		Error     string
		Hosts, Of int
	}
	if err := json.Unmarshal([]byte(a.Body), &out); err != nil || a.Status != http.StatusOK {
		g.Errorf("%s: outcome of %s: %d %s", p.Name, epoch, a.Status, a.Body)
	}
	return out.Applied, out.Error
}

// sameDatabase checks that peers have the same content: the file that they export has one hash.
func (g *group) sameDatabase(peers ...*cluster.Peer) {
	g.Helper()
	hashes := map[[32]byte][]string{}
	for _, p := range peers {
		a, err := g.ask(p, "read", map[string]any{"action": "export"})
		g.must(err)
		if a.Status != http.StatusOK {
			g.Fatalf("%s: export: %d %s", p.Name, a.Status, a.Body)
		}
		h := sha256.Sum256([]byte(a.Body))
		hashes[h] = append(hashes[h], p.Name)
	}
	if len(hashes) != 1 {
		g.Errorf("the content differs: %v", hashes)
	}
}

func cutAll(ways []*cluster.WAN) {
	for _, w := range ways {
		w.Cut()
	}
}

func mendAll(ways []*cluster.WAN) {
	for _, w := range ways {
		w.Mend()
	}
}

// Two of three hosts write to one database while none reaches another: the same rows, the same unique keys, a counter, and rows
// of their own. Then all have the same. SQL_WRITES says how often each writes.
func TestSQLApart(t *testing.T) {
	t.Parallel()
	writes := scale(t, "SQL_WRITES", 160)
	g := startGroup(t, 0)
	g.longer(writes / 500)
	peers, ways := g.behind(3)
	a, b := peers[0], peers[1]
	for _, statement := range []string{
		"CREATE TABLE own(key TEXT PRIMARY KEY)", "CREATE TABLE names(id INTEGER PRIMARY KEY, name TEXT UNIQUE, host TEXT)", "CREATE TABLE counter(n INTEGER)",
		"INSERT INTO counter VALUES(0)", "CREATE TABLE items(id INTEGER PRIMARY KEY, n INTEGER, last TEXT)",
		"INSERT INTO items(n) SELECT 0 FROM json_each('[1,2,3,4,5,6,7,8,9,10]')",
	} {
		g.write(a, statement)
	}
	g.rows("SELECT count(*) FROM items", "[[10]]", peers...)
	cutAll(ways)
	var epochs [2][]string // of the names
	var wg sync.WaitGroup
	for side, p := range peers[:2] {
		epochs[side] = make([]string, writes)
		next := make(chan int, writes)
		for i := range writes {
			next <- i
		}
		close(next)
		for range 4 {
			wg.Go(func() {
				for i := range next {
					switch i % 4 {
					case 0:
						g.write(p, "INSERT INTO own VALUES(?)", fmt.Sprint(p.Name, " ", i))
					case 1:
						epochs[side][i] = g.write(p, "INSERT INTO names(name, host) VALUES(?, ?)", fmt.Sprint("name ", i), p.Name)
					case 2:
						g.write(p, "UPDATE counter SET n = n + 1")
					default:
						g.write(p, "UPDATE items SET n = n + 1, last = ? WHERE id = ?", p.Name, 1+i%10)
					}
				}
			})
		}
	}
	wg.Wait()
	each := writes / 4
	g.rows("SELECT (SELECT count(*) FROM own), (SELECT count(*) FROM names), (SELECT n FROM counter), (SELECT sum(n) FROM items)",
		fmt.Sprintf("[[%d,%d,%d,%d]]", each, each, each, each), a, b) // each by itself
	mendAll(ways)
	g.same()
	g.rows("SELECT (SELECT count(*) FROM own), (SELECT count(*) FROM names), (SELECT n FROM counter), (SELECT sum(n) FROM items)",
		fmt.Sprintf("[[%d,%d,%d,%d]]", 2*each, each, 2*each, 2*each), peers...)
	g.sameDatabase(peers...)
	// Of each name one host's row is there, and the other host's write says that it did nothing.
	for i := 1; i < min(writes, 40); i += 4 {
		var applied [2]bool
		for side := range applied {
			for k, p := range peers {
				is, reason := g.outcome(p, epochs[side][i])
				if k > 0 && is != applied[side] || !is && reason != "SQLite error: UNIQUE constraint failed: names.name" {
					t.Errorf("%s: name %d: %v %q", p.Name, i, is, reason)
				}
				applied[side] = is
			}
		}
		if applied[0] == applied[1] {
			t.Errorf("name %d: %v", i, applied)
		}
	}
	for _, p := range peers {
		g.must(p.Stop())
		g.verb(p, "verify")
	}
}

// Two versions of an app change the schema while their hosts are parted. The same change converges; of two that don't go
// together the later did nothing, and so did what was written by it.
func TestSQLMigratesApart(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 0)
	peers, ways := g.behind(2)
	a, b := peers[0], peers[1]
	g.write(a, "CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT)")
	g.write(a, "CREATE TABLE migrations(id TEXT PRIMARY KEY)")
	g.rows("SELECT count(*) FROM migrations", "[[0]]", b)
	cutAll(ways)
	migrate := func(p *cluster.Peer, id, statement string) string {
		answer, err := g.ask(p, "write", map[string]any{"action": "batch", "statements": []map[string]any{
			{"sql": statement}, {"sql": "INSERT INTO migrations VALUES(?)", "params": []any{id}},
		}})
		if err != nil || answer.Status != http.StatusOK {
			t.Errorf("%s: %s: %d %s %v", p.Name, id, answer.Status, answer.Body, err)
		}
		return answer.Header.Get(sql.EpochHeader)
	}
	type write struct{ epoch, why string } // why: that it did nothing after all
	first := []string{
		migrate(a, "001 color", "ALTER TABLE items ADD COLUMN color TEXT"), migrate(a, "002 tags", "CREATE TABLE tags(name TEXT)"),
		g.write(a, "INSERT INTO tags(name) VALUES('of a')"), g.write(a, "INSERT INTO items(name, color) VALUES('by a', 'red')"),
	}
	second := []write{ // it's later, and loses where both can't be
		{migrate(b, "001 color", "ALTER TABLE items ADD COLUMN color TEXT"), "SQLite error: duplicate column name: color"},
		{migrate(b, "002 labels", "CREATE TABLE tags(id INTEGER PRIMARY KEY, label TEXT)"), "SQLite error: table tags already exists"},
		{g.write(b, "INSERT INTO tags(label) VALUES('of b')"), "SQLite error: table tags has no column named label"},
		{g.write(b, "INSERT INTO items(name, color) VALUES('by b', 'blue')"), ""},
		{migrate(b, "003 size", "ALTER TABLE items ADD COLUMN size INTEGER DEFAULT 7"), ""},
	}
	mendAll(ways)
	g.same()
	g.rows("SELECT name, color, size FROM items ORDER BY id", `[["by a","red",7],["by b","blue",7]]`, peers...)
	g.rows("SELECT group_concat(name) FROM tags", `[["of a"]]`, peers...)
	g.rows("SELECT group_concat(id) FROM (SELECT id FROM migrations ORDER BY id)", `[["001 color,002 tags,003 size"]]`, peers...)
	g.sameDatabase(peers...)
	for _, p := range peers {
		for i, epoch := range first {
			if applied, why := g.outcome(p, epoch); !applied {
				t.Errorf("%s: write %d of the first: %s", p.Name, i, why)
			}
		}
		for i, w := range second {
			if applied, why := g.outcome(p, w.epoch); applied != (w.why == "") || !strings.HasPrefix(why, w.why) {
				t.Errorf("%s: write %d of the second: %v %q, want %q", p.Name, i, applied, why, w.why)
			}
		}
	}
}

// A host without SQL passes databases on between hosts that never meet, and answers for them that it needs an upgrade.
func TestSQLThroughAHostWithout(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 0)
	peers, ways := g.behind(4, []string{withoutDatabases + "1"})
	middle, a, b, c := peers[0], peers[1], peers[2], peers[3]
	g.must(c.Stop())
	g.write(a, "CREATE TABLE t(id INTEGER PRIMARY KEY, host TEXT)")
	g.rows("SELECT count(*) FROM t", "[[0]]", b)
	for _, w := range ways[1:] { // these reach the one in the middle only
		w.Cut()
	}
	for i := range 20 {
		g.write(peers[1+i%2], "INSERT INTO t(host) VALUES(?)", peers[1+i%2].Name)
	}
	g.rows("SELECT count(*), count(DISTINCT host) FROM t", "[[20,2]]", a, b)
	m := &mixed{g, ""}
	for _, p := range []*cluster.Peer{a, b} { // who has the last of a host has all of it
		m.put(p, "last/"+p.Name, "1")
		m.takes("last/"+p.Name, "1", middle)
	}
	if got, err := g.ask(middle, "read", map[string]any{"action": "query", "sql": "SELECT * FROM t"}); err != nil || got.Status != http.StatusServiceUnavailable || !strings.Contains(got.Body, "upgrade") {
		t.Errorf("without SQL: %d %s %v", got.Status, got.Body, err)
	}
	g.must(a.Stop())
	g.must(b.Stop())
	g.must(c.Start(g.ctx)) // it has all from the one that can't read it
	g.rows("SELECT count(*), count(DISTINCT host) FROM t", "[[20,2]]", c)
	g.must(a.Start(g.ctx))
	g.must(b.Start(g.ctx))
	mendAll(ways)
	g.same(a, b, c)
	g.sameDatabase(a, b, c)
	g.must(middle.Stop()) // upgraded it answers like them
	middle.Set(withoutDatabases)
	g.must(middle.Start(g.ctx))
	g.rows("SELECT count(*), count(DISTINCT host) FROM t", "[[20,2]]", middle)
	g.same()
	g.sameDatabase(peers...)
}
