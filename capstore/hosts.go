package capstore

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// maxForks bounds the proofs of a host that are shown.
const maxForks = 16

// Hosts returns the hosts that delegations in a Space's history name and that are not revoked, this
// node first.
func (s *Store) Hosts(ctx context.Context, id tinycloud.SpaceID) ([]hostlog.Host, error) {
	sp, err := s.loaded(ctx, id)
	if err != nil {
		return nil, err
	}
	known := map[hostlog.Key]*hostlog.Host{}
	out := []hostlog.Host{{Host: sp.host, Self: true, Met: true, Hello: s.Hello()}}
	s.eachHost(sp, func(h hostlog.Key, _ *Token) bool {
		if h != sp.host && known[h] == nil {
			known[h] = &hostlog.Host{Host: h}
		}
		return true
	})
	err = s.db.Read.Each(ctx, func(scan db.Scan) error {
		var host []byte
		var addrs, services string
		var seq, seen, rules int64
		if err := scan(&host, &addrs, &seq, &seen, &rules, &services); err != nil {
			return err
		}
		k := known[hostlog.Key(host)]
		if k == nil {
			return nil
		}
		k.Seq, k.Seen = uint64(seq), time.UnixMilli(seen)
		var err error
		if k.Hello, k.Met, err = told(rules, services); err != nil {
			return err
		}
		return json.Unmarshal([]byte(addrs), &k.Addrs)
	}, "SELECT host, addrs, seq, seen, rules, services FROM hosts WHERE sid = ?", sp.sid)
	if err != nil {
		return nil, err
	}
	known[sp.host] = &out[0]
	err = s.db.Read.Each(ctx, func(scan db.Scan) error {
		var host, first, second []byte
		var f hostlog.Fork
		err := scan(&host, &f.N, &first, &second)
		copy(f.Digests[0][:], first)
		copy(f.Digests[1][:], second)
		if k := known[hostlog.Key(host)]; err == nil && k != nil {
			if k.Forked = true; len(k.Forks) < maxForks {
				k.Forks = append(k.Forks, f)
			}
		}
		return err
	}, "SELECT host, n, first, second FROM equivocations WHERE sid = ? ORDER BY host, n, second", sp.sid)
	delete(known, sp.host)
	for _, k := range known {
		out = append(out, *k)
	}
	return out, err
}

// eachHost yields the delegations that make keys hosts of a Space now: in window and not revoked.
func (s *Store) eachHost(sp *space, yield func(hostlog.Key, *Token) bool) {
	now := s.o.Now()
	sp.mu.RLock()
	defer sp.mu.RUnlock()
	sp.facts.Hosts(func(h hostlog.Key, t *Token) bool {
		return s.isRevoked(t.ID) || !t.ValidAt(now, 0) || yield(h, t)
	})
}

// loaded returns the loaded form of a Space.
func (s *Store) loaded(ctx context.Context, id tinycloud.SpaceID) (sp *space, err error) {
	if err := s.fresh(ctx); err != nil {
		return nil, err
	}
	s.mu.RLock()
	sp = s.spaces[id]
	s.mu.RUnlock()
	if sp != nil {
		return sp, nil
	}
	err = s.do(ctx, func(t *tx) error {
		sp, err = t.space(id)
		return err
	})
	return sp, err
}

// SaveAddrs remembers the addresses of a host unless newer ones are known.
func (s *Store) SaveAddrs(ctx context.Context, id tinycloud.SpaceID, host hostlog.Key, addrs []string, seq uint64) error {
	b, err := json.Marshal(addrs)
	if err != nil || len(addrs) > 32 || len(b) > 8192 {
		return fmt.Errorf("%d addresses: %w", len(addrs), tinycloud.ErrInvalid)
	}
	return s.do(ctx, func(t *tx) error {
		sp, err := t.space(id)
		if err != nil {
			return err
		}
		if err := t.add(db.Insert{Into: "hosts", Columns: "sid host addrs seq", Key: "sid host"}, sp.sid, host[:], string(b), int64(seq)); err != nil {
			return err
		}
		return t.exec("UPDATE hosts SET addrs = ?, seq = ? WHERE sid = ? AND host = ? AND seq <= ?", string(b), int64(seq), sp.sid, host[:], int64(seq))
	})
}

