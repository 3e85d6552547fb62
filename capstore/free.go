package capstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// release lets go of a value that the state of no service holds any more, in the transaction that changes the last one
// that did: it no longer counts in the quota. Where other hosts may bring it back it becomes past; else a small
// one is freed with its row, of a larger one the row, and its file goes with the next collection.
func (t *tx) release(sp *space, hash tinycloud.Hash) error {
	if sp.folding {
		return nil
	}
	if sp.dropped != nil {
		sp.dropped[hash] = struct{}{}
		return nil
	}
	if _, limited := t.s.limitOf(sp.id); !limited { // else what follows in the transaction may need the room
		t.released[sp] = append(t.released[sp], hash)
		return nil
	}
	return t.depart([]leaving{{sp: sp, hash: hash}})
}

// leave lets go of a value that is not current. It reports whether it is past now.
func (t *tx) leave(l *leaving) (retired bool, err error) {
	sp := l.sp
	keeps, err := t.keeps(sp)
	if err != nil {
		return false, err
	}
	if !keeps && !l.past {
		if err := t.unwant(sp, l.hash); err != nil {
			return false, err
		}
	}
	if !l.here {
		return false, nil
	}
	if keeps || l.past || sp.shared() {
		return true, t.retire(sp, l.hash, l.size)
	}
	if err := t.exec("DELETE FROM vals WHERE sid = ? AND hash = ?", sp.sid, l.hash[:]); err != nil {
		return false, err
	}
	return false, t.grow(sp, -l.size)
}

// forget deletes the rows of a table by values that nothing holds, current or of the past.
func (t *tx) forget(sp *space, table string) error {
	return t.exec("DELETE FROM "+table+" WHERE sid = ? AND NOT "+t.s.held.either(table+".sid", table+".hash"), sp.sid)
}

// sweep lets go of all values that nothing holds in a Space. Those of a Space that is imported and not hosted
// yet belong to what counts for nothing so far.
func (t *tx) sweep(sp *space) error {
	if sp.state == StateImporting || sp.state == StateImported {
		return nil
	}
	keeps, err := t.keeps(sp)
	if err != nil {
		return err
	}
	if !keeps {
		if err := t.forget(sp, "wants"); err != nil {
			return err
		}
	}
	if !keeps && !sp.shared() {
		if err := t.forget(sp, "vals"); err != nil {
			return err
		}
	}
	if err := t.retireAll(sp); err != nil { // what is left of those
		return err
	}
	return t.count(sp)
}

// Freed is what a collection gave back.
type Freed struct {
	Values int64
	Bytes  int64
}

// Sweep lets go of the values of a Space that nothing holds, of which there are some only after a crash of an older
// version or of what brought them, and frees those that are past for long.
func (s *Store) Sweep(ctx context.Context, id tinycloud.SpaceID) (freed Freed, err error) {
	var sid int64
	err = s.do(ctx, func(t *tx) error {
		sp, err := t.space(id)
		if err != nil {
			return err
		}
		sid = sp.sid
		if freed, err = counted(ctx, t, sid); err != nil {
			return err
		}
		return t.sweep(sp)
	})
	if err != nil {
		return Freed{}, err
	}
	if err := s.expire(ctx, id); err != nil {
		return Freed{}, err
	}
	left, err := counted(ctx, s.db.Read, sid)
	return Freed{freed.Values - left.Values, freed.Bytes - left.Bytes}, err
}

// counted counts the values of a Space that are here.
func counted(ctx context.Context, q querier, sid int64) (f Freed, err error) {
	_, err = q.One(ctx, []any{&f.Values, &f.Bytes}, "SELECT count(*), coalesce(sum(size), 0) FROM vals WHERE sid = ?", sid)
	return f, err
}

// Known reports whether the database knows a Space, hosted or only imported.
func (s *Store) Known(id tinycloud.SpaceID) bool { return s.Hosted(id) || s.importedID(id) != 0 }

// Held reports whether a Space holds a value, here or in the block store.
func (s *Store) Held(ctx context.Context, id tinycloud.SpaceID, hash tinycloud.Hash) (bool, error) {
	s.mu.RLock()
	sid := max(s.ids[id], s.imported[id])
	s.mu.RUnlock()
	var one int
	return s.db.Read.One(ctx, []any{&one}, "SELECT 1 FROM vals WHERE sid = ? AND hash = ?", sid, hash[:])
}

// Compact rewrites the database without the room of what was deleted. It takes as much room again while it
// runs.
func (s *Store) Compact(ctx context.Context) error {
	return s.maintain(ctx, "VACUUM")
}

// Snapshot writes a copy of the database as it is now to a file that is not there yet, while the store is in use. In
// the copy, Spaces that have met other hosts wait for the history of one of them: what this host signed later must
// come back before it signs anything else (docs/replication.md, "Restored hosts").
func (s *Store) Snapshot(ctx context.Context, path string) error {
	if err := s.maintain(ctx, "VACUUM INTO ?", path); err != nil {
		return err
	}
	file, err := sql.Open("sqlite", "file:"+path+"?_pragma=synchronous(FULL)")
	if err != nil {
		return err
	}
	_, err = file.ExecContext(ctx, "UPDATE spaces SET state = ? WHERE sid IN (SELECT sid FROM joins UNION SELECT sid FROM hosts)", stateRestored)
	return errors.Join(err, file.Close())
}

// maintain runs a statement that may not stand in a transaction, on a connection of its own.
func (s *Store) maintain(ctx context.Context, query string, args ...any) error {
	if s.o.Database == InMemory || s.db.Shared {
		return fmt.Errorf("only for a SQLite file, a server has its own means: %w", tinycloud.ErrUnsupported)
	}
	file, err := sql.Open("sqlite", "file:"+s.o.Database+"?_pragma=busy_timeout(60000)")
	if err != nil {
		return err
	}
	file.SetMaxOpenConns(1)
	_, err = file.ExecContext(ctx, query, args...)
	if err == nil {
		_, err = file.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	}
	return errors.Join(err, file.Close())
}
