package capstore

import (
	"context"
	"crypto/ed25519"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// Beside is what the store shows to those who keep rows of their own in its database, beside the history: tickets,
// webhooks, encryption networks. Their tables are in its migrations, and are no concern of it else.
type Beside struct{ s *Store }

// Beside returns what the store shows to those who keep rows of their own.
func (s *Store) Beside() Beside { return Beside{s} }

// Insert is an INSERT of one row, for [BesideTx.Add].
type Insert = db.Insert

// Now is the store's clock.
func (b Beside) Now() time.Time { return b.s.o.Now() }

// One scans the first row of a query; ok is false when there is none.
func (b Beside) One(ctx context.Context, dest []any, query string, args ...any) (ok bool, err error) {
	return b.s.db.Read.One(ctx, dest, query, args...)
}

// Each calls f for each row of a query.
func (b Beside) Each(ctx context.Context, f func(scan func(dest ...any) error) error, query string, args ...any) error {
	return b.s.db.Read.Each(ctx, f, query, args...)
}

// Update runs f in a transaction of the writer, which is durable when it returns; f may be called again. What takes room
// is refused while there is none.
func (b Beside) Update(ctx context.Context, takesRoom bool, f func(BesideTx) error) error {
	do := b.s.do
	if takesRoom {
		do = b.s.add
	}
	return do(ctx, func(t *tx) error { return f(BesideTx{t}) })
}

// Right checks that a claim is one to an ability on something, now, also by what other processes have just revoked. A
// refusal of class [tinycloud.ErrUnauthorized] says that it is not.
func (b Beside) Right(ctx context.Context, c Claim, about tinycloud.Resource, ability string) error {
	if err := b.s.fresh(ctx); err != nil {
		return err
	}
	return b.s.chain(b.s.db.Read).right(ctx, c, about, ability, b.Now())
}

// Hosts reports whether a Space of an owner is hosted here.
func (b Beside) Hosts(ctx context.Context, owner tinycloud.Principal) (bool, error) {
	if err := b.s.fresh(ctx); err != nil {
		return false, err
	}
	prefix, hosts := spacePrefix(owner), false
	err := b.s.db.Read.Each(ctx, func(scan db.Scan) error {
		var text string
		if err := scan(&text); err != nil {
			return err
		}
		// A longer DID may begin like the owner's.
		id, err := tinycloud.ParseSpaceID(text)
		hosts = hosts || err == nil && id.Owner() == owner && b.s.Hosted(id)
		return nil
	}, "SELECT space FROM spaces WHERE space > ? AND space < ?", prefix+":", prefix+";")
	return hosts, err
}

// spacePrefix is how the ids of an owner's Spaces begin, up to the colon before the name.
func spacePrefix(owner tinycloud.Principal) string {
	return "tinycloud:" + string(owner[min(len("did:"), len(owner)):])
}

// Hosted reports whether a Space is hosted here.
func (b Beside) Hosted(id tinycloud.SpaceID) bool { return b.s.Hosted(id) }

// Waits reports whether a Space waits for the history of its other hosts, as one does that was restored from a backup.
func (b Beside) Waits(id tinycloud.SpaceID) bool {
	_, waits := b.s.waits(id)
	return waits
}

// HostsOf returns the keys of a hosted Space's hosts, in window and not revoked, this node's among them, and of each
// whether a delegation that makes it one is signed by the owner himself, and not by a session of his.
func (b Beside) HostsOf(ctx context.Context, id tinycloud.SpaceID) (map[hostlog.Key]bool, error) {
	sp, err := b.s.loaded(ctx, id)
	if err != nil {
		return nil, err
	}
	out := map[hostlog.Key]bool{}
	b.s.eachHost(sp, func(h hostlog.Key, t *Token) bool {
		out[h] = out[h] || t.Signer == id.Owner()
		return true
	})
	return out, nil
}

// RestsOn returns the delegations that a token rests on, as far as they are stored, and no more than another host takes.
func (b Beside) RestsOn(ctx context.Context, t *Token) ([][]byte, error) {
	all, err := b.s.restsOn(ctx, t)
	if err != nil {
		return nil, err
	}
	return all[1:], nil
}

// SpaceKey is this node's key of a Space.
func (b Beside) SpaceKey(id tinycloud.SpaceID) ed25519.PrivateKey { return b.s.o.Keys.SpaceKey(id) }

// Claim is what a right rests on that outlives the invocation it was shown by: who signed that, and the delegations that
// it cites. It has no caveats: a right under some is none.
type Claim struct {
	Signer tinycloud.Principal
	Proofs []tinycloud.Hash
}

func (c *chain) right(ctx context.Context, claim Claim, about tinycloud.Resource, ability string, now time.Time) error {
	return c.authorise(ctx, &Token{
		Kind: token.Invocation, Signer: claim.Signer, Proofs: claim.Proofs, Caps: []Capability{{Resource: about, URI: about.String(), Ability: ability}},
	}, now)
}

// BesideTx is a transaction of the writer as those see it who keep rows of their own.
type BesideTx struct{ t *tx }

// Now is the time of the transaction.
func (b BesideTx) Now() time.Time { return b.t.now }

// Sid is the number of a hosted Space, in the column sid of tables.
func (b BesideTx) Sid(id tinycloud.SpaceID) (int64, error) { return b.t.s.sid(b.t.ctx, id) }

// Text is any text as a column of bytes holds it that is not searched.
func (b BesideTx) Text(text string) any { return b.t.s.db.Bytes(text) }

// One scans the first row of a query; ok is false when there is none.
func (b BesideTx) One(dest []any, query string, args ...any) (ok bool, err error) {
	return b.t.one(dest, query, args...)
}

// Each calls f for each row of a query. f must not use the transaction.
func (b BesideTx) Each(f func(scan func(dest ...any) error) error, query string, args ...any) error {
	return b.t.each(f, query, args...)
}

// Exec runs a statement. What is refused must not have written before, or its whole group is tried again.
func (b BesideTx) Exec(query string, args ...any) error { return b.t.exec(query, args...) }

// Add inserts a row.
func (b BesideTx) Add(i Insert, args ...any) error { return b.t.add(i, args...) }

// Tell has the other processes on a server's database told that rows came or went: [Commit.Beside].
func (b BesideTx) Tell() { b.t.beside = true }

// Right is [Beside.Right] in the transaction.
func (b BesideTx) Right(c Claim, about tinycloud.Resource, ability string) error {
	chain := b.t.s.chain(b.t)
	chain.extra = b.t.revoked
	return chain.right(b.t.ctx, c, about, ability, b.t.now)
}

// Ends is when the first of an invocation and the known delegations that it cites ends; zero for never.
func (b BesideTx) Ends(tok *Token) (time.Time, error) {
	end := tok.Expires
	for _, id := range tok.Proofs {
		p, err := b.t.s.token(b.t.ctx, b.t, id)
		if err != nil {
			return end, err
		}
		if p != nil && !p.Expires.IsZero() && (end.IsZero() || p.Expires.Before(end)) { // an owner may cite what does not exist
			end = p.Expires
		}
	}
	return end, nil
}
