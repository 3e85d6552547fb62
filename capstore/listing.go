package capstore

import (
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

// listing is a query of an account's delegations under way.
type listing struct {
	*chain
	want          DelegationQuery
	owner, signer tinycloud.Principal
	now           time.Time
	age           int64 // with cid: the last delegation looked at
	cid           string
}

// start goes to where the cursor points. It may be any delegation that could have been listed.
func (l *listing) start() error {
	if l.want.After.IsZero() {
		return nil
	}
	t, err := l.s.token(l.ctx, l.q, l.want.After)
	if err != nil {
		return err
	}
	if t != nil && t.Kind == judge.Delegation {
		seen, err := l.visible(t)
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
func (l *listing) page() (p DelegationPage, err error) {
	for scanned := 0; scanned < maxScanned; scanned += queryChunk {
		rows, err := l.rows(queryChunk)
		if err != nil {
			return p, err
		}
		for _, row := range rows {
			l.age, l.cid = row.age, row.cid
			r, ok, err := l.record(row)
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
func (l *listing) rows(n int) ([]listedRow, error) {
	var out []listedRow
	err := eachRow(l.ctx, l.s.read, func(scan func(...any) error) error {
		var r listedRow
		err := scan(&r.age, &r.cid, &r.granted)
		out = append(out, r)
		return err
	}, `WITH RECURSIVE account(did) AS (
		SELECT column1 FROM (VALUES (?1), (?2))
		UNION
		SELECT l.delegatee FROM account a JOIN listers l ON l.owner = ?1 AND l.delegator = a.did
		LIMIT ?3)
	SELECT p.age, p.cid, max(p.role = ?4) FROM account a JOIN parties p ON p.n IN (
		SELECT n FROM parties WHERE did = a.did AND (age, cid) > (?5, ?6) ORDER BY age, cid LIMIT ?7 * 2)
	GROUP BY p.age, p.cid ORDER BY p.age, p.cid LIMIT ?7`,
		string(l.owner), string(l.signer), maxAccount, roleDelegator, l.age, l.cid, n)
	return out, err
}

// record reads a delegation of the account; ok is false when it is not to be listed.
func (l *listing) record(row listedRow) (r DelegationRecord, ok bool, err error) {
	if l.want.Direction == "granted" && !row.granted || l.want.Direction == "received" && row.granted {
		return r, false, nil
	}
	id, err := tinycloud.ParseCID(row.cid)
	if err != nil {
		return r, false, err
	}
	r.Granted = row.granted
	r.Token, err = l.s.token(l.ctx, l.q, id)
	if err != nil || r.Token == nil || !l.inSpace(r.Token) {
		return r, false, err
	}
	if ok, err := l.visible(r.Token); err != nil || !ok {
		return r, false, err
	}
	r.Lifecycle, err = l.lifecycle(r.Token, l.now)
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
func (l *listing) visible(t *Token) (bool, error) {
	if concerns(t, l.owner) || t.Signer == l.signer || t.Audience == l.signer {
		return true, nil
	}
	seen := map[tinycloud.Hash]bool{}
	for todo := t.Proofs; len(todo) > 0 && len(seen) < judge.MaxChain; todo = todo[1:] {
		if seen[todo[0]] {
			continue
		}
		seen[todo[0]] = true
		p, err := l.s.token(l.ctx, l.q, todo[0])
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
