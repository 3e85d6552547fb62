// Package tickets has the rights to read one value of a key without a token. They are no part of the history: their rows
// stand beside it, and end soon. Source: docs/protocol.md, "POST /signed/kv".
package tickets

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
)

// MaxLife is the longest that a ticket lives.
const MaxLife = 300 * time.Second

// The tickets of a Space are bounded: so many are issued within the life of the oldest. Expired ones make room;
// until then they are kept for a grace, so that who comes late learns why.
const (
	most  = 10_000 // unless the node says otherwise
	grace = 10 * time.Minute
	purge = 64 // expired tickets that a new one removes at most
)

// Tickets are those of the Spaces in a store. It is safe for concurrent use.
type Tickets struct {
	rows capstore.Beside
	keys *kv.Keys
	most int
}

// Of returns the tickets in a store, of which a Space may have so many within the life of the oldest; 0 means 10,000.
func Of(store *capstore.Store, atMost int) *Tickets {
	if atMost == 0 {
		atMost = most
	}
	return &Tickets{store.Beside(), kv.Of(store), atMost}
}

// ID is the secret that a ticket is used by.
type ID [32]byte

// String returns the id as 43 characters of base64url.
func (id ID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// ParseID reads what [ID.String] writes, and no other spelling of it.
func ParseID(text string) (id ID, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != len(id) || len(text) != base64.RawURLEncoding.EncodedLen(len(id)) {
		return id, false
	}
	return ID(b), true
}

// Ticket is the right to read one value of a key without a token.
type Ticket struct {
	Space   tinycloud.SpaceID
	Key     string
	Value   tinycloud.Hash // the content that is to be read
	Expires time.Time      // a whole second

	claim capstore.Claim
}

// Request is what a ticket is asked for.
type Request struct {
	Space tinycloud.SpaceID
	Key   string
	Value *tinycloud.Hash // nil: the current value
	Life  time.Duration   // at most MaxLife count
}

// Issue gives the right to read a key to whoever holds the ticket, on the strength of an invocation that
// [capstore.Store.Verify] passed. The ticket ends with the invocation and with the delegations it cites, and is durable
// when Issue returns. Refusals are of class [tinycloud.ErrForbidden] when the invocation does not cover the key,
// [tinycloud.ErrNotFound] when there is no value to bind, [tinycloud.ErrUnauthorized] when the ticket would be born
// expired, and [tinycloud.ErrBusy] when the Space has too many.
func (x *Tickets) Issue(ctx context.Context, tok *capstore.Token, r Request) (ID, Ticket, error) {
	var id ID
	rand.Read(id[:]) // never fails
	k := Ticket{Space: r.Space, Key: r.Key, claim: capstore.Claim{Signer: tok.Signer, Proofs: tok.Proofs}}
	about, ok := r.Space.NewKey(kv.Name, r.Key)
	if !ok || !mentions(tok, about) {
		return id, k, errScope()
	}
	value, missing := x.bind(ctx, r)
	k.Value = value
	err := x.rows.Update(ctx, true, func(tx capstore.BesideTx) error {
		sid, err := tx.Sid(r.Space)
		if err != nil {
			return err
		}
		if k.Expires, err = expiry(tx, tok, r.Life); err != nil {
			return err
		}
		switch err := tx.Right(k.claim, about, token.AbilityGet); {
		case errors.Is(err, tinycloud.ErrUnauthorized):
			return errScope()
		case err != nil:
			return err
		case missing != nil: // which is nobody's to know before
			return missing
		}
		return x.save(tx, sid, id, &k)
	})
	return id, k, err
}

func errScope() error {
	return tinycloud.Refuse(tinycloud.ErrForbidden, "signed URL scope is not authorized")
}

// mentions reports whether an invocation asks to read a key.
func mentions(tok *capstore.Token, key tinycloud.Resource) bool {
	for _, c := range tok.Caps {
		if judge.Covers(c.Ability, token.AbilityGet) && key.Extends(c.Resource) {
			return true
		}
	}
	return false
}

// expiry returns when the life asked for, the invocation or a delegation it cites ends first.
func expiry(tx capstore.BesideTx, tok *capstore.Token, life time.Duration) (time.Time, error) {
	end := tx.Now().Add(min(max(life, 0), MaxLife))
	first, err := tx.Ends(tok)
	if err != nil {
		return end, err
	}
	if !first.IsZero() && first.Before(end) {
		end = first
	}
	if end = end.Truncate(time.Second); !end.After(tx.Now()) {
		return end, tinycloud.Refuse(tinycloud.ErrUnauthorized, "signed URL expired immediately")
	}
	return end, nil
}

// bind returns the value that a ticket is for.
func (x *Tickets) bind(ctx context.Context, r Request) (tinycloud.Hash, error) {
	if r.Value != nil {
		return *r.Value, nil
	}
	rec, err := x.keys.Get(ctx, r.Space, r.Key)
	if errors.Is(err, tinycloud.ErrNotFound) {
		err = tinycloud.Refuse(tinycloud.ErrNotFound, "Key not found")
	}
	return rec.Value, err
}

// save numbers the ticket. What lies between the first number and the last bounds the tickets of the Space,
// without counting them.
func (x *Tickets) save(tx capstore.BesideTx, sid int64, id ID, k *Ticket) error {
	now := tx.Now().UnixMilli()
	var first, expires, last int64
	some, err := tx.One([]any{&first, &expires}, "SELECT n, expires FROM tickets WHERE sid = ? ORDER BY n LIMIT 1", sid)
	if err != nil {
		return err
	}
	if _, err := tx.One([]any{&last}, "SELECT n FROM tickets WHERE sid = ? ORDER BY n DESC LIMIT 1", sid); err != nil {
		return err
	}
	if full := some && last+1-first >= int64(x.most); full {
		// What is refused must not have written, or its whole group is tried again.
		if expires > now {
			return tinycloud.Refuse(tinycloud.ErrBusy, "Too many signed URLs; retry the request")
		}
		if err := tx.Exec("DELETE FROM tickets WHERE sid = ? AND n < ? AND expires <= ?", sid, first+purge, now); err != nil {
			return err
		}
	}
	if err := purgeOld(tx, now-grace.Milliseconds()); err != nil {
		return err
	}
	proofs := make([]byte, 0, len(k.claim.Proofs)*len(tinycloud.Hash{}))
	for _, p := range k.claim.Proofs {
		proofs = append(proofs, p[:]...)
	}
	hash := tinycloud.Sum(id[:])
	return tx.Add(capstore.Insert{Into: "tickets", Columns: "id sid n key value signer proofs expires"},
		hash[:], sid, last+1, tx.Text(k.Key), k.Value[:], string(k.claim.Signer), proofs, k.Expires.UnixMilli())
}

// purgeOld removes some of those that expired before a time.
func purgeOld(tx capstore.BesideTx, before int64) error {
	var old [][]byte
	err := tx.Each(func(scan func(...any) error) error {
		var id []byte
		err := scan(&id)
		old = append(old, id)
		return err
	}, "SELECT id FROM tickets WHERE expires < ? ORDER BY expires LIMIT ?", before, purge)
	if err != nil {
		return err
	}
	for _, id := range old {
		if err := tx.Exec("DELETE FROM tickets WHERE id = ?", id); err != nil {
			return err
		}
	}
	return nil
}

// Find returns the ticket of an id while it gives the right to read. Refusals are of class
// [tinycloud.ErrUnauthorized]: the id is unknown, the ticket has expired, or a delegation it rests on was
// revoked.
func (x *Tickets) Find(ctx context.Context, id ID) (Ticket, error) {
	k, err := x.find(ctx, tinycloud.Sum(id[:]))
	if err != nil {
		return k, err
	}
	if !k.Expires.After(x.rows.Now()) {
		return k, tinycloud.Refuse(tinycloud.ErrUnauthorized, "signed URL expired")
	}
	about, ok := k.Space.NewKey(kv.Name, k.Key)
	if !ok {
		return k, errScope()
	}
	err = x.rows.Right(ctx, k.claim, about, token.AbilityGet)
	if errors.Is(err, tinycloud.ErrUnauthorized) {
		err = tinycloud.Refuse(tinycloud.ErrUnauthorized, "signed URL revoked")
	}
	return k, err
}

func (x *Tickets) find(ctx context.Context, hash tinycloud.Hash) (k Ticket, err error) {
	var space, signer string
	var value, proofs []byte
	var expires int64
	ok, err := x.rows.One(ctx, []any{&space, &k.Key, &value, &signer, &proofs, &expires}, `SELECT s.space, t.key, t.value, t.signer, t.proofs, t.expires
		FROM tickets t JOIN spaces s ON s.sid = t.sid WHERE t.id = ?`, hash[:])
	if err != nil {
		return k, err
	}
	if !ok {
		return k, tinycloud.Refuse(tinycloud.ErrUnauthorized, "signed URL ticket not found")
	}
	if k.Space, err = tinycloud.ParseSpaceID(space); err != nil || len(value) != len(k.Value) || len(proofs)%len(k.Value) != 0 {
		return k, fmt.Errorf("ticket of %q: damaged row", k.Key)
	}
	for ; len(proofs) > 0; proofs = proofs[len(k.Value):] {
		k.claim.Proofs = append(k.claim.Proofs, tinycloud.Hash(proofs[:len(k.Value)]))
	}
	k.Value, k.claim.Signer, k.Expires = tinycloud.Hash(value), tinycloud.Principal(signer), time.UnixMilli(expires)
	return k, nil
}
