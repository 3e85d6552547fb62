//go:build !race

package replication_test

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/oracletest"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire/wiretest"
)

// weather is what gossip meets; guarded by the fabric's lock.
type weather struct {
	loss int // percent
	rng  *rand.Rand
}

// lossy decides over gossip: whoever can't dial another does not reach it by gossip either.
func (s *sim) lossy() func(from, to peer.ID) bool {
	s.network.rng = rand.New(rand.NewPCG(s.seed, 10)) // not the schedule's, which would depend on who sends first
	return func(from, to peer.ID) bool {
		return s.f.deaf[[2]peer.ID{from, to}] || s.network.rng.IntN(100) < s.network.loss
	}
}

// fault brings about one, or ends one.
func (s *sim) fault() {
	n := s.pick()
	others := s.rng.Perm(len(s.nodes))
	a, b := s.nodes[others[0]], s.nodes[others[1]]
	kinds := []string{"loss", "partition", "asymmetry", "skew", "skew", "disk", "restart", "restore", "lie", "lie", "lie", "lie", "stranger", "rest", "rest", "files"}
	kind := kinds[s.rng.IntN(len(kinds))]
	switch kind {
	case "loss":
		s.setLoss(s.rng.IntN(3) * 30)
	case "partition":
		s.part(a, b, s.rng.IntN(3) > 0)
	case "asymmetry":
		s.deafen(a, b, s.rng.IntN(3) > 0)
	case "skew":
		by := time.Duration(s.rng.IntN(20*60)-10*60) * time.Second
		if s.rng.IntN(2) == 0 {
			by = 0 // a step back, or ahead
		}
		n.ahead.Store(int64(by))
		s.note("%s: its clock is off by %s", n.name, by)
	case "disk":
		s.breakDisk(n, !n.broken)
	case "restart":
		s.restart(n)
	case "restore":
		s.restore(n)
	case "lie":
		if liar := s.nodes[len(s.nodes)-1]; !liar.honest {
			s.lie(liar)
		}
	case "stranger":
		s.knock(n)
	case "rest":
		s.rest(n)
	case "files":
		s.damage(n)
	}
	s.faults[kind]++
}

func (s *sim) setLoss(percent int) {
	s.note("%d%% of gossip is lost", percent)
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	s.network.loss = percent
}

func (s *sim) part(a, b *simNode, apart bool) {
	s.note("%s and %s are apart: %t", a.name, b.name, apart)
	s.rouse()
	s.f.part(a.id, b.id, apart)
}

func (s *sim) deafen(a, b *simNode, deaf bool) {
	s.note("%s does not reach %s: %t", a.name, b.name, deaf)
	s.rouse()
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	s.f.deaf[[2]peer.ID{a.id, b.id}] = deaf
}

// restart stops a host and starts it, and now and then copies its database meanwhile.
func (s *sim) restart(n *simNode) {
	s.note("%s: restarts", n.name)
	s.rouse()
	n.stop()
	if !n.broken && s.rng.IntN(2) == 0 {
		s.note("%s: backup", n.name)
		n.backup = s.t.TempDir()
		if err := os.CopyFS(n.backup, os.DirFS(n.dir)); err != nil {
			s.t.Fatal(err)
		}
	}
	n.start(s.t)
}

// restore puts a host's backup in the place of its database. What nobody else had by then is lost.
func (s *sim) restore(n *simNode) {
	if n.backup == "" || n.broken {
		return
	}
	s.note("%s: is restored from its backup", n.name)
	s.rouse()
	synctest.Wait()
	before, held := s.everywhere(true), s.held()
	n.stop()
	if s.rng.IntN(2) == 0 { // the files of its databases stay
		err := errors.Join(os.RemoveAll(filepath.Join(n.backup, "sql")), os.CopyFS(filepath.Join(n.backup, "sql"), os.DirFS(filepath.Join(n.dir, "sql"))))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			s.t.Fatal(err)
		}
	}
	n.dir, n.backup = n.backup, ""
	n.start(s.t)
	n.tell = n.last                              // its operator has it, should the backup be older
	after, left := s.everywhere(false), s.held() // nobody asks a host that was removed
	maps.DeleteFunc(held, func(h tinycloud.Hash, _ bool) bool { return left[h] })
	maps.Copy(s.gone, held)
	for i := range s.acked {
		a := &s.acked[i]
		if !a.lost && !a.by.removed && a.by.honest && !before[a.event] {
			s.t.Errorf("%s acknowledged %s, and no host has it", a.by.name, a.event.EventID())
		}
		a.lost = a.lost || !after[a.event]
	}
}

