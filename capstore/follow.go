package capstore

import (
	"context"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// follow tells Committed what other processes write, until the context ends.
func (s *Store) follow(ctx context.Context) {
	if !s.db.Shared {
		return
	}
	tick := time.NewTicker(s.followEvery)
	defer tick.Stop()
	for {
		look := s.followOnce
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.others.heard:
		case <-s.others.wake:
			look = s.tellAll // what is known already
		}
		if err := look(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "cannot follow the database, trying again", "error", err)
		}
	}
}

func (s *Store) followOnce(ctx context.Context) error {
	if err := s.fresh(ctx); err != nil {
		return err
	}
	return s.tellAll(ctx)
}

// tellAll tells of the generations that the memory is up to.
func (s *Store) tellAll(ctx context.Context) error {
	o := &s.others
	for o.told < o.generation.Load() {
		if s.tellOwn(o.told + 1) {
			continue
		}
		rows, err := s.untold(ctx)
		if err != nil || len(rows) == 0 {
			return err
		}
		if rows[0].generation > o.told+1 {
			s.log.WarnContext(ctx, "missed what other processes wrote; replication finds it", "generations", rows[0].generation-o.told-1)
		}
		ahead := &relays{}
		for len(rows) > 0 {
			g, n := rows[0].generation, 1
			if g > ahead.upTo {
				if err := ahead.read(ctx, s, rows); err != nil {
					return err
				}
			}
			for n < len(rows) && rows[n].generation == g {
				n++
			}
			if settled, err := s.tellGeneration(ctx, rows[:n], ahead); err != nil || !settled {
				return err
			}
			o.told, rows = g, rows[n:]
		}
	}
	return nil
}

// tellOwn tells of a generation that is this process's own, as it remembers it.
func (s *Store) tellOwn(g int64) bool {
	o := &s.others
	o.mu.Lock()
	commits, mine := o.own[g]
	mine = mine && (o.pending == 0 || g < o.pending)
	if mine {
		delete(o.own, g)
	}
	o.mu.Unlock()
	if !mine {
		return false
	}
	for _, c := range commits {
		if s.o.Committed != nil {
			s.o.Committed(c)
		}
		if c.LastWrite.Compare(o.cursor) > 0 {
			o.cursor = c.LastWrite
		}
	}
	o.told = g
	return true
}

// untold reads whole generations that come next.
func (s *Store) untold(ctx context.Context) ([]commit, error) {
	for limit := maxBehind; ; limit *= 8 {
		rows, err := s.commits(ctx, s.db.Read, s.others.told, limit)
		if err != nil || len(rows) < limit {
			return rows, err
		}
		last := rows[len(rows)-1].generation // the limit may have cut it off
		rows = slices.DeleteFunc(rows, func(c commit) bool { return c.generation == last })
		if len(rows) > 0 {
			return rows, nil
		}
	}
}

// tellGeneration tells what one transaction did. It reports false when its outcome is not known yet.
func (s *Store) tellGeneration(ctx context.Context, rows []commit, ahead *relays) (bool, error) {
	o, g := &s.others, rows[0].generation
	o.mu.Lock()
	pending := o.pending
	own, mine := o.own[g]
	o.mu.Unlock()
	if pending != 0 && g >= pending {
		return false, nil
	}
	commits := own
	if !mine {
		var err error
		if commits, err = s.relayed(ctx, rows, ahead); err != nil {
			return false, err
		}
	}
	if s.o.Committed != nil {
		for _, c := range commits {
			s.o.Committed(c)
		}
	}
	for _, r := range rows {
		if r.last.Compare(o.cursor) > 0 {
			o.cursor = r.last
		}
	}
	o.mu.Lock()
	delete(o.own, g)
	o.mu.Unlock()
	return true, nil
}

// relayed makes commits of the rows of one transaction.
func (s *Store) relayed(ctx context.Context, rows []commit, ahead *relays) (out []Commit, err error) {
	ended := 0
	for _, r := range rows {
		ended += len(r.revoked) / 64
		c, err := s.relay(ctx, r, ahead)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	for i := range out {
		out[i].Ended, out[i].More = ended, i < len(out)-1
	}
	return out, nil
}

// relay makes a commit of what a transaction did in one Space.
func (s *Store) relay(ctx context.Context, row commit, ahead *relays) (c Commit, err error) {
	c = Commit{
		Commit:    hostlog.Commit{Remote: int(row.remote), Wants: int(row.wants), Own: int(row.entries), Opened: row.flags&flagOpened != 0},
		LastWrite: row.last, Created: row.flags&flagCreated != 0, Joins: row.flags&flagJoins != 0,
		Beside: row.flags&flagBeside != 0, Pairs: row.flags&flagPairs != 0,
	}
	if row.sid == 0 {
		return c, nil
	}
	if c.Space, err = s.nameOf(ctx, row.sid); err != nil || c.Space.IsZero() {
		return c, err
	}
	for h := range slices.Chunk(row.hosts, 32) {
		c.Revoked = append(c.Revoked, hostlog.Key(h))
	}
	entries, changes := s.o.Heeds(c.Space)
	if changes && row.last != (Cursor{}) {
		if c.Writes, _, _, err = s.ChangesSince(ctx, []tinycloud.SpaceID{c.Space}, s.others.cursor, maxWrites); err != nil {
			return c, err
		}
		c.Writes = slices.DeleteFunc(c.Writes, func(w Change) bool { return w.Cursor.Compare(row.last) > 0 })
	}
	if !entries {
		return c, nil
	}
	r := &reader{s: s, space: c.Space, sid: row.sid, hosts: make([]hostlog.Key, row.branch+1), maxValue: toldValue}
	r.hosts[row.branch] = s.hostKey(c.Space)
	for n := row.first; n < row.first+min(row.entries, maxTold); n++ {
		b, found := ahead.found[entryAt{row.sid, int(row.branch), uint64(n)}]
		if !found {
			if b, err = r.bundle(ctx, int(row.branch), uint64(n)); err != nil {
				return c, err
			}
		}
		c.Local = append(c.Local, b)
	}
	return c, nil
}

// nameOf is the Space of a number, zero if there is none.
func (s *Store) nameOf(ctx context.Context, sid int64) (id tinycloud.SpaceID, err error) {
	if id, ok := s.others.names.Get(sid); ok {
		return id, nil
	}
	var text string
	if ok, err := s.db.Read.One(ctx, []any{&text}, "SELECT space FROM spaces WHERE sid = ?", sid); err != nil || !ok {
		return id, err
	}
	if id, err = tinycloud.ParseSpaceID(text); err == nil {
		s.others.names.Add(sid, id)
	}
	return id, err
}
