package oracletest

import (
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

// MaxLooks is how many delegations are looked at for one token.
const MaxLooks = 1024

// Chains are the delegations by which tokens have what they give and use.
type Chains struct {
	Known   map[tinycloud.Hash]*capstore.Token
	Revoked func(tinycloud.Hash) bool // nil: revocations do not count
	At      time.Time                 // zero: windows do not count
}

// Covered reports whether the signer of a token has all of some capabilities of it, by the letter of
// docs/replication.md, "Facts".
func (c Chains) Covered(t *capstore.Token, caps []capstore.Capability) bool {
	w := walk{Chains: c, answers: map[tinycloud.Hash]map[int]bool{}}
	for _, one := range caps {
		if !w.has(t, one) {
			return false
		}
	}
	return true
}

// walk is what was looked at for one token.
type walk struct {
	Chains
	looked  int
	answers map[tinycloud.Hash]map[int]bool // of capabilities of delegations
}

func (w *walk) has(t *capstore.Token, c capstore.Capability) bool {
	if owner, ok := c.Resource.Owner(); ok && owner == t.Signer {
		return true
	}
	for _, id := range t.Proofs {
		if w.looked++; w.looked > MaxLooks {
			return false
		}
		p := w.Known[id]
		if p == nil || !w.fits(p, t) {
			continue
		}
		for i, held := range p.Caps {
			if judge.Grants(held, c) && w.answer(p, i) {
				return true
			}
		}
	}
	return false
}

func (w *walk) fits(parent, child *capstore.Token) bool {
	within, _ := judge.WindowWithin(parent, child)
	return parent.Audience == child.Signer && (within || child.Kind != parent.Kind) &&
		(w.At.IsZero() || parent.ValidAt(w.At, slack*time.Millisecond)) &&
		(w.Revoked == nil || !w.Revoked(parent.ID))
}

// answer looks for a capability of a delegation once.
func (w *walk) answer(p *capstore.Token, i int) bool {
	is, asked := w.answers[p.ID][i]
	if !asked {
		is = w.has(p, p.Caps[i])
		if w.answers[p.ID] == nil {
			w.answers[p.ID] = map[int]bool{}
		}
		w.answers[p.ID][i] = is
	}
	return is
}
