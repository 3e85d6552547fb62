package capstore

import (
	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// release frees a value that no key of the Space holds: a small one with its row, of a larger one the row,
// and with it its share of the quota; its file goes with the next collection. A value whose key was
// overwritten or deleted is freed in the same transaction.
func (t *tx) release(sp *space, hash tinycloud.Hash) error {
	if sp.folding {
		return nil
	}
	var one int
	held, err := t.one([]any{&one}, "SELECT 1 FROM kv WHERE sid = ? AND value = ? AND live = 1 LIMIT 1", sp.sid, hash[:])
	if err != nil || held {
		return err
	}
	if err := t.exec("DELETE FROM wants WHERE sid = ? AND hash = ?", sp.sid, hash[:]); err != nil {
		return err
	}
	var size int64
	if here, err := t.one([]any{&size}, "SELECT size FROM vals WHERE sid = ? AND hash = ?", sp.sid, hash[:]); err != nil || !here {
		return err
	}
	if err := t.exec("DELETE FROM vals WHERE sid = ? AND hash = ?", sp.sid, hash[:]); err != nil {
		return err
	}
	return t.grow(sp, -size)
}

// sweep frees all values that no key of a Space holds. Those of a Space that is imported and not hosted
// yet belong to keys that count for nothing so far.
func (t *tx) sweep(sp *space) error {
	if sp.state == StateImporting || sp.state == StateImported {
		return nil
	}
	const unheld = " WHERE sid = ? AND hash NOT IN (SELECT value FROM kv WHERE sid = ? AND live = 1)"
	if err := t.exec("DELETE FROM wants"+unheld, sp.sid, sp.sid); err != nil {
		return err
	}
	if err := t.exec("DELETE FROM vals"+unheld, sp.sid, sp.sid); err != nil {
		return err
	}
	return t.exec("UPDATE spaces SET bytes = (SELECT coalesce(sum(size), 0) FROM vals WHERE sid = ?) WHERE sid = ?", sp.sid, sp.sid)
}
