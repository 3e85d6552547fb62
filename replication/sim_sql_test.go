//go:build !race

package replication_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/oracletest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire/wiretest"
)

const simDatabases = 3

// newerDatabase is one on which somebody writes by rules that nobody here knows.
const newerDatabase = "db/newer"

// errSQLite is the error of statements that fail.
var errSQLite = errors.New("SQLite error")

// clause is a statement of a request.
type clause struct {
	SQL    string `json:"sql"`
	Params []any  `json:"params,omitempty"`
}

const (
	createItems   = "CREATE TABLE IF NOT EXISTS items(id INTEGER PRIMARY KEY, name TEXT UNIQUE, n INTEGER, at DEFAULT CURRENT_TIMESTAMP, r DEFAULT (random()))"
	createCounter = "CREATE TABLE IF NOT EXISTS counter(id INTEGER PRIMARY KEY, n INTEGER)"
	createLog     = "CREATE TABLE IF NOT EXISTS log(key TEXT PRIMARY KEY)"
	insertLog     = "INSERT INTO log VALUES(?)"
	count         = "UPDATE counter SET n = n + 1"
)

// work is what apps do with a database: some statements, done whole or not at all.
func work(rng *rand.Rand) []clause {
	name := fmt.Sprint("item ", rng.IntN(12))
	migration := func(a ...string) []clause { return []clause{{SQL: a[rng.IntN(len(a))]}} }
	switch rng.IntN(16) {
	default:
		return []clause{{SQL: createItems}, {"INSERT INTO items(name, n) VALUES(?, ?)", []any{name, rng.IntN(100)}}}
	case 0, 1, 2: // and none deletes what a client has made a key for
		return []clause{{SQL: createLog}, {insertLog, []any{fmt.Sprint(rng.Uint64())}}}
	case 3, 4, 5:
		return []clause{{SQL: createCounter}, {SQL: "INSERT OR IGNORE INTO counter VALUES(1, 0)"}, {SQL: count}}
	case 6:
		return []clause{{"INSERT OR REPLACE INTO items(name, n) VALUES(?, 0), (?, 1)", []any{name, name + "b"}}}
	case 7:
		return []clause{{"UPDATE items SET n = n + 1, name = name || 'x' WHERE name > ?", []any{name}}}
	case 8:
		return []clause{{SQL: "DELETE FROM items WHERE id = (SELECT min(id) FROM items)"}}
	case 9: // by two versions of an app
		return migration("ALTER TABLE items ADD COLUMN extra TEXT DEFAULT 'none'", "ALTER TABLE items ADD COLUMN extra INTEGER DEFAULT 0",
			"ALTER TABLE items RENAME COLUMN extra TO other", "CREATE TABLE more(a, b)", "CREATE TABLE more(a UNIQUE)", "DROP TABLE more",
			"CREATE INDEX i ON items(n)", "CREATE UNIQUE INDEX u ON items(n)", "DROP INDEX IF EXISTS u")
	case 10:
		return []clause{{"INSERT INTO more VALUES(?)", []any{rng.IntN(5)}}, {"INSERT INTO items(name, extra) VALUES(?, 5)", []any{name}}}
	case 11: // a part of it fails, now and then
		return []clause{{"INSERT INTO items(name) VALUES(?)", []any{name + "c"}}, {"INSERT OR ROLLBACK INTO items(name) VALUES(?)", []any{name}}}
	case 12, 13:
		if rng.IntN(6) > 0 {
			return costly(40 + rng.IntN(8))
		}
		return []clause{{SQL: createItems}, {"INSERT INTO items(name) VALUES(?)", []any{strings.Repeat(name, 9000)}}} // of two parts
	}
}

// costly is a request that a value of 1 MiB leaves few steps for: 2 times the square of n and some more.
func costly(n int) []clause {
	list := "[1" + strings.Repeat(",1", n-1) + "]"
	return []clause{{SQL: createItems}, {"INSERT INTO items(n) SELECT length(zeroblob(300000)) + count(*) FROM json_each(?1) a, json_each(?1) b", []any{list}}}
}

