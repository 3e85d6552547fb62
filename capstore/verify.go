package capstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// Damage is a row that is not what its hash, its signature or the rules say.
type Damage struct {
	Space string // "" when it is of none
	What  string // fixed text of the kind
	Which string
}

// VerifyOptions say how [Store.VerifyStored] verifies.
type VerifyOptions struct {
	// Large verifies a value of the block store: its bytes have the hash, and it has the size. nil: they
	// are not looked at.
	Large func(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, size int64) error
	// Checked is told of each epoch, value and token that was looked at, with its bytes.
	Checked func(bytes int64)
}

// VerifyStored hashes and judges everything stored again and calls damaged for each thing that is wrong. It
// reports an error only when it cannot go on. The node must not be serving.
func (s *Store) VerifyStored(ctx context.Context, o VerifyOptions, damaged func(Damage)) error {
	if o.Checked == nil {
		o.Checked = func(int64) {}
	}
	v := &verifier{s: s, o: o, damaged: damaged}
	if err := v.lengths(ctx); err != nil || v.n > 0 {
		return err // nothing that reads rows may go on with those
	}
	if err := errors.Join(s.Review(ctx), s.Redate(ctx)); err != nil {
		return err
	}
	if err := v.tokens(ctx); err != nil {
		return err
	}
	all := map[tinycloud.SpaceID]int64{}
	s.mu.RLock()
	maps.Copy(all, s.ids)
	maps.Copy(all, s.imported)
	s.mu.RUnlock()
	for id, sid := range all {
		if err := v.space(ctx, id, sid); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
	}
	return nil
}

type verifier struct {
	s       *Store
	o       VerifyOptions
	damaged func(Damage)
	n       int // damages so far
	id      tinycloud.SpaceID
	sid     int64
}

func (v *verifier) tell(what, format string, args ...any) {
	v.n++
	space := ""
	if !v.id.IsZero() {
		space = v.id.String()
	}
	v.damaged(Damage{space, what, fmt.Sprintf(format, args...)})
}

func (v *verifier) each(ctx context.Context, f func(scan db.Scan) error, query string, args ...any) error {
	return v.s.db.Read.Each(ctx, f, query, args...)
}

// lengths checks columns whose values are taken for hashes and keys.
func (v *verifier) lengths(ctx context.Context) error {
	columns := map[string][]string{
		"spaces": {"host"}, "tokens": {"id"}, "mentions": {"id"}, "revoked": {"target", "revocation"}, "logs": {"host", "digest"},
		"entries": {"digest"}, "epochs": {"id"}, "events": {"id"}, "vals": {"hash"}, "wants": {"hash"}, "chains": {"host"}, "adoptions": {"id"},
	}
	for _, x := range v.s.held.tables {
		columns[x.Name] = x.Hashes
	}
	for _, table := range slices.Sorted(maps.Keys(columns)) {
		for _, column := range columns[table] {
			var n int
			query := fmt.Sprintf("SELECT count(*) FROM %s WHERE length(%s) <> %d", table, column, len(tinycloud.Hash{}))
			if _, err := v.s.db.Read.One(ctx, []any{&n}, query); err != nil {
				return err
			}
			if n > 0 {
				v.tell("column of a wrong length", "%s.%s: %d rows", table, column, n)
			}
		}
	}
	var n int
	_, err := v.s.db.Read.One(ctx, []any{&n}, "SELECT count(*) FROM entries WHERE (branch < ? AND length(sig) <> 64) OR (branch >= ? AND length(sig) <> 0)", chainBase, chainBase)
	if n > 0 {
		v.tell("column of a wrong length", "entries.sig: %d rows", n)
	}
	return err
}

func (v *verifier) tokens(ctx context.Context) error {
	return v.each(ctx, func(scan db.Scan) error {
		var id, b []byte
		var kind token.Kind
		if err := scan(&id, &kind, &b); err != nil {
			return err
		}
		v.o.Checked(int64(len(b)))
		if tinycloud.Sum(b) != tinycloud.Hash(id) {
			v.tell("token whose bytes are others", "%s", tinycloud.Hash(id).EventID())
			return nil
		}
		t, err := token.Decode(b, false)
		if err == nil {
			err = t.VerifySignature()
		}
		if err != nil || t.Kind != kind {
			v.tell("token that proves nothing", "%s: %v", tinycloud.Hash(id).EventID(), err)
		}
		return nil
	}, "SELECT id, kind, bytes FROM tokens")
}

// space verifies the rows of a Space by themselves and, if they are whole, what follows from them.
func (v *verifier) space(ctx context.Context, id tinycloud.SpaceID, sid int64) error {
	before := v.n
	v.id, v.sid = id, sid
	defer func() { v.id = tinycloud.SpaceID{} }()
	if err := errors.Join(v.epochs(ctx), v.entries(ctx), v.values(ctx), v.usage(ctx)); err != nil {
		return err
	}
	if v.n > before {
		return nil
	}
	if err := v.replay(ctx); err != nil || v.n > before || v.s.importedID(id) != 0 {
		return err
	}
	for _, x := range v.s.o.Services {
		x, ok := x.(service.Verifier)
		if !ok {
			continue
		}
		if err := x.Verify(ctx, v.s, id, func(what, which string) { v.tell(what, "%s", which) }); err != nil {
			return err
		}
	}
	return nil
}