// everywhere are the tokens that some host has, of those that were removed too or not.
func (s *sim) everywhere(removed bool) map[tinycloud.Hash]bool {
	out := map[tinycloud.Hash]bool{}
	for _, n := range s.nodes {
		if n.removed && !removed {
			continue
		}
		for id := range events(s.bundles(n)) {
			out[id] = true
		}
	}
	return out
}

// held are the values that some host has.
func (s *sim) held() map[tinycloud.Hash]bool {
	out := map[tinycloud.Hash]bool{}
	for _, n := range s.nodes {
		for _, h := range s.hashes(n.node, "SELECT hash FROM vals WHERE inline IS NOT NULL") {
			out[h] = true
		}
	}
	return out
}

// hashes are what a query selects from a host's database.
func (s *sim) hashes(n *node, query string) (out []tinycloud.Hash) {
	s.t.Helper()
	s.query(n, func(db *sql.DB) error {
		rows, err := db.Query(query)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var h []byte
			if err := rows.Scan(&h); err != nil {
				return err
			}
			out = append(out, tinycloud.Hash(h))
		}
		return rows.Err()
	})
	return out
}

// breakDisk lets every transaction of a host fail that adds an entry, or mends it.
func (s *sim) breakDisk(n *simNode, broken bool) {
	s.note("%s: its disk fails: %t", n.name, broken)
	synctest.Wait()
	query := "DROP TRIGGER IF EXISTS broken"
	if broken {
		query = "CREATE TRIGGER broken AFTER INSERT ON entries BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END"
	}
	s.query(n.node, func(db *sql.DB) error {
		_, err := db.Exec(query)
		return err
	})
	n.broken = broken
}

