package capstore

import (
	"bytes"
	"context"
	"errors"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// What other processes wrote of this host's logs is read for several transactions and Spaces together, where it is used.

// entryAt is where an entry of this host stands.
type entryAt struct {
	sid    int64
	branch int
	n      uint64
}

// relays are entries that were read before they are told of.
type relays struct {
	found map[entryAt]hostlog.Bundle
	upTo  int64 // generation
}

// read reads the entries of the next rows, up to a page of them. What is not found so is read by itself.
func (r *relays) read(ctx context.Context, s *Store, rows []commit) error {
	var of []commit
	entries := 0
	r.found = nil
	for _, row := range rows {
		if row.entries == 0 || row.entries > maxPage || bytes.Equal(row.holder, s.me[:]) { // its own are remembered
			r.upTo = row.generation
			continue
		}
		id, err := s.nameOf(ctx, row.sid)
		if err != nil {
			return err
		}
		if needed, _ := s.o.Heeds(id); needed {
			if entries += int(row.entries); entries > maxPage {
				break
			}
			of = append(of, row)
		}
		r.upTo = row.generation
	}
	if len(of) < 2 {
		return nil
	}
	found, err := s.entriesOf(ctx, of)
	if errors.Is(err, errLargePage) {
		return nil
	}
	r.found = found
	return err
}

// entriesOf reads the entries of some rows.
func (s *Store) entriesOf(ctx context.Context, rows []commit) (map[entryAt]hostlog.Bundle, error) {
	p := &page{r: &reader{s: s, maxValue: toldValue}, of: map[int64][]int{}}
	var places []entryAt
	var eids []int64
	digests := map[entryAt]tinycloud.Hash{}
	wanted := map[entryAt]bool{} // others are those before the first
	for _, row := range rows {
		for n := row.first; n < row.first+row.entries; n++ {
			wanted[entryAt{row.sid, int(row.branch), uint64(n)}] = true
		}
	}
	cond, args := ranges(rows)
	err := s.db.Read.Each(ctx, func(scan db.Scan) error {
		var at entryAt
		var eid int64
		var b hostlog.Bundle
		var digest, sig, id []byte
		if err := scan(&at.sid, &at.branch, &at.n, &b.Entry.At, &digest, &sig, &eid, &id, &b.Epoch); err != nil {
			return err
		}
		digests[at] = tinycloud.Hash(digest)
		if !wanted[at] {
			return nil
		}
		b.Entry.N, b.Entry.Epoch, b.Sig = at.n, tinycloud.Hash(id), hostlog.Signature(sig)
		p.of[eid] = append(p.of[eid], len(places))
		places, eids, p.bundles = append(places, at), append(eids, eid), append(p.bundles, b)
		return p.grow(len(b.Epoch))
	}, "SELECT e.sid, e.branch, e.n, e.at, e.digest, e.sig, p.eid, p.id, p.bytes FROM entries e JOIN epochs p ON p.eid = e.eid WHERE "+cond, args...)
	if err != nil || len(eids) == 0 {
		return nil, err
	}
	if err := p.fill(ctx, eids); err != nil {
		return nil, err
	}
	found := map[entryAt]hostlog.Bundle{}
	for i, at := range places {
		b := p.bundles[i]
		if at.n > 0 {
			prev, known := digests[entryAt{at.sid, at.branch, at.n - 1}]
			if !known {
				continue // it is an import entry, or stands on a branch that this one forked from
			}
			b.Entry.Prev = prev
		}
		if b.Entry.Space, err = s.nameOf(ctx, at.sid); err != nil {
			return nil, err
		}
		b.Entry.Host = s.hostKey(b.Entry.Space)
		found[at] = b
	}
	return found, nil
}

// ranges is the condition for the entries of some rows and those before them, and its arguments: the last is repeated until
// there are a power of two of them, so that there are few texts to prepare.
func ranges(rows []commit) (cond string, args []any) {
	n := 1
	for n < len(rows) {
		n *= 2
	}
	for i := range n {
		row := rows[min(i, len(rows)-1)]
		args = append(args, row.sid, row.branch, row.first-1, row.first+row.entries-1)
	}
	const one = "e.sid = ? AND e.branch = ? AND e.n BETWEEN ? AND ?"
	return one + strings.Repeat(" OR "+one, n-1), args
}
