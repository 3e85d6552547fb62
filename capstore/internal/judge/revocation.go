package judge

import (
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/recap"
)

// End is a delegation that came to an end, and the revocation that ends it.
type End struct {
	Delegation tinycloud.Hash
	Revocation *token.Token
}

// Ended returns the delegations that came to an end since it was called last, by a revocation that its signer had
// the right to make, or by a removal that [Facts.FindRemovals] found. Each is told once.
func (f *Facts) Ended() []End {
	out := f.untold
	f.untold = nil
	return out
}

func (f *Facts) end(delegation tinycloud.Hash, by *token.Token) {
	if _, told := f.ended[delegation]; !told {
		f.ended[delegation] = struct{}{}
		f.untold = append(f.untold, End{delegation, by})
	}
}

// weigh finds out whether a revocation has an effect: its target is known, and its signer may revoke it. It reports
// whether that is news. What was looked for in vain is awaited, for nothing else can change the outcome.
func (f *Facts) weigh(n *fact) (changed bool) {
	r := n.token
	find := func(id tinycloud.Hash) *token.Token {
		t := f.Delegation(id)
		if t == nil {
			f.await(n, id)
		}
		return t
	}
	target := find(r.Target)
	effective := target != nil && MayRevoke(r, target, find)
	if effective == n.effective {
		return false
	}
	if n.effective = effective; effective {
		f.effective[r.Target] = append(f.effective[r.Target], n)
		f.end(r.Target, r)
	} else { // a delegation more may use up the bound of a search
		f.effective[r.Target] = slices.DeleteFunc(f.effective[r.Target], func(o *fact) bool { return o == n })
	}
	return true
}

func (f *Facts) await(n *fact, id tinycloud.Hash) {
	if _, ok := n.awaits[id]; ok {
		return
	}
	if n.awaits == nil {
		n.awaits = map[tinycloud.Hash]struct{}{}
	}
	n.awaits[id] = struct{}{}
	f.awaited[id] = append(f.awaited[id], n)
}

// arrived weighs the revocations anew that awaited a delegation. It reports whether one has an effect now that had none:
// what follows it was judged as if it were not there.
func (f *Facts) arrived(id tinycloud.Hash) (again bool) {
	await := f.awaited[id]
	delete(f.awaited, id)
	for _, n := range await {
		delete(n.awaits, id)
		again = f.weigh(n) || again
	}
	return again
}

// Revoked returns the revocation of a delegation that stands in a causal past.
func (f *Facts) Revoked(id tinycloud.Hash, h Here) (tinycloud.Hash, bool) {
	for _, n := range f.effective[id] {
		if h.sees(n.places) {
			return n.token.ID, true
		}
	}
	return tinycloud.Hash{}, false
}

// MayRevoke reports whether the signer of a revocation may end the target (docs/protocol.md, "Revocations"): its
// delegator, its delegatee, the owner of a Space it names or, if it names none, of an encryption network, or who holds that party's right to revoke. Of a host
// delegation it is [MayRemove] alone.
func MayRevoke(r, target *token.Token, find func(tinycloud.Hash) *token.Token) bool {
	hosts := false
	for _, s := range target.Spaces() {
		if target.HostsSpace(s) {
			if hosts = true; !MayRemove(r.Signer, target, s, find) {
				return false
			}
		}
	}
	if hosts {
		return true
	}
	principal := r.Signer
	switch len(r.Proofs) {
	case 0:
	case 1:
		p := find(r.Proofs[0])
		if p == nil || p.Audience != r.Signer || !revokes(p, target, find) {
			return false
		}
		principal = p.Signer
	default:
		return false
	}
	if principal == target.Signer || principal == target.Audience {
		return true
	}
	for _, s := range target.Spaces() {
		if s.Owner() == principal {
			return true
		}
	}
	return ofNetworks(target, principal)
}

// ofNetworks reports whether a delegation is about nothing in any Space, and about an encryption network of an owner's.
// Since no operation rests on such a delegation, that says nothing of what hosts hold that know no networks.
func ofNetworks(target *token.Token, owner tinycloud.Principal) bool {
	return len(target.Spaces()) == 0 && slices.ContainsFunc(target.Caps, func(c recap.Capability) bool {
		id, ok := c.Resource.Network()
		return ok && id.Owner() == owner
	})
}

// ofSpace reports whether a capability is about all delegations of a Space, without any condition.
func ofSpace(c recap.Capability) bool {
	return c.Resource.Service() == "delegation" && c.Resource.Bare() && c.Caveats == nil
}

// revokes reports whether a delegation gives the right to revoke: for the target alone, or for all
// delegations of a Space that its signer owns and the target grants in.
func revokes(p, target *token.Token, find func(tinycloud.Hash) *token.Token) bool {
	for _, c := range p.Caps {
		if c.Ability != token.AbilityRevoke {
			continue
		}
		if c.Resource.String() == "urn:cid:"+target.ID.EventID() && (&Search{find: find, looks: MaxChain}).Justified(p, c) {
			return true
		}
		if ofSpace(c) && c.Resource.Space().Owner() == p.Signer && slices.Contains(target.Spaces(), c.Resource.Space()) {
			return true
		}
	}
	return false
}
