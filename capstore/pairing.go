package capstore

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// Bounds of what is kept of other nodes.
const (
	MaxPaired = 256 // nodes
	maxPeerID = 128 // bytes of its text
)

// Pair remembers a node, durable when it returns. Of one that is paired already the addresses are added to, the new
// ones first, Back stays and so does Since. The error is of class [tinycloud.ErrBusy] when there are too many.
func (s *Store) Pair(ctx context.Context, p hostlog.PairedNode) error {
	if err := checkPaired(&p); err != nil {
		return err
	}
	return s.do(ctx, func(t *tx) error { return t.pair(p) })
}

func checkPaired(p *hostlog.PairedNode) error {
	switch {
	case p.Peer == "" || len(p.Peer) > maxPeerID:
		return fmt.Errorf("peer id of %d bytes: %w", len(p.Peer), tinycloud.ErrInvalid)
	case len(p.Addrs) > hostlog.MaxPairedAddrs:
		return fmt.Errorf("%d addresses of a node, at most %d: %w", len(p.Addrs), hostlog.MaxPairedAddrs, tinycloud.ErrInvalid)
	}
	for _, a := range p.Addrs {
		if len(a) > maxAddr {
			return fmt.Errorf("address of %d bytes, at most %d: %w", len(a), maxAddr, tinycloud.ErrInvalid)
		}
	}
	return nil
}

func (t *tx) pair(p hostlog.PairedNode) error {
	old, known, err := t.pairedNode(p.Peer)
	if err != nil {
		return err
	}
	if known {
		p.Back, p.Since = p.Back || old.Back, old.Since
		p.Addrs = addAddrs(p.Addrs, old.Addrs)
	} else if p.Since.IsZero() {
		p.Since = t.now
	}
	if !known {
		var have int
		if _, err := t.one([]any{&have}, "SELECT count(*) FROM paired"); err != nil {
			return err
		}
		if have >= MaxPaired {
			return tinycloud.Refuse(tinycloud.ErrBusy, "%d nodes are paired, and that is the most", have)
		}
	}
	p.Addrs = addAddrs(p.Addrs, nil)
	if known && p.Back == old.Back && slices.Equal(p.Addrs, old.Addrs) {
		return nil
	}
	addrs, err := json.Marshal(p.Addrs)
	if err != nil {
		return fmt.Errorf("paired node: %w", err)
	}
	t.pairs[p.Peer] = true
	return t.add(db.Insert{Into: "paired", Columns: "peer addrs back since", Key: "peer", Replace: true},
		p.Peer, string(addrs), p.Back, p.Since.UnixMilli())
}

// addAddrs returns each address once, as many as are kept.
func addAddrs(first, more []string) []string {
	out := make([]string, 0, hostlog.MaxPairedAddrs)
	for _, addrs := range [][]string{first, more} {
		for _, a := range addrs {
			if len(out) < hostlog.MaxPairedAddrs && !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

const pairedColumns = "SELECT peer, addrs, back, since FROM paired"

func scanPaired(scan db.Scan) (p hostlog.PairedNode, err error) {
	var addrs string
	var since int64
	if err := scan(&p.Peer, &addrs, &p.Back, &since); err != nil {
		return p, err
	}
	if err := json.Unmarshal([]byte(addrs), &p.Addrs); err != nil {
		return p, fmt.Errorf("paired node %s: damaged row: %v: %w", p.Peer, err, tinycloud.ErrUnavailable)
	}
	p.Since = time.UnixMilli(since).UTC()
	return p, nil
}

func (t *tx) pairedNode(id string) (p hostlog.PairedNode, ok bool, err error) {
	err = t.each(func(scan db.Scan) error {
		p, err = scanPaired(scan)
		ok = true
		return err
	}, pairedColumns+" WHERE peer = ?", id)
	return p, ok, err
}

// Paired returns the paired nodes by their peer ids in order.
func (s *Store) Paired(ctx context.Context) (out []hostlog.PairedNode, err error) {
	err = s.db.Read.Each(ctx, func(scan db.Scan) error {
		p, err := scanPaired(scan)
		out = append(out, p)
		return err
	}, pairedColumns+" ORDER BY peer")
	return out, err
}

// Unpair forgets a node, and the invites that it used: it can't come back by one. The error is of class
// [tinycloud.ErrNotFound] when it is not paired.
func (s *Store) Unpair(ctx context.Context, id string) error {
	return s.do(ctx, func(t *tx) error {
		_, known, err := t.pairedNode(id)
		if err != nil {
			return err
		}
		if !known {
			return fmt.Errorf("node %s is not paired: %w", id, tinycloud.ErrNotFound)
		}
		if err := t.exec("DELETE FROM invites WHERE used_by = ?", id); err != nil {
			return err
		}
		t.pairs[id] = false
		return t.exec("DELETE FROM paired WHERE peer = ?", id)
	})
}

// PairedWith reports whether a node is paired, from memory.
func (s *Store) PairedWith(id string) bool {
	_, ok := (*s.paired.Load())[id]
	return ok
}

// PairedCount returns how many nodes are paired, from memory.
func (s *Store) PairedCount() int { return len(*s.paired.Load()) }

// publishPairs brings the memory up to what the transaction did. The caller holds the store's lock.
func (t *tx) publishPairs() {
	if len(t.pairs) == 0 {
		return
	}
	paired := maps.Clone(*t.s.paired.Load())
	for id, in := range t.pairs {
		if in {
			paired[id] = struct{}{}
		} else {
			delete(paired, id)
		}
	}
	t.s.paired.Store(&paired)
}

// learnPaired reads which nodes are paired.
func (s *Store) learnPaired(ctx context.Context, q querier) error {
	found := map[string]struct{}{}
	err := q.Each(ctx, func(scan db.Scan) error {
		var id string
		err := scan(&id)
		found[id] = struct{}{}
		return err
	}, "SELECT peer FROM paired")
	if err == nil {
		s.paired.Store(&found)
	}
	return err
}
