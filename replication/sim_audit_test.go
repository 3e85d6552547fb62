//go:build !race

package replication_test

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/oracletest"
)

// audit checks what hosts promise (docs/replication.md, "What hosts promise"), from the set of log entries alone.
func (s *sim) audit() {
	s.t.Helper()
	hosts := s.hosts()
	bundles := s.bundles(hosts[0])
	set := entrySet(bundles)
	want, err := oracletest.Fold(bundles, oracletest.Rules{})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, n := range hosts {
		if !maps.Equal(entrySet(s.bundles(n)), set) {
			s.t.Errorf("%s has other entries than %s", n.name, hosts[0].name)
		}
		for _, d := range differences(want, s.observe(n)) {
			s.t.Errorf("%s: %s", n.name, d)
		}
		if lacking, parked := s.lacking(n.node), n.status().Parked; lacking != 0 || parked != 0 {
			s.t.Errorf("%s lacks %d values and waits for %d entries", n.name, lacking, parked)
		}
		s.readable(n)
	}
	s.auditDatabases(want, hosts...)
	s.auditAcks(events(bundles), want)
	s.auditBlame()
	s.auditStrangers(bundles)
	if len(s.faults) < 3 || s.ops < simOps || len(s.nodes) < 4 {
		s.t.Errorf("only %d operations on %d nodes with the faults %v", s.ops, len(s.nodes), s.faults)
	}
}

// observe reads from a host what [oracletest.Fold] computes.
func (s *sim) observe(n *simNode) (st oracletest.State) {
	ctx := context.Background()
	keys, _, err := kv.Of(n.store).List(ctx, s.o.space, "", "", 0)
	if err != nil {
		s.t.Fatal(err)
	}
	st.Keys = map[string]tinycloud.Hash{}
	for _, k := range keys {
		st.Keys[k] = must(kv.Of(n.store).Get(ctx, s.o.space, k)).Value
	}
	st.Conflicts = map[string]map[tinycloud.Hash]bool{}
	list, _, err := kv.Of(n.store).Conflicts(ctx, s.o.space, kv.ConflictCursor{}, 1000)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range list {
		if st.Conflicts[c.Key] == nil {
			st.Conflicts[c.Key] = map[tinycloud.Hash]bool{}
		}
		st.Conflicts[c.Key][c.Event] = true
	}
	status := n.status()
	st.Void, st.Heads = int(status.Void), slices.Clone(status.Heads)
	slices.SortFunc(st.Heads, func(a, b tinycloud.Hash) int { return slices.Compare(a[:], b[:]) })
	st.Invocations = map[tinycloud.Hash]int{}
	s.query(n.node, func(db *sql.DB) error {
		rows, err := db.Query("SELECT id, count(*) FROM events WHERE kind = 2 AND valid = 1 GROUP BY id")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id []byte
			var count int
			if err := rows.Scan(&id, &count); err != nil {
				return err
			}
			st.Invocations[tinycloud.Hash(id)] = count
		}
		return rows.Err()
	})
	return st
}

// differences tells in what two states differ.
func differences(want, got oracletest.State) (out []string) {
	if !maps.Equal(want.Keys, got.Keys) {
		out = append(out, fmt.Sprintf("keys %v, want %v", got.Keys, want.Keys))
	}
	if !reflect.DeepEqual(want.Conflicts, got.Conflicts) {
		out = append(out, fmt.Sprintf("conflicts %v, want %v", got.Conflicts, want.Conflicts))
	}
	if !slices.Equal(want.Heads, got.Heads) {
		out = append(out, fmt.Sprintf("heads %v, want %v", got.Heads, want.Heads))
	}
	if want.Void != got.Void {
		out = append(out, fmt.Sprintf("%d void epochs, want %d", got.Void, want.Void))
	}
	for id := range want.Invocations {
		if want.Invocations[id] != got.Invocations[id] {
			out = append(out, fmt.Sprintf("event %s is valid at %d places, want %d", id.EventID(), got.Invocations[id], want.Invocations[id]))
		}
	}
	for id := range got.Invocations {
		if want.Invocations[id] == 0 {
			out = append(out, fmt.Sprintf("event %s is valid, and should not be", id.EventID()))
		}
	}
	return out
}

// readable checks that every key's value is here.
func (s *sim) readable(n *simNode) {
	keys, _, err := kv.Of(n.store).List(context.Background(), s.o.space, "", "", 0)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, k := range keys {
		got := n.get(k)
		if got == "(none)" || got == "(on its way)" && !s.lost(must(kv.Of(n.store).Get(context.Background(), s.o.space, k)).Value) {
			s.t.Errorf("%s reads %s of %s", n.name, got, k)
		}
	}
}

// auditAcks checks that what an honest host acknowledged is there, and counts.
func (s *sim) auditAcks(have map[tinycloud.Hash]bool, st oracletest.State) {
	for _, a := range s.acked {
		if a.lost || a.by.removed || !a.by.honest {
			continue
		}
		if !have[a.event] {
			s.t.Errorf("%s acknowledged %s, which is lost", a.by.name, a.event.EventID())
		} else if st.Invocations[a.event] == 0 {
			s.t.Errorf("%s acknowledged %s, which is void", a.by.name, a.event.EventID())
		} else if a.db != "" && !slices.ContainsFunc(callsOn(st, a.db), func(c oracletest.Call) bool { return c.Token.ID == a.event }) {
			s.t.Errorf("%s acknowledged %s, of which %s knows nothing", a.by.name, a.event.EventID(), a.db)
		}
	}
}

// auditBlame checks that no host holds an honest one to be a liar.
func (s *sim) auditBlame() {
	for _, n := range s.nodes {
		for _, x := range s.nodes {
			if n.honest && x.honest && slices.Contains(n.accuses(), x.host()) {
				s.t.Errorf("%s accuses %s, which is honest", n.name, x.name)
			}
		}
	}
}

// auditStrangers checks that nobody got what was not for it: a stranger nothing, a removed host nothing
// of others that was written in knowledge of its removal.
func (s *sim) auditStrangers(bundles []hostlog.Bundle) {
	for _, x := range s.outside {
		if n := x.told.Load(); n > 0 {
			s.t.Errorf("a stranger got %d messages", n)
		}
	}
	for _, n := range s.nodes {
		if n.revocation.IsZero() {
			continue
		}
		self := hostlog.Key(n.key().Public().(ed25519.PublicKey))
		after := oracletest.Descendants(bundles, n.revocation)
		for _, b := range s.bundles(n) {
			if b.Entry.Host != self && after[b.Entry.Epoch] {
				s.t.Errorf("%s was removed and got entry %d of %s at %s", n.name, b.Entry.N, b.Entry.Host, time.UnixMilli(b.Entry.At))
			}
		}
	}
}

func entrySet(bundles []hostlog.Bundle) map[tinycloud.Hash]bool {
	out := map[tinycloud.Hash]bool{}
	for _, b := range bundles {
		out[b.Entry.Digest()] = true
	}
	return out
}
