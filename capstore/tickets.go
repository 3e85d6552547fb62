package capstore

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// MaxTicketLife is the longest that a ticket lives.
const MaxTicketLife = 300 * time.Second

// The tickets of a Space are bounded: so many are issued within the life of the oldest. Expired ones make room;
// until then they are kept for ticketGrace, so that who comes late learns why.
const (
	maxTickets  = 10_000 // unless Options.MaxTickets says otherwise
	ticketGrace = 10 * time.Minute
	ticketPurge = 64 // expired tickets that a new one removes at most
)

// TicketID is the secret that a ticket is used by.
type TicketID [32]byte

// String returns the id as 43 characters of base64url.
func (id TicketID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// ParseTicketID reads what [TicketID.String] writes, and no other spelling of it.
func ParseTicketID(text string) (id TicketID, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != len(id) || len(text) != base64.RawURLEncoding.EncodedLen(len(id)) {
		return id, false
	}
	return TicketID(b), true
}

// Ticket is the right to read one value of a key without a token.
type Ticket struct {
	Space   tinycloud.SpaceID
	Key     string
	Value   tinycloud.Hash // the content that is to be read
	Expires time.Time      // a whole second

	signer tinycloud.Principal
	proofs []tinycloud.Hash
}

// token returns as much of the invocation as the right rests on.
func (k *Ticket) token(wanted Capability) *Token {
	return &Token{Kind: token.Invocation, Signer: k.signer, Proofs: k.proofs, Caps: []Capability{wanted}}
}

// TicketRequest is what a ticket is asked for.
type TicketRequest struct {
	Space tinycloud.SpaceID
	Key   string
	Value *tinycloud.Hash // nil: the current value
	Life  time.Duration   // at most MaxTicketLife count
}

// IssueTicket gives the right to read a key to whoever holds the ticket, on the strength of an
// invocation that [Store.Verify] passed. The ticket ends with the invocation and with the delegations it
// cites, and is durable when IssueTicket returns. Refusals are of class [tinycloud.ErrForbidden] when the
// invocation does not cover the key, [tinycloud.ErrNotFound] when there is no value to bind,
// [tinycloud.ErrUnauthorized] when the ticket would be born expired, and [tinycloud.ErrBusy] when the
// Space has too many.
func (s *Store) IssueTicket(ctx context.Context, tok *Token, r TicketRequest) (TicketID, Ticket, error) {
	var id TicketID
	rand.Read(id[:]) // never fails
	k := Ticket{Space: r.Space, Key: r.Key, signer: tok.Signer, proofs: tok.Proofs}
	resource, ok := r.Space.NewKey("kv", r.Key)
	if !ok || !mentions(tok, resource) {
		return id, k, errTicketScope()
	}
	err := s.add(ctx, func(t *tx) error {
		sid, err := s.sid(ctx, r.Space)
		if err != nil {
			return err
		}
		if k.Expires, err = t.ticketExpiry(tok, r.Life); err != nil {
			return err
		}
		c := s.chain(t)
		c.extra = t.revoked
		switch err := c.mayRead(t.ctx, &k, t.now); {
		case errors.Is(err, tinycloud.ErrUnauthorized):
			return errTicketScope()
		case err != nil:
			return err
		}
		if k.Value, err = t.bind(sid, r); err != nil {
			return err
		}
		return t.saveTicket(sid, id, &k)
	})
	return id, k, err
}

func errTicketScope() error {
	return tinycloud.Refuse(tinycloud.ErrForbidden, "signed URL scope is not authorized")
}

// mentions reports whether an invocation asks to read a key.
func mentions(tok *Token, key tinycloud.Resource) bool {
	for _, c := range tok.Caps {
		if judge.Covers(c.Ability, token.AbilityGet) && key.Extends(c.Resource) {
			return true
		}
	}
	return false
}

// mayRead checks that the ticket's signer holds the right to read its key, now: without caveats, since a
// ticket has none.
func (c *chain) mayRead(ctx context.Context, k *Ticket, now time.Time) error {
	resource, ok := k.Space.NewKey("kv", k.Key)
	if !ok {
		return errTicketScope()
	}
	return c.authorise(ctx, k.token(Capability{Resource: resource, URI: resource.String(), Ability: token.AbilityGet}), now)
}

// ticketExpiry returns when the life asked for, the invocation or a delegation it cites ends first.
func (t *tx) ticketExpiry(tok *Token, life time.Duration) (time.Time, error) {
	end := t.now.Add(min(max(life, 0), MaxTicketLife))
	ends := []time.Time{tok.Expires}
	for _, id := range tok.Proofs {
		p, err := t.s.token(t.ctx, t, id)
		if err != nil {
			return end, err
		}
		if p != nil { // an owner may cite what does not exist
			ends = append(ends, p.Expires)
		}
	}
	for _, e := range ends {
		if !e.IsZero() && e.Before(end) {
			end = e
		}
	}
	if end = end.Truncate(time.Second); !end.After(t.now) {
		return end, tinycloud.Refuse(tinycloud.ErrUnauthorized, "signed URL expired immediately")
	}
	return end, nil
}

// bind returns the value that a ticket is for.
func (t *tx) bind(sid int64, r TicketRequest) (tinycloud.Hash, error) {
	if r.Value != nil {
		return *r.Value, nil
	}
	var value []byte
	ok, err := t.one([]any{&value}, "SELECT k.value FROM kv k WHERE k.sid = ? AND k.key = ? AND k.live = 1", sid, t.s.key(r.Key))
	if err == nil && !ok {
		err = tinycloud.Refuse(tinycloud.ErrNotFound, "Key not found")
	}
	if err != nil {
		return tinycloud.Hash{}, err
	}
	return tinycloud.Hash(value), nil
}

// saveTicket numbers the ticket. What lies between the first number and the last bounds the tickets of the Space,
// without counting them.
func (t *tx) saveTicket(sid int64, id TicketID, k *Ticket) error {
	now := t.now.UnixMilli()
	var first, expires, last int64
	some, err := t.one([]any{&first, &expires}, "SELECT n, expires FROM tickets WHERE sid = ? ORDER BY n LIMIT 1", sid)
	if err != nil {
		return err
	}
	if _, err := t.one([]any{&last}, "SELECT n FROM tickets WHERE sid = ? ORDER BY n DESC LIMIT 1", sid); err != nil {
		return err
	}
	if full := some && last+1-first >= int64(t.s.o.MaxTickets); full {
		// What is refused must not have written, or its whole group is tried again.
		if expires > now {
			return tinycloud.Refuse(tinycloud.ErrBusy, "Too many signed URLs; retry the request")
		}
		if err := t.exec("DELETE FROM tickets WHERE sid = ? AND n < ? AND expires <= ?", sid, first+ticketPurge, now); err != nil {
			return err
		}
	}
	if err := t.purgeTickets(now - ticketGrace.Milliseconds()); err != nil {
		return err
	}
	proofs := make([]byte, 0, len(k.proofs)*len(tinycloud.Hash{}))
	for _, p := range k.proofs {
		proofs = append(proofs, p[:]...)
	}
	hash := tinycloud.Sum(id[:])
	return t.add(db.Insert{Into: "tickets", Columns: "id sid n key value signer proofs expires"},
		hash[:], sid, last+1, t.s.db.Bytes(k.Key), k.Value[:], string(k.signer), proofs, k.Expires.UnixMilli())
}

// purgeTickets removes some of those that expired before a time.
func (t *tx) purgeTickets(before int64) error {
	var old [][]byte
	err := t.each(func(scan db.Scan) error {
		var id []byte
		err := scan(&id)
		old = append(old, id)
		return err
	}, "SELECT id FROM tickets WHERE expires < ? ORDER BY expires LIMIT ?", before, ticketPurge)
	if err != nil {
		return err
	}
	for _, id := range old {
		if err := t.exec("DELETE FROM tickets WHERE id = ?", id); err != nil {
			return err
		}
	}
	return nil
}

// Ticket returns the ticket of an id while it gives the right to read. Refusals are of class
// [tinycloud.ErrUnauthorized]: the id is unknown, the ticket has expired, or a delegation it rests on was
// revoked.
func (s *Store) Ticket(ctx context.Context, id TicketID) (Ticket, error) {
	if err := s.fresh(ctx); err != nil {
		return Ticket{}, err
	}
	k, err := s.ticket(ctx, tinycloud.Sum(id[:]))
	if err != nil {
		return k, err
	}
	now := s.o.Now()
	if !k.Expires.After(now) {
		return k, tinycloud.Refuse(tinycloud.ErrUnauthorized, "signed URL expired")
	}
	err = s.chain(s.db.Read).mayRead(ctx, &k, now)
	if errors.Is(err, tinycloud.ErrUnauthorized) {
		err = tinycloud.Refuse(tinycloud.ErrUnauthorized, "signed URL revoked")
	}
	return k, err
}

func (s *Store) ticket(ctx context.Context, hash tinycloud.Hash) (k Ticket, err error) {
	var space, signer string
	var value, proofs []byte
	var expires int64
	ok, err := s.db.Read.One(ctx, []any{&space, &k.Key, &value, &signer, &proofs, &expires}, `SELECT s.space, t.key, t.value, t.signer, t.proofs, t.expires
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
		k.proofs = append(k.proofs, tinycloud.Hash(proofs[:len(k.Value)]))
	}
	k.Value, k.signer, k.Expires = tinycloud.Hash(value), tinycloud.Principal(signer), time.UnixMilli(expires)
	return k, nil
}
