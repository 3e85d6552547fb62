package capstore

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cacao"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/recap"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/siwe"
)

// hostDomain is the domain a hosting message claims to come from: no web site asks for it.
const hostDomain = "localhost"

// siweTime is the form of time stamps.
const siweTime = "2006-01-02T15:04:05.000Z"

// HostTerms are what an owner may say about a host. The zero value is the domain localhost, and for ever.
type HostTerms struct {
	Domain  string    // that the text claims to come from; "" means localhost
	Expires time.Time // zero: never
}

// HostMessage returns the text of the zero [HostTerms].
func HostMessage(space tinycloud.SpaceID, host tinycloud.Principal, nonce string, now time.Time) (string, error) {
	return HostTerms{}.Message(space, host, nonce, now)
}

// Message returns the EIP-4361 text by whose signature the owner of a Space makes a host of it. The error is of class
// [tinycloud.ErrInvalid] when host is no did:key of a host, or the nonce or the domain is none, and
// [tinycloud.ErrUnsupported] when the owner is not an Ethereum account.
func (h HostTerms) Message(space tinycloud.SpaceID, host tinycloud.Principal, nonce string, now time.Time) (string, error) {
	chain, account, ok := space.Owner().EIP155()
	if !ok {
		return "", fmt.Errorf("owner %s signs no EIP-4361 messages: %w", space.Owner(), tinycloud.ErrUnsupported)
	}
	if _, ok := hostlog.KeyOf(host); !ok {
		return "", fmt.Errorf("%q is no host's DID: %w", host, tinycloud.ErrInvalid)
	}
	caps := []recap.Capability{{URI: space.String() + "/space", Ability: token.AbilityHost}}
	statement := recap.Statement(caps)
	m := siwe.Message{
		Domain: h.Domain, Address: account, ChainID: chain, URI: string(host), Statement: &statement, Resources: []string{recap.Encode(caps, nil)},
	}
	if !h.Expires.IsZero() {
		m.Expires = h.Expires.UTC().Format(siweTime)
	}
	return ownerText(m, nonce, now)
}

// OwnerMessage returns the EIP-4361 text by whose signature an owner gives another party an ability on a resource for a
// while. The error is of class [tinycloud.ErrInvalid] when the nonce is none, and [tinycloud.ErrUnsupported] when the
// owner is not an Ethereum account.
func OwnerMessage(owner, to tinycloud.Principal, resource, ability, nonce string, now time.Time, life time.Duration) (string, error) {
	chain, account, ok := owner.EIP155()
	if !ok {
		return "", fmt.Errorf("owner %s signs no EIP-4361 messages: %w", owner, tinycloud.ErrUnsupported)
	}
	caps := []recap.Capability{{URI: resource, Ability: ability}}
	statement := recap.Statement(caps)
	return ownerText(siwe.Message{
		Address: account, ChainID: chain, URI: string(to), Statement: &statement, Resources: []string{recap.Encode(caps, nil)},
		Expires: now.Add(life).UTC().Format(siweTime),
	}, nonce, now)
}

// UnhostMessage returns the EIP-4361 text by whose signature the owner of a Space removes a host: a revocation of the
// host's latest delegation, from a domain as in [HostTerms], which ends those before it too (docs/replication.md, "Removed hosts"). The error is of
// class [tinycloud.ErrInvalid] when host is no did:key of a host, [tinycloud.ErrNotFound] when it is no host of the
// Space as far as this node knows, and [tinycloud.ErrUnsupported] when the owner is not an Ethereum account.
func (s *Store) UnhostMessage(ctx context.Context, space tinycloud.SpaceID, host tinycloud.Principal, domain, nonce string) (string, error) {
	chain, account, ok := space.Owner().EIP155()
	if !ok {
		return "", fmt.Errorf("owner %s signs no EIP-4361 messages: %w", space.Owner(), tinycloud.ErrUnsupported)
	}
	key, ok := hostlog.KeyOf(host)
	if !ok {
		return "", fmt.Errorf("%q is no host's DID: %w", host, tinycloud.ErrInvalid)
	}
	sp, err := s.loaded(ctx, space)
	if err != nil {
		return "", err
	}
	var last *Token
	s.eachHost(sp, func(h hostlog.Key, t *Token) bool {
		if h == key && (last == nil || t.IssuedAt.After(last.IssuedAt)) {
			last = t
		}
		return true
	})
	if last == nil {
		return "", fmt.Errorf("%s is no host of %s: %w", host, space, tinycloud.ErrNotFound)
	}
	statement := fmt.Sprintf("Remove the host %s from the Space %s.", key, space)
	return ownerText(siwe.Message{Domain: domain, Address: account, ChainID: chain, URI: "ucan:" + last.ID.EventID(), Statement: &statement}, nonce, s.o.Now())
}

