package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

const database = "sql/xyz.app/notes"

// run executes a statement at a peer.
func (g *group) run(p *cluster.Peer, statement string) cluster.Answer {
	g.Helper()
	b, err := json.Marshal(map[string]any{"action": "execute", "sql": statement})
	g.must(err)
	return g.invoke(p, http.StatusOK, nil, string(b), database, "tinycloud.sql/write")
}

// rows waits until peers answer a query with some rows.
func (g *group) rows(query, want string, peers ...*cluster.Peer) {
	g.Helper()
	b, err := json.Marshal(map[string]any{"action": "query", "sql": query})
	g.must(err)
	for _, p := range peers {
		var got cluster.Answer
		if err := cluster.Poll(g.ctx, pollEvery/10, func() (bool, error) {
			var err error
			got, err = g.owner.Call(g.ctx, p, http.MethodPost, "/invoke", g.owner.Token(database, "tinycloud.sql/read"), nil, strings.NewReader(string(b)))
			return err == nil && strings.HasSuffix(got.Body, `"rows":`+want+"}"), err
		}); err != nil {
			g.Fatalf("%s: %s is %d %s, want %s: %v", p.Name, query, got.Status, got.Body, want, err)
		}
	}
}

// sameContent holds that peers have the one database of the Space with the same content, and no write that failed.
func (g *group) sameContent(writes int64, peers ...*cluster.Peer) {
	g.Helper()
	space, first := g.owner.Space.String(), ""
	for _, p := range peers {
		var list []node.DatabaseView
		g.must(json.Unmarshal([]byte(g.verb(p, "databases", space, "--hash", "--json")), &list))
		if len(list) != 1 || list[0].Name != strings.TrimPrefix(database, "sql/") || len(list[0].Hash) != 64 || list[0].Writes < writes || list[0].Position != uint64(list[0].Writes) {
			g.Fatalf("%s: databases %+v", p.Name, list)
		}
		if first == "" {
			first = list[0].Hash
		} else if list[0].Hash != first {
			g.Errorf("%s: another content: %+v", p.Name, list)
		}
		if out := g.verb(p, "databases", space, "--failed", "--json"); strings.TrimSpace(out) != "[]" {
			g.Errorf("%s: failed writes: %s", p.Name, out)
		}
		if out := g.verb(p, "databases", space); !strings.Contains(out, `"xyz.app/notes"`) {
			g.Errorf("%s: databases: %s", p.Name, out)
		}
	}
}

// Three hosts write the same table at once and apart; one is killed, and one loses its files. They come to the same rows.
func TestSQLOnThreeHosts(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 3)
	g.same()
	peers := g.nodes.Peers()
	a, b, c := peers[0], peers[1], peers[2]
	g.run(a, "CREATE TABLE t(id INTEGER PRIMARY KEY, host TEXT, n INTEGER, UNIQUE(host, n))")
	g.run(a, "CREATE TABLE counter(n INTEGER)")
	g.run(a, "INSERT INTO counter VALUES(0)")
	g.rows("SELECT n FROM counter", "[[0]]", peers...)
	const each = 20
	write := func(p *cluster.Peer, from int) {
		for i := range each {
			g.run(p, fmt.Sprintf("INSERT INTO t(host, n) VALUES('%s', %d)", p.Name, from+i))
			g.run(p, "UPDATE counter SET n = n + 1")
		}
	}
	together := func(from int, peers ...*cluster.Peer) {
		var wg sync.WaitGroup
		for _, p := range peers {
			wg.Go(func() { write(p, from) })
		}
		wg.Wait()
	}
	together(0, a, b, c)
	g.rows("SELECT count(*), (SELECT n FROM counter) FROM t", fmt.Sprintf("[[%d,%d]]", 3*each, 3*each), peers...)
	g.same()

	// Apart: one is away, and writes alone once it is back and the others are gone.
	g.must(c.Kill())
	together(each, a, b)
	g.must(a.Stop())
	g.must(b.Kill())
	g.must(c.Start(g.ctx))
	write(c, each)
	g.must(os.RemoveAll(filepath.Join(a.Dir, "data", "sql")))
	g.must(a.Start(g.ctx))
	g.must(b.Start(g.ctx))
	g.rows("SELECT count(*), (SELECT n FROM counter) FROM t", fmt.Sprintf("[[%d,%d]]", 6*each, 6*each), peers...)
	g.same()
	query := `{"action":"query","sql":"SELECT * FROM t ORDER BY id"}`
	want := g.invoke(a, http.StatusOK, nil, query, database, "tinycloud.sql/read").Body
	for _, p := range peers[1:] {
		if got := g.invoke(p, http.StatusOK, nil, query, database, "tinycloud.sql/read").Body; got != want {
			t.Errorf("%s has %s\n%s has %s", a.Name, want, p.Name, got)
		}
	}
	g.sameContent(2+6*2*each, peers...)
	g.operated(c, 6*each)
	info := g.call(a, http.StatusOK, http.MethodGet, "/info", "", nil, http.NoBody)
	if !strings.Contains(info.Body, `"sql"`) {
		t.Errorf("info %s", info.Body)
	}
	for _, p := range peers {
		g.must(p.Stop())
		g.verb(p, "verify")
	}
}

