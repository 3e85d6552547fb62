package capstore

import (
	"context"
	"database/sql"
	"math"

	"github.com/pressly/goose/v3"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

const (
	roleDelegatee = 1
	roleDelegator = 2
)

const (
	abilityList   = "tinycloud.delegation/list"
	abilityStatus = "tinycloud.delegation/status"
)

// ageOf is what a delegation is listed by: how long before 1970 it was issued, in microseconds, so that the latest
// comes first. A UCAN does not say.
func ageOf(t *Token) int64 {
	if t.IssuedAt.IsZero() {
		return math.MaxInt64
	}
	return -t.IssuedAt.UnixMicro()
}

// manages reports whether a capability is an ability on the delegations of a whole Space:
// "<space>/delegation" with no path or the empty one.
func manages(c Capability, ability string) bool {
	r := c.Resource
	path, _ := r.Path()
	text := r.Space().String() + "/delegation"
	return c.Ability == ability && r.Service() == "delegation" && path == "" && (r.String() == text || r.String() == text+"/")
}

// saveParties enters a delegation in the indexes of its delegator and its delegatee.
func saveParties(t *Token, exec func(query string, args ...any) error) error {
	for role, did := range map[int]tinycloud.Principal{roleDelegator: t.Signer, roleDelegatee: t.Audience} {
		err := exec("INSERT OR IGNORE INTO parties (did, age, cid, role) VALUES (?,?,?,?)", string(did), ageOf(t), t.ID.EventID(), role)
		if err != nil {
			return err
		}
	}
	for _, c := range t.Caps {
		if !manages(c, abilityList) {
			continue
		}
		err := exec("INSERT OR IGNORE INTO listers (owner, delegator, delegatee) VALUES (?,?,?)",
			string(c.Resource.Space().Owner()), string(t.Signer), string(t.Audience))
		if err != nil {
			return err
		}
	}
	return nil
}

// fillParties indexes the delegations of a database that is older than the indexes.
func fillParties() *goose.Migration {
	return goose.NewGoMigration(7, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
		const chunk = 256
		for last, more := []byte{}, true; more; {
			more = false
			var tokens []*Token
			err := eachRow(ctx, tx, func(scan func(...any) error) error {
				var b []byte
				if err := scan(&last, &b); err != nil {
					return err
				}
				more = true
				t, err := judge.Decode(b, false)
				if err == nil {
					tokens = append(tokens, t)
				}
				return err
			}, "SELECT id, bytes FROM tokens WHERE kind = ? AND id > ? ORDER BY id LIMIT ?", judge.Delegation, last, chunk)
			if err != nil {
				return err
			}
			for _, t := range tokens {
				err := saveParties(t, func(query string, args ...any) error {
					_, err := tx.ExecContext(ctx, query, args...)
					return err
				})
				if err != nil {
					return err
				}
			}
		}
		return nil
	}}, nil)
}