func body(all []clause) string {
	b, err := json.Marshal(map[string]any{"action": "batch", "statements": all})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// database is one of few.
func (s *sim) database() string { return fmt.Sprint("db/", s.rng.IntN(simDatabases)) }

// operateDatabase does one operation of the workload on a database.
func (s *sim) operateDatabase(n *simNode, x *owner) {
	db, all := s.database(), work(s.rng)
	switch s.rng.IntN(10) {
	default:
		s.execute(n, s.sqlToken(n, x, db, "write"), db, all)
	case 0: // one token at two hosts
		tok := s.sqlToken(n, x, db, "write")
		for _, i := range s.rng.Perm(len(s.nodes))[:2] {
			s.execute(s.nodes[i], tok, db, all)
		}
	case 1: // two requests at once
		for _, i := range s.rng.Perm(len(s.nodes))[:2] {
			s.execute(s.nodes[i], s.sqlToken(s.nodes[i], x, db, "write"), db, work(s.rng))
		}
	case 2:
		_, _, err := s.ask(n, s.sqlToken(n, x, db, "read"), db, `{"action":"query","sql":"SELECT * FROM items"}`)
		s.done(n, "reads "+db, err)
	}
}

// sqlToken signs an invocation on a database that the host's clock takes for timely.
func (s *sim) sqlToken(n *simNode, x *owner, db, ability string) *capstore.Token {
	return must(capstore.ParseInvocation(x.session.Invoke(captest.TokenOptions{
		Caps:   captest.Caps{s.o.space.String() + "/sql/" + db: {"tinycloud.sql/" + ability}},
		Proofs: []tinycloud.Hash{captest.ID(x.header)}, Nonce: fmt.Sprint("nonce ", s.rng.Uint64()),
		Expires: n.clock().Add(time.Minute),
	})))
}

func (s *sim) execute(n *simNode, tok *capstore.Token, db string, all []clause) {
	_, epoch, err := s.ask(n, tok, db, body(all))
	if err == nil && epoch != "" {
		s.acked = append(s.acked, ack{by: n, event: tok.ID, db: db})
	}
	last := all[len(all)-1].SQL
	s.done(n, fmt.Sprintf("%s %s (%s)", db, last[:min(len(last), 40)], tok.ID.EventID()[:14]), err)
}

// ask invokes a database of a host.
func (s *sim) ask(n *simNode, tok *capstore.Token, db, body string) (answer, epoch string, err error) {
	ctx := context.Background()
	if err := n.store.Admit(ctx, tok); err != nil {
		return "", "", err
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/invoke", strings.NewReader(body))
	err = n.databases.Invoke(w, r, service.Call{Store: n.store, Token: tok, Space: s.o.space, Path: db, Ability: tok.Caps[0].Ability})
	if err != nil && strings.HasPrefix(err.Error(), errSQLite.Error()) {
		err = fmt.Errorf("%w: %w", errSQLite, err)
	}
	return w.Body.String(), w.Header().Get("TinyCloud-Epoch"), err
}

// damage does something to the files of a host's databases while it is stopped.
func (s *sim) damage(n *simNode) {
	s.rouse()
	n.stop()
	defer n.start(s.t)
	files := must(filepath.Glob(filepath.Join(n.dir, "sql", "*", "*", "*")))
	if len(files) == 0 {
		return
	}
	path := files[s.rng.IntN(len(files))]
	b := must(os.ReadFile(path))
	what, err := "is gone", error(nil)
	switch kind := s.rng.IntN(4); {
	case kind == 0:
		err = os.Remove(path)
	case kind == 1:
		what, err = "and all else is gone", os.RemoveAll(filepath.Join(n.dir, "sql"))
	case kind == 2 && len(b) > 0:
		what, err = "is cut", os.Truncate(path, s.rng.Int64N(int64(len(b))))
	case len(b) > 0:
		b[s.rng.IntN(len(b))] ^= 1 << s.rng.IntN(8)
		what, err = "is another", os.WriteFile(path, b, 0o600)
	}
	s.note("%s: %s of a database %s: %v", n.name, filepath.Base(path), what, err)
}

// lieOfDatabase is [sim.lie] about a database.
func (s *sim) lieOfDatabase(liar *simNode, log []own, bundles []hostlog.Bundle) {
	on := log[max(0, len(log)-1-s.rng.IntN(2))]
	before := func(at time.Time) own { // the last entry of the liar before a time: others may follow it, too
		i := len(log) - 1
		for ; i > 0 && log[i].at.After(at); i-- {
		}
		return log[i]
	}
	l := oracletest.Lie{Space: s.o.space, Key: liar.key(), At: time.Now(), Parents: liar.status().Heads}
	db, x, ability, all, off, beside := s.database(), s.o, "write", work(s.rng), time.Duration(0), captest.Caps{}
	rules := uint64(engine.Newest)
	what := "writes"
	switch s.rng.IntN(10) {
	case 0, 1, 2:
		db, l.Event, l.At = s.oldToken(bundles)
		if db == "" {
			return
		}
		what, on, l.Parents = "puts another request under an old token of", before(l.At), nil
	case 3:
		what, off = "gives another time to a request of", time.Duration(s.rng.IntN(600)-300)*time.Second
	case 4:
		what, ability = "writes with a token that lets read", "read"
	case 5:
		what, all = "asks much of", costly(60+s.rng.IntN(50))
	case 6:
		what, l.At, l.Parents = "writes long ago to", l.At.Add(-time.Duration(s.rng.IntN(110))*time.Second), nil
		on = before(l.At)
	case 7:
		what, beside = "writes a key beside", captest.Caps{s.o.space.String() + "/kv/k/0": {"tinycloud.kv/put"}}
		l.Write = &oracletest.Write{Key: "k/0", Value: []byte("beside")}
	case 9:
		what, db, rules = "writes by rules of tomorrow to", newerDatabase, engine.Newest+1
	case 8:
		what, x = "writes for a session that may be revoked to", s.extra[s.rng.IntN(len(s.extra))]
	}
	l.N, l.Prev, l.Parents = on.n+1, on.digest, append(l.Parents, on.epoch)
	slices.SortFunc(l.Parents, func(a, b tinycloud.Hash) int { return slices.Compare(a[:], b[:]) })
	l.Parents = slices.Compact(l.Parents)
	if l.Event == nil {
		beside[s.o.space.String()+"/sql/"+db] = []string{"tinycloud.sql/" + ability}
		l.Event = must(capstore.ParseInvocation(x.session.Invoke(captest.TokenOptions{
			Caps: beside, Proofs: []tinycloud.Hash{captest.ID(x.header)}, Nonce: fmt.Sprint("nonce ", s.rng.Uint64()), Expires: time.Now().Add(time.Minute),
		}))).Bytes
	}
	o := request.Operation{Now: l.At.Add(off).UnixMilli(), Rules: rules, Request: must(request.Parse([]byte(body(all))))}
	l.Ops = must(o.Encode(db))
	s.send(liar, fmt.Sprint(what, " ", db), wiretest.BatchMessage(l.Sign()))
}

// oldToken is one that wrote to a database, and a time a little before or behind that.
func (s *sim) oldToken(bundles []hostlog.Bundle) (db string, event []byte, at time.Time) {
	st := must(oracletest.Fold(bundles, oracletest.Rules{}))
	all := databases(st)
	if len(all) == 0 {
		return "", nil, at
	}
	db = all[s.rng.IntN(len(all))]
	calls := callsOn(st, db)
	c := calls[s.rng.IntN(len(calls))]
	return db, c.Token.Bytes, time.UnixMilli(c.Written).Add(time.Duration(s.rng.IntN(20)-15) * time.Second)
}
