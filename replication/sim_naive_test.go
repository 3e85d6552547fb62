//go:build !race

package replication_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/oracletest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/gate"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// played is a database as its calls make it, one after another in a file of its own.
type played struct {
	*engine.DB
	verdicts map[tinycloud.Hash]error // by event: why it did nothing
	kept     map[tinycloud.Hash]error // what is told of some instead
	steps    map[tinycloud.Hash]int64 // that a costly one took
	keys     map[string]bool          // of the rows that are in the table log
	counted  int                      // what the counter says
}

// odd are rules that a host may get wrong.
type odd struct {
	now  func(int64) int64        // the time at which a request runs
	skip map[tinycloud.Hash]error // why events do nothing
}

// play runs calls.
func (s *sim) play(db string, calls []oracletest.Call, wrong odd) *played {
	s.t.Helper()
	p := &played{verdicts: map[tinycloud.Hash]error{}, steps: map[tinycloud.Hash]int64{}, keys: map[string]bool{}}
	p.DB = must(engine.Create(filepath.Join(s.t.TempDir(), "played"), engine.Options{}))
	s.t.Cleanup(func() { _ = p.Close() })
	for _, c := range calls {
		o, held, err := s.readCall(db, c)
		if err == nil {
			err = wrong.skip[c.Token.ID]
		}
		if err == nil {
			if wrong.now != nil {
				o.Now = wrong.now(o.Now)
			}
			op := engine.Op{Key: c.Token.ID, Event: c.Token.ID, Index: c.At.Index, Now: o.Now, Rules: o.Rules, Request: &o.Request, Held: held}
			failed := p.Apply(context.Background(), []engine.Op{op}, func(_ *engine.Op, r engine.Result) {
				if err = r.Err; strings.Contains(o.Request.Statements[len(o.Request.Statements)-1].SQL, "zeroblob") {
					p.steps[c.Token.ID] = r.Cost.Steps
				}
			}, nil)
			if failed != nil {
				s.t.Fatal(failed)
			}
			s.always(db, &o.Request, held, err, p)
		}
		p.verdicts[c.Token.ID] = err
	}
	return p
}

// always counts what a request that can't fail has done.
func (s *sim) always(db string, q *request.Request, held gate.Held, err error, p *played) {
	last := q.Statements[len(q.Statements)-1]
	switch {
	case last.SQL != insertLog && last.SQL != count || held == gate.Reads:
		return
	case err != nil:
		s.t.Errorf("%s: %s %v: %v", db, last.SQL, last.Params, err)
	case last.SQL == count:
		p.counted++
	default:
		p.keys[last.Params[0].(string)] = true
	}
}

// readCall reads a request by docs/replication.md, "Services". The error says why it is void.
func (s *sim) readCall(db string, c oracletest.Call) (o request.Operation, held gate.Held, err error) {
	var parts []request.Part
	for _, b := range c.Ops {
		part, err := request.ReadPart(db, b, engine.Newest)
		if err != nil {
			return o, 0, err
		}
		parts = append(parts, part)
	}
	for _, x := range c.Token.Caps {
		if path, ok := x.Resource.Path(); ok && path == db && x.Resource.Service() == request.Service {
			held.Hold(x.Ability)
		}
	}
	if o, err = request.Join(parts); err != nil {
		return o, held, err
	}
	begins := c.Token.Expires.Add(-5 * time.Minute)
	if !c.Token.NotBefore.IsZero() {
		begins = c.Token.NotBefore
	}
	switch off := time.Duration(o.Now-c.Written) * time.Millisecond; {
	case c.Others > 0:
		return o, held, fmt.Errorf("%d operations beside it", c.Others)
	case off.Abs() > 2*time.Minute:
		return o, held, fmt.Errorf("its time is off by %s", off)
	case time.UnixMilli(o.Now).Before(begins.Add(-2 * time.Minute)):
		return o, held, fmt.Errorf("its time is before its token")
	}
	return o, held, nil
}

// asker answers a query.
type asker func(query string) (string, error)

func (p *played) ask(query string) (string, error) {
	q := &request.Request{Action: request.Query, Statements: []request.Statement{{SQL: query}}}
	b, err := p.Query(context.Background(), q, gate.Reads, nil)
	return string(b), err
}

// asks a host's database.
func (s *sim) asks(n *simNode, db string) asker {
	return func(query string) (string, error) {
		b, err := json.Marshal(map[string]string{"action": "query", "sql": query})
		if err != nil {
			return "", err
		}
		answer, _, err := s.ask(n, s.sqlToken(n, s.o, db, "read"), db, string(b))
		return answer, err
	}
}

// dump is all that a database holds, by the queries that tell it.
func dump(ask asker) (map[string]string, error) {
	out := map[string]string{}
	queries := []string{
		"SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid",
		"SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name",
	}
	for i := 0; i < len(queries); i++ {
		answer, err := ask(queries[i])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", queries[i], err)
		}
		if out[queries[i]] = answer; i != 1 {
			continue
		}
		var tables struct{ Rows [][]string }
		if err := json.Unmarshal([]byte(answer), &tables); err != nil {
			return nil, err
		}
		for _, t := range tables.Rows {
			queries = append(queries, fmt.Sprintf("SELECT rowid, * FROM %q ORDER BY rowid", t[0]))
		}
	}
	return out, nil
}

