package capstore

import (
	"context"
	"database/sql"
	"encoding/hex"
	"math"
	"strings"

	"github.com/pressly/goose/v3"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
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

// party is a row of an index of delegations.
type party struct {
	into db.Insert
	args []any
}

// indexed bounds a DID for its index: a token may name one of any length.
func indexed(did tinycloud.Principal) string {
	const most, head = 600, 536
	if len(did) < most {
		return string(did)
	}
	sum := tinycloud.Sum([]byte(did))
	return string(did[:head]) + hex.EncodeToString(sum[:]) // as long as no whole one
}

// parties returns what the indexes of delegators and delegatees hold of a delegation.
func parties(t *Token) []party {
	intoParties := db.Insert{Into: "parties", Columns: "did age cid role", Key: "did age cid role"}
	intoListers := db.Insert{Into: "listers", Columns: "owner delegator delegatee", Key: "owner delegator delegatee"}
	out := []party{
		{intoParties, []any{indexed(t.Signer), ageOf(t), t.ID.EventID(), roleDelegator}},
		{intoParties, []any{indexed(t.Audience), ageOf(t), t.ID.EventID(), roleDelegatee}},
	}
	for _, c := range t.Caps {
		if manages(c, abilityList) {
			out = append(out, party{intoListers, []any{indexed(c.Resource.Space().Owner()), indexed(t.Signer), indexed(t.Audience)}})
		}
	}
	return out
}

// fillParties indexes the delegations of an SQLite file that is older than the indexes.
func fillParties() *goose.Migration {
	return goose.NewGoMigration(7, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
		for last, more := []byte{}, true; more; {
			tokens, err := tokensAfter(ctx, tx, last)
			if err != nil {
				return err
			}
			more = len(tokens) > 0
			for _, t := range tokens {
				last = t.ID[:]
				for _, p := range parties(t) {
					columns := strings.Fields(p.into.Columns)
					_, err := tx.ExecContext(ctx, "INSERT OR IGNORE INTO "+p.into.Into+" ("+strings.Join(columns, ", ")+") VALUES (?"+
						strings.Repeat(", ?", len(columns)-1)+")", p.args...)
					if err != nil {
						return err
					}
				}
			}
		}
		return nil
	}}, nil)
}

// tokensAfter reads some delegations, by their ids in order.
func tokensAfter(ctx context.Context, tx *sql.Tx, id []byte) (out []*Token, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT bytes FROM tokens WHERE kind = ? AND id > ? ORDER BY id LIMIT 256", token.Delegation, id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var b []byte
		if err := rows.Scan(&b); err != nil {
			return nil, err
		}
		t, err := token.Decode(b, false)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, rows.Err()
}