// usage checks the count of the Space's bytes.
func (v *verifier) usage(ctx context.Context) error {
	var counted, held, past, retired, ops, written, sizes, noted int64
	_, err := v.s.db.Read.One(ctx, []any{&counted, &held, &past, &retired, &ops, &written, &sizes, &noted}, `SELECT bytes,
		(SELECT coalesce(sum(size), 0) FROM vals WHERE vals.sid = spaces.sid) + (SELECT coalesce(sum(size), 0) FROM pending WHERE pending.sid = spaces.sid),
		past, (SELECT coalesce(sum(size), 0) FROM past WHERE past.sid = spaces.sid),
		ops, (SELECT coalesce(sum(length(bytes)), 0) FROM ops WHERE ops.sid = spaces.sid AND ops.service <> ?),
		sizes, (SELECT coalesce(sum(size), 0) FROM sizes WHERE sizes.sid = spaces.sid) FROM spaces WHERE sid = ?`, dag.KV, v.sid)
	if err == nil && (counted != held-retired || past != retired) {
		v.tell("count of bytes that is wrong", "%d and %d past, should be %d and %d", counted, past, held-retired, retired)
	}
	if err == nil && (ops != written || sizes != noted) {
		v.tell("count of bytes that is wrong", "%d of operations and %d of states, should be %d and %d", ops, sizes, written, noted)
	}
	return err
}

// epochs checks the bytes of epochs, events and operations.
func (v *verifier) epochs(ctx context.Context) error {
	type row struct {
		eid       int64
		id, bytes []byte
		seq       uint64
		clock     []byte
	}
	return v.each(ctx, func(scan db.Scan) error {
		var r row
		if err := scan(&r.eid, &r.id, &r.seq, &r.clock, &r.bytes); err != nil {
			return err
		}
		v.o.Checked(int64(len(r.bytes)))
		id := tinycloud.Hash(r.id)
		e, err := dag.DecodeEpoch(r.bytes)
		if err != nil || tinycloud.Sum(r.bytes) != id {
			v.tell("epoch whose bytes are others", "%s", id)
			return nil
		}
		clock := decodeClock(r.clock)
		seq, sound, err := v.past(ctx, clock, e.Parents)
		if err != nil {
			return err
		}
		if seq != r.seq || !sound || !bytes.Equal(encodeClock(clock), r.clock) {
			v.tell("epoch whose place in the history is another", "%s", id)
		}
		return v.events(ctx, r.eid, id, e)
	}, "SELECT eid, id, seq, clock, bytes FROM epochs WHERE sid = ?", v.sid)
}

// past returns the seq that follows on epochs, and whether a clock covers them, with all before them, and
// nothing else. It need not name entries that came when it was made already.
func (v *verifier) past(ctx context.Context, clock judge.Clock, parents []tinycloud.Hash) (seq uint64, sound bool, err error) {
	most := judge.Clock{}
	sound = true
	for _, p := range parents {
		var eid int64
		var s uint64
		var theirs []byte
		found, err := v.s.db.Read.One(ctx, []any{&eid, &s, &theirs}, "SELECT eid, seq, clock FROM epochs WHERE sid = ? AND id = ?", v.sid, p[:])
		if err != nil {
			return 0, false, err
		}
		if !found {
			v.tell("epoch that is lost", "%s", p)
			continue
		}
		seq = max(seq, s+1)
		for b, n := range decodeClock(theirs) {
			sound = sound && clock.Has(judge.Spot{Branch: b, N: n})
			most.Add(judge.Spot{Branch: b, N: n})
		}
		covered := false
		err = v.each(ctx, func(scan db.Scan) error {
			var s judge.Spot
			err := scan(&s.Branch, &s.N)
			covered = covered || clock.Has(s)
			most.Add(s)
			return err
		}, "SELECT branch, n FROM entries WHERE eid = ?", eid)
		if err != nil {
			return 0, false, err
		}
		sound = sound && covered
	}
	for b, n := range clock {
		sound = sound && most.Has(judge.Spot{Branch: b, N: n})
	}
	return seq, sound, nil
}