// query opens a host's database beside the host.
func (s *sim) query(n *node, f func(*sql.DB) error) {
	s.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(n.dir, "caps.db")+"?_pragma=busy_timeout(5000)")
	if err == nil {
		err = f(db)
		_ = db.Close()
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// rest has a host rest if the others agree. The node's part is played here: it wakes the host when it is dialed, has
// something new, or a connection between nodes is lost.
func (s *sim) rest(n *simNode) {
	if n.asleep {
		return
	}
	rest, err := n.r.Rest(context.Background())
	s.note("%s: rests: %v", n.name, err)
	if err != nil || !n.r.Rests(rest) {
		return
	}
	n.asleep = true
	n.missed.Store(false)
	n.leave()
}

// wake wakes the hosts that have a reason to.
func (s *sim) wake() {
	synctest.Wait()
	for _, n := range s.nodes {
		if n.asleep && (s.f.knocks(n.node) || n.missed.Load()) {
			s.note("%s: wakes", n.name)
			n.asleep = false
			n.wake(s.t)
		}
	}
}

// rouse wakes all that rest, as their nodes do when a connection is lost.
func (s *sim) rouse() {
	for _, n := range s.nodes {
		n.missed.Store(true)
		n.r.Rouse()
	}
	s.wake()
}

// knock lets who is no host try to get in.
func (s *sim) knock(n *simNode) {
	x := s.outside[0]
	s.note("a stranger knocks at %s", n.name)
	if err := x.Connect(context.Background(), peer.AddrInfo{ID: n.id}); err != nil {
		return
	}
	x.Authorise(n.id)
	if _, err := x.NewStream(s.t.Context(), n.id, wire.SyncProtocol); err == nil {
		s.t.Error("a stranger has a sync stream")
	}
}

// lies are what the liar remembers.
type lies struct {
	written map[string]tinycloud.Hash // epoch of its last write, by key
	junk    int
}

// own is an entry in a log, with what it takes to follow it.
type own struct {
	n             uint64
	at            time.Time
	digest, epoch tinycloud.Hash
}

// lie lets a host sign with its real key what no honest host signs, and send it to some.
func (s *sim) lie(liar *simNode) {
	bundles := s.bundles(liar)
	host := hostlog.Key(liar.key().Public().(ed25519.PublicKey))
	var log []own
	for _, b := range bundles {
		if b.Entry.Host == host {
			log = append(log, own{b.Entry.N, time.UnixMilli(b.Entry.At), b.Entry.Digest(), b.Entry.Epoch})
		}
	}
	if len(log) == 0 {
		return
	}
	slices.SortFunc(log, func(a, b own) int { return int(a.n) - int(b.n) })
	if s.rng.IntN(2) == 0 {
		s.lieOfDatabase(liar, log, bundles)
		return
	}
	on := log[max(0, len(log)-1-s.rng.IntN(2))] // another entry of that number may exist
	key := s.key()
	x := s.o
	l := oracletest.Lie{
		Space: s.o.space, Key: liar.key(), N: on.n + 1, Prev: on.digest, At: time.Now(), Parents: append(liar.status().Heads, on.epoch),
	}
	ability, expires := "tinycloud.kv/put", time.Now().Add(time.Minute)
	l.Write = &oracletest.Write{Key: key, Value: []byte(fmt.Sprint("lie ", s.rng.IntN(1000)))}
	what := "writes"
	switch s.rng.IntN(8) {
	case 0:
		what = "dates back"
		l.At = l.At.Add(-time.Duration(1+s.rng.IntN(20)) * time.Minute)
	case 1:
		what = "dates ahead"
		l.At = l.At.Add(time.Duration(1+s.rng.IntN(8)) * time.Minute)
	case 2:
		what = "takes an expired token"
		expires = time.Now().Add(-10 * time.Minute)
	case 3:
		what = "writes for a session that may be revoked"
		x = s.extra[s.rng.IntN(len(s.extra))]
	case 4:
		what = "deletes without a version, of what it saw long ago"
		l.Parents = []tinycloud.Hash{on.epoch}
		l.Write, l.Delete, ability = nil, &oracletest.Delete{Key: key}, "tinycloud.kv/del"
	case 5:
		what = "deletes up to far ahead"
		e, ok := s.lies.written[key]
		if !ok {
			break
		}
		l.Write, ability = nil, "tinycloud.kv/del"
		l.Delete = &oracletest.Delete{Key: key, Version: &capstore.Position{Seq: 1 << 40, Epoch: e}}
	case 6:
		what = "equivocates"
		on := log[s.rng.IntN(len(log))]
		l.N, l.Prev, l.Parents = on.n+1, on.digest, append(l.Parents, on.epoch)
	case 7:
		what = "sends junk"
		if s.lies.junk++; s.lies.junk%2 == 0 {
			s.send(liar, what, []byte("junk"))
			return
		}
	}
	slices.SortFunc(l.Parents, func(a, b tinycloud.Hash) int { return slices.Compare(a[:], b[:]) })
	l.Parents = slices.Compact(l.Parents)
	tok := must(capstore.ParseInvocation(x.session.Invoke(captest.TokenOptions{
		Caps:   captest.Caps{s.o.space.String() + "/kv/" + key: {ability}},
		Proofs: []tinycloud.Hash{captest.ID(x.header)}, Nonce: fmt.Sprint("nonce ", s.rng.Uint64()), Expires: expires,
	})))
	l.Event = tok.Bytes
	b := l.Sign()
	if l.Write != nil {
		if s.lies.written == nil {
			s.lies.written = map[string]tinycloud.Hash{}
		}
		s.lies.written[key] = b.Entry.Epoch
	}
	s.send(liar, fmt.Sprint(what, " ", key), wiretest.BatchMessage(b))
}

// send gives a message to some hosts that are connected with the liar.
func (s *sim) send(liar *simNode, what string, message []byte) {
	for _, n := range s.nodes {
		hear := s.rng.IntN(3) > 0
		if n == liar || !hear || n.asleep || !liar.end.IsAuthorised(n.id) || !n.end.IsAuthorised(liar.id) {
			continue
		}
		s.note("%s: %s, to %s: %v", liar.name, what, n.name, n.r.Check(context.Background(), liar.id, message))
	}
}

// heal ends all faults, and waits until what is dated ahead is due.
func (s *sim) heal() {
	s.note("all heals")
	s.setLoss(0)
	for i, a := range s.nodes {
		if a.broken {
			s.breakDisk(a, false)
		}
		a.ahead.Store(0)
		for _, b := range s.nodes[:i] {
			s.f.part(a.id, b.id, false)
			s.deafen(a, b, false)
			s.deafen(b, a, false)
		}
	}
	for range 25 {
		<-time.After(time.Minute)
		s.wake()
	}
	for _, n := range s.nodes {
		if !n.told() {
			s.t.Errorf("%s does not take its delegation", n.name)
		}
	}
}
