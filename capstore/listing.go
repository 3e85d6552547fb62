package capstore

import (
	"cmp"
	"context"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// listing is a query of an account's delegations under way.
type listing struct {
	*chain
	want          DelegationQuery
	owner, signer tinycloud.Principal
	now           time.Time
	age           int64 // with cid: the last delegation looked at
	cid           string
	account       []string // its keys, once they are found
}

// start goes to where the cursor points. It may be any delegation that could have been listed.
func (l *listing) start(ctx context.Context) error {
	if l.want.After.IsZero() {
		return nil
	}
	t, err := l.s.token(ctx, l.q, l.want.After)
	if err != nil {
		return err
	}
	if t != nil && t.Kind == token.Delegation {
		seen, err := l.visible(ctx, t)
		if err != nil {
			return err
		}
		if seen {
			l.age, l.cid = ageOf(t), t.ID.EventID()
			return nil
		}
	}
	return tinycloud.Refuse(tinycloud.ErrInvalid, "Invalid delegation query: invalid delegation query cursor")
}

type listedRow struct {
	age     int64
	cid     string
	granted bool
}

// page looks at delegations in order until the page is full, there are no more, or enough were looked at.
func (l *listing) page(ctx context.Context) (p DelegationPage, err error) {
	for scanned := 0; scanned < maxScanned; scanned += queryChunk {
		rows, err := l.rows(ctx, queryChunk)
		if err != nil {
			return p, err
		}
		for _, row := range rows {
			l.age, l.cid = row.age, row.cid
			r, ok, err := l.record(ctx, row)
			if err != nil {
				return p, err
			}
			if !ok {
				continue
			}
			if len(p.Records) == l.want.Limit {
				p.Next = p.Records[len(p.Records)-1].ID
				return p, nil
			}
			p.Records = append(p.Records, r)
		}
		if len(rows) < queryChunk {
			return p, nil
		}
	}
	if len(p.Records) == l.want.Limit {
		p.Next = p.Records[len(p.Records)-1].ID
		return p, nil
	}
	p.Next, err = tinycloud.ParseCID(l.cid)
	return p, err
}

// rows reads the next delegations to which a key of the account is a party. Per key no more than n are read.
func (l *listing) rows(ctx context.Context, n int) ([]listedRow, error) {
	if l.account == nil {
		if err := l.keys(ctx); err != nil {
			return nil, err
		}
	}
	granted := map[listedRow]bool{} // by a row without its granted
	for _, did := range l.account {
		err := l.s.db.Read.Each(ctx, func(scan db.Scan) error {
			var r listedRow
			var role int
			err := scan(&r.age, &r.cid, &role)
			granted[r] = granted[r] || role == roleDelegator
			return err
		}, "SELECT age, cid, role FROM parties WHERE did = ? AND age >= ? AND (age > ? OR cid > ?) ORDER BY age, cid LIMIT ?",
			did, l.age, l.age, l.cid, 2*n)
		if err != nil {
			return nil, err
		}
	}
	out := make([]listedRow, 0, len(granted))
	for r, g := range granted {
		r.granted = g
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b listedRow) int { return cmp.Or(cmp.Compare(a.age, b.age), cmp.Compare(a.cid, b.cid)) })
	return out[:min(n, len(out))], nil
}

// keys finds the keys of the account, nearest to its owner first.
func (l *listing) keys(ctx context.Context) error {
	owner := indexed(l.owner)
	l.account = []string{owner}
	if signer := indexed(l.signer); signer != owner {
		l.account = append(l.account, signer)
	}
	known := map[string]bool{l.account[0]: true, l.account[len(l.account)-1]: true}
	for i := 0; i < len(l.account) && len(l.account) < maxAccount; i++ {
		err := l.s.db.Read.Each(ctx, func(scan db.Scan) error {
			var did string
			err := scan(&did)
			if err == nil && !known[did] && len(l.account) < maxAccount {
				known[did] = true
				l.account = append(l.account, did)
			}
			return err
		}, "SELECT delegatee FROM listers WHERE owner = ? AND delegator = ? ORDER BY delegatee LIMIT ?", owner, l.account[i], maxAccount)
		if err != nil {
			return err
		}
	}
	return nil
}

// record reads a delegation of the account; ok is false when it is not to be listed.
func (l *listing) record(ctx context.Context, row listedRow) (r DelegationRecord, ok bool, err error) {
	if l.want.Direction == "granted" && !row.granted || l.want.Direction == "received" && row.granted {
		return r, false, nil
	}
	id, err := tinycloud.ParseCID(row.cid)
	if err != nil {
		return r, false, err
	}
	r.Granted = row.granted
	r.Token, err = l.s.token(ctx, l.q, id)
	if err != nil || r.Token == nil || !l.inSpace(r.Token) {
		return r, false, err
	}
	if ok, err := l.visible(ctx, r.Token); err != nil || !ok {
		return r, false, err
	}
	r.Lifecycle, err = l.lifecycle(ctx, r.Token, l.now)
	if err != nil || r.State == StateUnavailable {
		return r, false, err
	}
	switch l.want.Status {
	case "", r.State:
		return r, true, nil
	case StateRevoked:
		return r, r.State == StateAncestorRevoked, nil
	}
	return r, false, nil
}

func (l *listing) inSpace(t *Token) bool {
	if l.want.Space == "" {
		return true
	}
	for _, s := range t.Spaces() {
		if s.String() == l.want.Space || s.Name() == l.want.Space {
			return true
		}
	}
	return false
}

// visible keeps an owner from looking into the delegations of a key by giving it, unasked, the right to list the
// owner's own.
func (l *listing) visible(ctx context.Context, t *Token) (bool, error) {
	if concerns(t, l.owner) || t.Signer == l.signer || t.Audience == l.signer {
		return true, nil
	}
	seen := map[tinycloud.Hash]bool{}
	for todo := t.Proofs; len(todo) > 0 && len(seen) < judge.MaxChain; todo = todo[1:] {
		if seen[todo[0]] {
			continue
		}
		seen[todo[0]] = true
		p, err := l.s.token(ctx, l.q, todo[0])
		if err != nil {
			return false, err
		}
		if p == nil {
			continue
		}
		if p.Signer == l.owner {
			return true, nil
		}
		todo = append(todo[:len(todo):len(todo)], p.Proofs...)
	}
	return false, nil
}