// operated holds that the operator sees at a peer what its users have in their database: by queries, as a file, and counted.
func (g *group) operated(p *cluster.Peer, rows int) {
	g.Helper()
	space, name := g.owner.Space.String(), strings.TrimPrefix(database, "sql/")
	if out := g.verb(p, "sql", space, name, "SELECT count(*) AS n FROM t", "--json"); !strings.Contains(strings.Join(strings.Fields(out), ""), fmt.Sprintf(`"rows":[[%d]]`, rows)) {
		g.Errorf("%s: the operator reads %s", p.Name, out)
	}
	file := filepath.Join(g.TempDir(), "notes.db")
	g.verb(p, "databases", space, name, "--export", file)
	db, err := sql.Open("sqlite", file)
	g.must(err)
	var n int
	var sound string
	g.must(db.QueryRow("SELECT count(*), (SELECT integrity_check FROM pragma_integrity_check) FROM t").Scan(&n, &sound))
	g.must(db.Close())
	if n != rows || sound != "ok" {
		g.Errorf("%s: exported %d rows, %s", p.Name, n, sound)
	}
	values, _ := g.scrape(p)
	for _, name := range []string{
		`tinycloud_sql_writes_total{outcome="durable"}`, `tinycloud_sql_run_total{outcome="applied"}`, "tinycloud_sql_follow_lag_seconds_count", "tinycloud_sql_open_databases",
		"tinycloud_database_bytes",
	} {
		if values[name] == 0 {
			g.Errorf("%s: %s stands still", p.Name, name)
		}
	}
}

// A replica that nobody asks anything of its databases tells who listens there of every table that the origin changes, also when
// it is killed in between, each once.
func TestTablesWhileAPeerRestarts(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 2)
	g.same()
	origin, replica := g.nodes.Peers()[0], g.nodes.Peers()[1]
	var epochs, told []string
	write := func(n int) {
		for range n {
			epochs = append(epochs, g.run(origin, "INSERT INTO t DEFAULT VALUES").Header.Get("TinyCloud-Epoch")+":0")
		}
	}
	g.run(origin, "CREATE TABLE t(id INTEGER PRIMARY KEY)")
	g.same()
	first, ready := make(chan error, 1), make(chan struct{})
	go func() {
		first <- g.eventsOf(g.ctx, replica, "sql", "notes/t", "", func(e event) bool {
			if told = append(told, e.ID); len(told) == 1 {
				close(ready)
			}
			return len(told) < 10
		})
	}()
	for started := false; !started; {
		write(1)
		select {
		case <-ready:
			started = true
		case err := <-first: // it was told enough while this wrote
			g.must(err)
			first <- nil
			started = true
		default:
		}
	}
	write(12)
	g.must(<-first)
	missed := slices.Index(epochs, told[0]) // before the stream was open
	g.must(replica.Kill())
	write(5)
	g.must(replica.Start(g.ctx))
	write(5)
	g.must(g.eventsOf(g.ctx, replica, "sql", "xyz.app/notes/t", told[len(told)-1], func(e event) bool {
		if e.Type != "write" || e.Path != "notes/t" {
			t.Errorf("event %+v", e)
		}
		told = append(told, e.ID)
		return len(told) < len(epochs)-missed
	}))
	if missed < 0 || !slices.Equal(told, epochs[missed:]) {
		t.Errorf("told %v\nwritten %v", told, epochs)
	}
}