// Seen remembers that a host is connected now.
func (s *Store) Seen(ctx context.Context, id tinycloud.SpaceID, host hostlog.Key) error {
	return s.do(ctx, func(t *tx) error {
		sp, err := t.space(id)
		if err != nil {
			return err
		}
		return t.add(db.Insert{Into: "hosts", Columns: "sid host seen", Key: "sid host", Replace: true}, sp.sid, host[:], t.now.UnixMilli())
	})
}

const maxAddr = 1024 // bytes

// AddJoin remembers addresses of a Space's hosts; it is idempotent. A Space without a write is joining then, see
// [Store.Present], unless the operator says that they have no history. One with writes of its own goes on answering.
func (s *Store) AddJoin(ctx context.Context, id tinycloud.SpaceID, addrs []string, empty bool) error {
	return s.addJoins(ctx, id, addrs, func(t *tx, sp *space) error {
		written, err := written(t.ctx, t, sp.sid)
		if err != nil {
			return err
		}
		switch {
		case sp.waits() && empty:
			t.openSpace(sp, hostlog.EndedByOperator)
		case sp.state == StateHosted && (empty || written):
			sp.setState(StateSynced)
		case sp.state == StateHosted:
			sp.setState(StateJoining)
			return t.startJoining(sp)
		}
		return nil
	})
}

// AddFound remembers addresses of a Space's hosts that this node was told of. It is [Store.AddJoin] but for the
// state: a Space that was opened to its clients stays open.
func (s *Store) AddFound(ctx context.Context, id tinycloud.SpaceID, addrs []string) error {
	return s.addJoins(ctx, id, addrs, func(*tx, *space) error { return nil })
}

func (s *Store) addJoins(ctx context.Context, id tinycloud.SpaceID, addrs []string, then func(*tx, *space) error) error {
	if err := checkJoin(addrs); err != nil {
		return err
	}
	return s.do(ctx, func(t *tx) error {
		sp, err := t.space(id)
		if err != nil {
			return err
		}
		if err := t.insertJoins(sp, addrs); err != nil {
			return err
		}
		t.touch(sp).Joins = true
		return then(t, sp)
	})
}

func checkJoin(addrs []string) error {
	for _, a := range addrs {
		if len(a) > maxAddr {
			return fmt.Errorf("address of %d bytes: %w", len(a), tinycloud.ErrInvalid)
		}
	}
	return nil
}

func (t *tx) insertJoins(sp *space, addrs []string) error {
	for _, a := range addrs {
		if err := t.add(db.Insert{Into: "joins", Columns: "sid addr state", Key: "sid addr"}, sp.sid, a, "waiting"); err != nil {
			return err
		}
	}
	return nil
}

// written reports whether an operation of a Space counts.
func written(ctx context.Context, q querier, sid int64) (yes bool, err error) {
	_, err = q.One(ctx, []any{&yes}, "SELECT EXISTS (SELECT 1 FROM ops WHERE sid = ? AND valid = 1)", sid)
	return yes, err
}

// Joins returns the addresses given for a Space.
func (s *Store) Joins(ctx context.Context, id tinycloud.SpaceID) ([]hostlog.Join, error) {
	sid, err := s.sid(ctx, id)
	if err != nil {
		return nil, err
	}
	var out []hostlog.Join
	err = s.db.Read.Each(ctx, func(scan db.Scan) error {
		var j hostlog.Join
		var tried int64
		if err := scan(&j.Addr, &j.State, &tried, &j.LastError); err != nil {
			return err
		}
		if tried > 0 {
			j.LastTry = time.UnixMilli(tried)
		}
		out = append(out, j)
		return nil
	}, "SELECT addr, state, tried, error FROM joins WHERE sid = ? ORDER BY addr", sid)
	return out, err
}

// SetJoin records the outcome of a try.
func (s *Store) SetJoin(ctx context.Context, id tinycloud.SpaceID, j hostlog.Join) error {
	return s.do(ctx, func(t *tx) error {
		sp, err := t.space(id)
		if err != nil {
			return err
		}
		return t.exec("UPDATE joins SET state = ?, tried = ?, error = ? WHERE sid = ? AND addr = ?", j.State, j.LastTry.UnixMilli(), j.LastError, sp.sid, j.Addr)
	})
}