// ownerText completes a message that the owner of a Space is to sign by hand.
func ownerText(m siwe.Message, nonce string, now time.Time) (string, error) {
	m.Domain, m.Nonce, m.IssuedAt = cmp.Or(m.Domain, hostDomain), nonce, now.UTC().Format(siweTime)
	if err := m.Check(); err != nil {
		return "", err
	}
	return string(m.Text()), nil
}

// SignedByOwner returns the Authorization header of a text of [HostMessage] or [Store.UnhostMessage] and the
// owner's signature of it: 65 bytes r ‖ s ‖ v in hex, v also as 0 or 1 as some wallets give it. The error is of
// class [tinycloud.ErrInvalid], or [tinycloud.ErrForged] when another account or another text was signed.
func SignedByOwner(text, signature string) (string, error) {
	m, err := siwe.Parse([]byte(text))
	if err != nil {
		return "", err
	}
	b, err := hex.DecodeString(strings.TrimPrefix(strings.TrimSpace(signature), "0x"))
	if err != nil || len(b) != siwe.SignatureSize {
		return "", fmt.Errorf("signature is not 0x and %d hex digits: %w", 2*siwe.SignatureSize, tinycloud.ErrInvalid)
	}
	sig := [siwe.SignatureSize]byte(b)
	if sig[64] < 2 {
		sig[64] += 27
	}
	signer, err := siwe.Recover([]byte(text), sig)
	if err != nil {
		return "", err
	}
	if signer != m.Address {
		return "", fmt.Errorf("%s did not sign this text (the signature is of %s or of another text): %w",
			tinycloud.ChecksumAddress(m.Address), tinycloud.ChecksumAddress(signer), tinycloud.ErrForged)
	}
	return cacao.Header(cacao.Encode(m, sig)), nil
}

// Met returns the Spaces of which another host was met, or is to be joined: those that have someone to
// replicate with.
func (s *Store) Met(ctx context.Context) ([]tinycloud.SpaceID, error) {
	return s.named(ctx, "SELECT space FROM spaces WHERE sid IN (SELECT sid FROM joins UNION SELECT sid FROM hosts) ORDER BY sid")
}

// named returns the Spaces that a query selects by their ids.
func (s *Store) named(ctx context.Context, query string, args ...any) (out []tinycloud.SpaceID, err error) {
	err = s.db.Read.Each(ctx, func(scan db.Scan) error {
		var text string
		if err := scan(&text); err != nil {
			return err
		}
		id, err := tinycloud.ParseSpaceID(text)
		out = append(out, id)
		return err
	}, query, args...)
	return out, err
}

// HasMet reports whether [Store.Met] names a Space.
func (s *Store) HasMet(ctx context.Context, id tinycloud.SpaceID) (bool, error) {
	sid, err := s.sid(ctx, id)
	if err != nil {
		return false, err
	}
	var met bool
	_, err = s.db.Read.One(ctx, []any{&met}, "SELECT EXISTS (SELECT 1 FROM joins WHERE sid = ?) OR EXISTS (SELECT 1 FROM hosts WHERE sid = ?)", sid, sid)
	return met, err
}