func (v *verifier) events(ctx context.Context, eid int64, id tinycloud.Hash, e dag.Epoch) error {
	n := 0
	err := v.each(ctx, func(scan db.Scan) error {
		var event, b []byte
		var idx int
		if err := scan(&idx, &event, &b); err != nil {
			return err
		}
		v.o.Checked(int64(len(b)))
		if idx != n || idx >= len(e.Events) || e.Events[idx].Event != tinycloud.Hash(event) || tinycloud.Sum(b) != tinycloud.Hash(event) {
			v.tell("event whose bytes or place are others", "%s of epoch %s", tinycloud.Hash(event).EventID(), id)
		}
		n++
		return nil
	}, "SELECT idx, id, bytes FROM events WHERE eid = ? ORDER BY idx", eid)
	if err != nil {
		return err
	}
	ops := 0
	err = v.each(ctx, func(scan db.Scan) error {
		var idx, k int
		var key, b []byte
		var removes bool
		var of string
		if err := scan(&idx, &k, &of, &key, &removes, &b); err != nil {
			return err
		}
		ops++
		op, _, err := dag.ReadOperation(b)
		if err != nil || idx < 0 || idx >= len(e.Events) || k < 0 || k >= len(e.Events[idx].Ops) || e.Events[idx].Ops[k] != tinycloud.Sum(b) ||
			!bytes.Equal(key, v.key(op.Subject)) || op.Service != of || v.s.read(op).Removes != removes {
			v.tell("operation whose bytes or place are others", "%d/%d of epoch %s", idx, k, id)
		}
		return nil
	}, "SELECT o.idx, o.n, o.service, o.key, o.removes, o.bytes FROM ops o WHERE o.eid = ?", eid)
	want := 0
	for _, ev := range e.Events {
		want += len(ev.Ops)
	}
	if err == nil && (n != len(e.Events) || ops != want) {
		v.tell("epoch that is not whole", "%s: %d of %d events, %d of %d operations", id, n, len(e.Events), ops, want)
	}
	return err
}

// key is the form of a key that its column is searched by.
func (v *verifier) key(key string) []byte {
	switch k := v.s.key(key).(type) {
	case []byte:
		return k
	case string:
		return []byte(k)
	}
	return nil
}

// entries checks the log entries: digest, signature, and that each follows the one before.
func (v *verifier) entries(ctx context.Context) error {
	_, logs, err := v.s.lacking(ctx, v.sid, nil)
	if err != nil {
		return err
	}
	hosts := make([]hostlog.Key, len(logs))
	for i, l := range logs {
		hosts[i] = l.host
	}
	r := &reader{s: v.s, space: v.id, sid: v.sid, hosts: hosts}
	check := func(branch int, e hostlog.Entry, digest, sig []byte) {
		if branch >= len(hosts) {
			v.tell("log entry whose log is lost", "%d of branch %d", e.N, branch)
			return
		}
		e.Space, e.Host = v.id, hosts[branch]
		if e.N > 0 {
			var err error
			if e.Prev, err = r.prev(ctx, branch, e.N); err != nil {
				v.tell("log entry that is lost", "%d of %s", e.N-1, e.Host)
				return
			}
		}
		s, d := hostlog.Signature(sig), e.Digest()
		if d != tinycloud.Hash(digest) || !hostlog.Verify(e.Host, d, s) {
			v.tell("log entry whose bytes or signature are others", "%d of %s", e.N, e.Host)
		}
	}
	err = v.each(ctx, func(scan db.Scan) error {
		var branch int
		var e hostlog.Entry
		var id, digest, sig []byte
		if err := scan(&branch, &e.N, &e.At, &digest, &sig, &id); err != nil {
			return err
		}
		e.Epoch = tinycloud.Hash(id)
		check(branch, e, digest, sig)
		return nil
	}, "SELECT e.branch, e.n, e.at, e.digest, e.sig, p.id FROM entries e JOIN epochs p ON p.eid = e.eid WHERE e.sid = ? AND e.branch < ?", v.sid, chainBase)
	if err != nil {
		return err
	}
	if err := v.each(ctx, func(scan db.Scan) error {
		var branch int
		var e hostlog.Entry
		var digest, sig, list []byte
		if err := scan(&branch, &e.N, &e.At, &digest, &sig, &list); err != nil {
			return err
		}
		e.Import = tinycloud.Sum(list)
		check(branch, e, digest, sig)
		return nil
	}, "SELECT e.branch, e.n, e.at, e.digest, e.sig, i.list FROM imports i JOIN entries e ON e.sid = i.sid AND e.branch = i.branch AND e.n = i.n WHERE i.sid = ?", v.sid); err != nil {
		return err
	}
	return v.tips(ctx)
}

// tips checks that the logs end where their entries do, and have no gaps.
func (v *verifier) tips(ctx context.Context) error {
	return v.each(ctx, func(scan db.Scan) error {
		var branch, entries int64
		var n, last, first int64
		var digest, tip []byte
		var base *int64
		if err := scan(&branch, &n, &digest, &base, &entries, &last, &first, &tip); err != nil {
			return err
		}
		if last != n || !bytes.Equal(digest, tip) || entries != last-first+1 || first != 0 && base == nil {
			v.tell("log that does not end where its entries do", "branch %d", branch)
		}
		return nil
	}, `SELECT l.branch, l.n, l.digest, l.base_n, (SELECT count(*) FROM entries e WHERE e.sid = l.sid AND e.branch = l.branch),
		(SELECT coalesce(max(n), -1) FROM entries e WHERE e.sid = l.sid AND e.branch = l.branch),
		(SELECT coalesce(min(n), 0) FROM entries e WHERE e.sid = l.sid AND e.branch = l.branch),
		(SELECT digest FROM entries e WHERE e.sid = l.sid AND e.branch = l.branch AND e.n = l.n) FROM logs l WHERE l.sid = ?`, v.sid)
}
