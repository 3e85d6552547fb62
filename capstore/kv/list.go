package kv

import (
	"context"
	"errors"
	"slices"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// List returns up to limit keys that begin with a prefix and come after another, in byte order; more
// says that there are others. No limit is 0.
func (k *Keys) List(ctx context.Context, space tinycloud.SpaceID, prefix, after string, limit int) (keys []string, more bool, err error) {
	rows, err := k.store.Reader(ctx, space)
	if err != nil {
		return nil, false, err
	}
	r := keyRange{from: prefix}
	if after >= prefix && after != "" {
		r.from, r.after = after, true
	}
	if end, ok := prefixEnd(prefix); ok {
		r.to = end
	}
	if limit > 0 {
		r.limit = limit + 1
	}
	err = lister{rows}.each(ctx, r, func(row keyed) error {
		if limit > 0 && len(keys) == limit {
			more = true
			return errEnough
		}
		keys = append(keys, row.key)
		return nil
	})
	return keys, more, err
}

// prefixEnd returns the least string above all that begin with a prefix.
func prefixEnd(prefix string) (string, bool) {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] < 0xff {
			b[i]++
			return string(b[:i+1]), true
		}
	}
	return "", false
}

// keyRange is a range of keys in byte order.
type keyRange struct {
	from  string
	after bool   // without from itself
	to    string // first that is not in it; "" for none
	limit int    // rows that are needed; 0: all
	full  bool   // values and metadata too
}

// keyed is a live key and what it holds.
type keyed struct {
	key         string
	indexed     []byte // of a server
	value, meta []byte
}

// errEnough ends [lister.each].
var errEnough = errors.New("enough")

// keysAtOnce bounds the rows of one query to a server.
const keysAtOnce = 500

// lister reads live keys.
type lister struct{ service.Reader }

// each calls f for the live keys of a range in byte order, until it returns errEnough.
//
// A server's index holds long keys in a form that is in order only among keys of different heads. Keys of
// one head lie side by side: they are sorted here when a page holds all of them, else by the database.
func (l lister) each(ctx context.Context, r keyRange, f func(keyed) error) error {
	var err error
	if l.Dialect().Shared {
		err = l.pages(ctx, r, f)
	} else {
		err = l.query(ctx, r, false, f)
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

func (l lister) pages(ctx context.Context, r keyRange, f func(keyed) error) error {
	for {
		if len(r.from) >= db.KeyHead {
			if err := l.query(ctx, r, true, f); err != nil || !r.skipHead() {
				return err
			}
		}
		var page []keyed
		asked := r
		asked.limit = keysAtOnce
		if r.limit > 0 {
			asked.limit = min(r.limit, keysAtOnce)
		}
		err := l.query(ctx, asked, false, func(k keyed) error { page = append(page, k); return nil })
		if err != nil {
			return err
		}
		whole, last := wholeHeads(page, len(page) < asked.limit)
		for _, k := range whole {
			if r.to != "" && k.key >= r.to {
				continue // the bound is exact for short keys only
			}
			if err := f(k); err != nil {
				return err
			}
		}
		switch {
		case len(page) < asked.limit:
			return nil
		case len(whole) == len(page):
			r.from, r.after = last.key, true
		default:
			r.from, r.after = last.key[:db.KeyHead], false
		}
	}
}

// wholeHeads sorts the runs of long keys in a page. It returns the page without the run at its end, which
// may go on, and the row to go on from.
func wholeHeads(page []keyed, ends bool) (out []keyed, last keyed) {
	for i := 0; i < len(page); {
		j := i + 1
		if len(page[i].indexed) >= db.KeyHead {
			head := page[i].key[:db.KeyHead]
			for j < len(page) && strings.HasPrefix(page[j].key, head) {
				j++
			}
			if j == len(page) && !ends {
				return page[:i], page[i]
			}
			slices.SortFunc(page[i:j], func(a, b keyed) int { return strings.Compare(a.key, b.key) })
		}
		i = j
	}
	if len(page) > 0 {
		last = page[len(page)-1]
	}
	return page, last
}

// skipHead moves a range behind all keys that begin as its first one. It reports whether something is left.
func (r *keyRange) skipHead() bool {
	next, ok := prefixEnd(r.from[:db.KeyHead])
	if !ok || (r.to != "" && next >= r.to) {
		return false
	}
	r.from, r.after = next, false
	return true
}

// query asks for the keys of a range: by the index alone, or those of one head, sorted whole.
func (l lister) query(ctx context.Context, r keyRange, long bool, f func(keyed) error) error {
	columns, args := "k.key, k.whole", []any{l.Sid()}
	if r.full {
		columns += ", k.value, k.meta"
	}
	query, order := "SELECT "+columns+" FROM kv k WHERE k.sid = ? AND k.live = 1", "k.key"
	limited := func(by, op, bound string) {
		query, args = query+" AND "+by+op+"?", append(args, l.Dialect().Bytes(bound))
	}
	if long {
		head := r.from[:db.KeyHead]
		limited("k.key", " >= ", head)
		if end, ok := prefixEnd(head); ok {
			limited("k.key", " < ", end)
		}
		order = "coalesce(k.whole, k.key)"
	}
	if r.after {
		limited(order, " > ", r.from)
	} else {
		limited(order, " >= ", r.from)
	}
	if r.to != "" {
		limited(order, " < ", r.to)
	}
	query += " ORDER BY " + order
	if r.limit > 0 {
		query, args = query+" LIMIT ?", append(args, r.limit)
	}
	return l.Each(ctx, func(scan db.Scan) error {
		var k keyed
		var whole []byte
		dest := []any{&k.indexed, &whole, &k.value, &k.meta}
		if err := scan(dest[:2+2*flag(r.full)]...); err != nil {
			return err
		}
		if k.key = string(k.indexed); whole != nil {
			k.key = string(whole)
		}
		return f(k)
	}, query, args...)
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}
