package judge

import (
	"bytes"
	"maps"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// Removal is a revocation of a host delegation by someone with the right to it, with what it ends and what survives
// it. Of the logs of the hosts it ends, what others built on before they heard of it survives (docs/replication.md,
// "Removed hosts").
type Removal struct {
	Revocation *token.Token
	host       hostlog.Key // of the delegation it names
	named      bool        // that delegation's audience is a host
	fact       *fact
	ends       map[tinycloud.Hash]bool // host delegations
	safe       map[hostlog.Key]Clock   // per host of one of them: what survives
}

// FindRemovals computes which host delegations are ended by which revocations, and returns the removals.
// Nothing survives them until [Removal.Protect] says so.
func (f *Facts) FindRemovals() []*Removal {
	f.removals = nil
	for _, target := range f.hosting {
		revocations := f.effective[target.ID]
		if len(revocations) == 0 || !f.hostable(f.search(), target) {
			continue
		}
		for _, n := range revocations {
			r := &Removal{Revocation: n.token, fact: n, ends: map[tinycloud.Hash]bool{target.ID: true}, safe: map[hostlog.Key]Clock{}}
			r.host, r.named = hostlog.KeyOf(target.Audience)
			f.findEnded(r, target)
			f.removals = append(f.removals, r)
		}
	}
	slices.SortFunc(f.removals, func(a, b *Removal) int { return bytes.Compare(a.Revocation.ID[:], b.Revocation.ID[:]) })
	for _, r := range f.removals {
		for id := range r.ends {
			f.end(id, r.Revocation)
		}
	}
	return f.removals
}

// findEnded finds the host delegations that a removal ends: the one it names; those to the same key that are
// not younger and that its signer may revoke too; and those that have no path to the owner without them.
func (f *Facts) findEnded(r *Removal, target *token.Token) {
	iat := r.Revocation.IssuedAt
	for _, n := range f.hosts[r.host] {
		d := n.token
		if r.named && d != target && !iat.IsZero() && !d.IssuedAt.IsZero() && !d.IssuedAt.After(iat) &&
			MayRemove(r.Revocation.Signer, d, f.space, f.Delegation) {
			r.ends[d.ID] = true
		}
	}
	named := maps.Clone(r.ends)
	for host, ns := range f.hosts {
		for _, n := range ns {
			s := f.search()
			s.live = func(id tinycloud.Hash) bool { return !named[id] }
			if !named[n.token.ID] && !f.hostable(s, n.token) && !s.revoked.IsZero() {
				r.ends[n.token.ID] = true
			}
			f.want(s.missing)
			if r.ends[n.token.ID] && r.safe[host] == nil {
				r.safe[host] = Clock{}
			}
		}
	}
}

// Removals returns the result of the last FindRemovals.
func (f *Facts) Removals() []*Removal { return f.removals }

// EndedHosts are the host delegations that removals end, as the last FindRemovals found.
func (f *Facts) EndedHosts() map[tinycloud.Hash]bool {
	ended := map[tinycloud.Hash]bool{}
	for _, r := range f.removals {
		maps.Copy(ended, r.ends)
	}
	return ended
}

// Removed reports whether some removal ends a delegation of a host.
func (f *Facts) Removed(host hostlog.Key) bool {
	return slices.ContainsFunc(f.removals, func(r *Removal) bool { return r.Ends(host) })
}

// Concerns reports whether a token of the set may change which hosts are removed.
func (f *Facts) Concerns(t *token.Token) bool {
	if t.Kind == token.Revocation {
		target := f.Delegation(t.Target)
		return target != nil && target.HostsSpace(f.space)
	}
	return t.Kind == token.Delegation && slices.ContainsFunc(t.Spaces(), func(s tinycloud.SpaceID) bool { return s == f.space }) && hosts(t)
}

func hosts(t *token.Token) bool {
	for _, c := range t.Caps {
		if c.Ability == token.AbilityHost {
			return true
		}
	}
	return false
}

// Other reports whether an entry of a host, dated at its epoch's place, is one that can fix the cut of a
// removal: the host is not the one that is removed, and has a delegation that the removal does not end.
func (f *Facts) Other(r *Removal, host hostlog.Key, h Here) bool {
	if r.named && host == r.host {
		return false
	}
	h.Index = all
	return slices.ContainsFunc(f.hosts[host], func(n *fact) bool {
		return !r.ends[n.token.ID] && h.sees(n.places) && f.hostable(f.search(), n.token)
	})
}

// Places returns where the revocation stands.
func (r *Removal) Places() []Place { return r.fact.places }

// Ends reports whether the removal ends a delegation of a host.
func (r *Removal) Ends(host hostlog.Key) bool {
	_, ok := r.safe[host]
	return ok
}

// In reports whether the revocation stands in a causal past.
func (r *Removal) In(past Clock) bool { return Here{Past: past}.sees(r.fact.places) }

// Protect makes an epoch and its ancestors survive. An epoch that an entry of a host makes valid, and in
// whose past the revocation is not, protects the entries of all other hosts; the cut protects all.
func (r *Removal) Protect(by *hostlog.Key, past Clock, spots []Spot) (grew bool) {
	for host, safe := range r.safe {
		if by != nil && host == *by {
			continue
		}
		for b, n := range past {
			grew = safe.raise(Spot{b, n}) || grew
		}
		for _, s := range spots {
			grew = safe.raise(s) || grew
		}
	}
	return grew
}

func (c Clock) raise(s Spot) bool {
	if c.Has(s) {
		return false
	}
	c[s.Branch] = s.N
	return true
}

// Survives reports whether a host's entry of the epoch with the given spots survives.
func (r *Removal) Survives(host hostlog.Key, spots []Spot) bool {
	return slices.ContainsFunc(spots, r.safe[host].Has)
}

// Prefix returns how far a host's log branch survives for certain; ok is false when not at all.
func (r *Removal) Prefix(host hostlog.Key, branch uint32) (n uint64, ok bool) {
	n, ok = r.safe[host][branch]
	return n, ok
}

// MayRemove reports whether a principal may end a host delegation of a Space: as the owner, as the host, or
// as an issuer above it in its chain.
func MayRemove(by tinycloud.Principal, d *token.Token, space tinycloud.SpaceID, find func(tinycloud.Hash) *token.Token) bool {
	if by == space.Owner() || by == d.Audience {
		return true
	}
	self, ok := hostlog.KeyOf(by)
	if host, isHost := hostlog.KeyOf(d.Audience); ok && isHost && self == host {
		return true
	}
	s := &Search{find: find, looks: MaxChain, by: by}
	for _, c := range d.Caps {
		if c.Ability == token.AbilityHost && c.Resource.Space() == space && c.Resource.Bare() && s.Justified(d, c) {
			return true
		}
	}
	return false
}
