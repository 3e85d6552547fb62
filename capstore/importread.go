package capstore

import (
	"context"
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// maxImportValues bounds the bytes of values that travel with an import entry; the others are told of.
const maxImportValues = 1 << 20

// importRow is a stored import entry.
type importRow struct {
	branch int
	entry  hostlog.Entry
	sig    hostlog.Signature
	list   []hostlog.Listed
}

// imports calls yield with the import entries from the given numbers on, in the order they arrived, in
// which parents come first.
func (r *reader) imports(ctx context.Context, yield func(hostlog.Bundle) error, from map[int]uint64) error {
	var rows []importRow
	err := r.s.db.Read.Each(ctx, func(scan db.Scan) error {
		var row importRow
		var digest, sig, list []byte
		if err := scan(&row.branch, &row.entry.N, &row.entry.At, &digest, &sig, &list); err != nil {
			return err
		}
		if n, wanted := from[row.branch]; !wanted || row.entry.N < n {
			return nil
		}
		var err error
		if row.list, err = hostlog.DecodeList(list); err != nil {
			return fmt.Errorf("stored import %d: %v: %w", row.entry.N, err, tinycloud.ErrUnavailable)
		}
		row.sig, row.entry.Import = hostlog.Signature(sig), tinycloud.Sum(list)
		rows = append(rows, row)
		return nil
	}, `SELECT i.branch, i.n, e.at, e.digest, e.sig, i.list FROM imports i JOIN entries e ON e.sid = i.sid AND e.branch = i.branch AND e.n = i.n
		WHERE i.sid = ? ORDER BY i.ord`, r.sid)
	if err != nil {
		return err
	}
	for _, row := range rows {
		b, err := r.importBundle(ctx, row)
		if err == nil {
			err = yield(b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) importBundle(ctx context.Context, row importRow) (hostlog.Bundle, error) {
	b := hostlog.Bundle{Entry: row.entry, Sig: row.sig}
	b.Entry.Space, b.Entry.Host = r.space, r.hosts[row.branch]
	if b.Entry.N > 0 {
		prev, err := r.prev(ctx, row.branch, b.Entry.N)
		if err != nil {
			return b, err
		}
		b.Entry.Prev = prev
	}
	size, seen := 0, map[tinycloud.Hash]bool{}
	for _, l := range row.list {
		var part hostlog.Bundle
		var eid int64
		found, err := r.s.db.Read.One(ctx, []any{&eid, &part.Epoch}, "SELECT eid, bytes FROM epochs WHERE sid = ? AND id = ?", r.sid, l.Epoch[:])
		if err == nil && !found {
			err = fmt.Errorf("imported epoch %s is lost: %w", l.Epoch, tinycloud.ErrUnavailable)
		}
		if err != nil {
			return b, err
		}
		if err := r.fill(ctx, &part, eid); err != nil {
			return b, err
		}
		b.Imported = append(b.Imported, hostlog.Imported{At: l.At, Epoch: part.Epoch, Events: part.Events, Ops: part.Ops})
		for _, v := range part.Values {
			if seen[v.Hash] {
				continue
			}
			seen[v.Hash] = true
			if size += len(v.Bytes); size > maxImportValues {
				b.Large = append(b.Large, hostlog.Large{Hash: v.Hash, Size: int64(len(v.Bytes))})
				continue
			}
			b.Values = append(b.Values, v)
		}
		b.Large = append(b.Large, part.Large...)
	}
	return b, nil
}