// unlike are the queries to which two databases give other answers.
func unlike(want, got map[string]string) (out []string) {
	for q := range want {
		if want[q] != got[q] {
			out = append(out, fmt.Sprintf("%s: %.400s, want %.400s", q, got[q], want[q]))
		}
	}
	for q := range got {
		if _, ok := want[q]; !ok {
			out = append(out, q+" is asked of nothing")
		}
	}
	slices.Sort(out)
	return out
}

// databases are those that somebody wrote, as far as anybody here can read it.
func databases(st oracletest.State) (out []string) {
	for of := range st.Calls {
		if of.Service == request.Service && of.Name != newerDatabase {
			out = append(out, of.Name)
		}
	}
	slices.Sort(out)
	return out
}

func callsOn(st oracletest.State, db string) []oracletest.Call {
	return st.Calls[oracletest.Subject{Service: request.Service, Name: db}]
}

// auditDatabases checks that hosts have the rows, row ids and verdicts that a history says, and that what clients were told is
// written counts.
func (s *sim) auditDatabases(st oracletest.State, hosts ...*simNode) {
	s.t.Helper()
	for _, db := range databases(st) {
		calls := callsOn(st, db)
		p := s.play(db, calls, odd{})
		want, err := dump(p.ask)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, n := range hosts {
			got, err := dump(s.asks(n, db))
			if err != nil {
				s.t.Errorf("%s: %s: %v", n.name, db, err)
				continue
			}
			for _, d := range unlike(want, got) {
				s.t.Errorf("%s: %s: %s", n.name, db, d)
			}
		}
		s.auditRows(db, p)
		s.auditOutcomes(db, calls, p, hosts[s.rng.IntN(len(hosts))])
	}
	for _, n := range hosts {
		if len(callsOn(st, newerDatabase)) > 0 {
			if _, err := s.asks(n, newerDatabase)("SELECT 1"); !errors.Is(err, tinycloud.ErrUnavailable) {
				s.t.Errorf("%s: %s, which only newer releases can read: %v", n.name, newerDatabase, err)
			}
		}
		if differ := n.databases.Differing(s.o.space); differ > 0 {
			s.t.Errorf("%s: another host has other content of %d databases", n.name, differ)
		}
	}
}

// auditRows checks what a database holds against what each request that can't fail has done.
func (s *sim) auditRows(db string, p *played) {
	keys, n := map[string]bool{}, 0
	var rows struct{ Rows [][]any }
	read := func(query string) [][]any {
		rows.Rows = nil
		if answer, err := p.ask(query); err == nil { // else there is no table
			if err := json.Unmarshal([]byte(answer), &rows); err != nil {
				s.t.Fatal(err)
			}
		}
		return rows.Rows
	}
	for _, row := range read("SELECT key FROM log") {
		keys[row[0].(string)] = true
	}
	for _, row := range read("SELECT n FROM counter") {
		n = int(row[0].(float64))
	}
	if !maps.Equal(keys, p.keys) || n != p.counted {
		s.t.Errorf("%s: %d rows of clients and a counter at %d, want %d and %d", db, len(keys), n, len(p.keys), p.counted)
	}
}

// told is what a host says became of a write.
type told struct {
	Applied   bool
	Error     string
	Hosts, Of int
}

func (s *sim) outcome(n *simNode, db string, c oracletest.Call) (out told) {
	s.t.Helper()
	answer, _, err := s.ask(n, s.sqlToken(n, s.o, db, "read"), db, `{"action":"outcome","epoch":"`+c.At.Epoch.EpochID()+`"}`)
	if err == nil {
		err = json.Unmarshal([]byte(answer), &out)
	}
	if err != nil || out.Hosts < 1 || out.Of < out.Hosts {
		s.t.Errorf("%s: %s: %s: outcome %s, %v", n.name, db, c.Token.ID.EventID(), answer, err)
	}
	return out
}

// auditOutcomes asks a host what became of some writes.
func (s *sim) auditOutcomes(db string, calls []oracletest.Call, p *played, n *simNode) {
	for range 4 {
		c := calls[s.rng.IntN(len(calls))]
		got, want := s.outcome(n, db, c), p.verdicts[c.Token.ID]
		if got.Applied != (want == nil) || strings.HasPrefix(got.Error, errSQLite.Error()) && got.Error != want.Error() {
			s.t.Errorf("%s: %s: %s: outcome %+v, want %v", n.name, db, c.Token.ID.EventID(), got, want)
		}
	}
}

// glimpseDatabases keeps what the host has got that has got least, and audits its databases by that, if asked to.
func (s *sim) glimpseDatabases(audit bool) {
	synctest.Wait()
	var least *simNode
	var bundles []hostlog.Bundle
	for _, n := range s.hosts() {
		if b := s.bundles(n); least == nil || len(b) < len(bundles) {
			least, bundles = n, b
		}
	}
	g := &glimpse{bundles: bundles}
	s.early = append(s.early, g)
	if audit && least.store.Present(context.Background(), s.o.space) == nil {
		s.auditDatabases(g.fold(s), least)
	}
}

// fold is what entries mean.
func (g *glimpse) fold(s *sim) oracletest.State {
	if g.state.Calls == nil {
		st, err := oracletest.Fold(g.bundles, oracletest.Rules{})
		if err != nil {
			s.t.Fatal(err)
		}
		g.state = st
	}
	return g.state
}
