package capstore_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/oracletest"
)

// Delegations at random, some with more beneath than is looked at: the rules say what the letter says, also in the order
// in which hosts learn of them.
func TestChainsByTheLetter(t *testing.T) {
	space := newOwner(t, "alice", newClock()).space
	granted, void, beyond := 0, 0, 0
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		width, levels, keys := 1+r.IntN(14), 1+r.IntN(6), 1+r.IntN(8)
		known := map[tinycloud.Hash]*capstore.Token{}
		var order, last []*capstore.Token
		for level := range levels {
			var next []*capstore.Token
			for i := range width {
				tok := &capstore.Token{
					Kind: token.Delegation, ID: tinycloud.Sum(fmt.Append(nil, seed, level, i)), Caps: someCaps(t, r, space, keys),
					Signer: signerAt(r, space, level, seed%3 == 0), Audience: tinycloud.Principal(fmt.Sprint("did:example:", level, "-", r.IntN(10)/9)),
				}
				for _, p := range last {
					if r.IntN(8) > 0 {
						tok.Proofs = append(tok.Proofs, p.ID)
					}
				}
				next, known[tok.ID] = append(next, tok), tok
			}
			order, last = append(order, next...), next
		}
		facts := judge.NewFacts(space)
		verdicts := map[tinycloud.Hash]bool{}
		for i, at := range r.Perm(len(order)) {
			if facts.Add(order[at], judge.Place{Spot: judge.Spot{Branch: 1, N: uint64(i)}}) {
				facts.Forget()
				clear(verdicts)
			}
			for _, tok := range order { // as far as they were not asked for
				if _, ok := verdicts[tok.ID]; !ok && facts.Delegation(tok.ID) != nil {
					verdicts[tok.ID] = facts.Delegated(tok) == nil
				}
			}
		}
		for _, tok := range order {
			want := oracletest.Chains{Known: known}.Covered(tok, tok.Caps)
			if got := verdicts[tok.ID]; got != want {
				t.Fatalf("seed %d: %v, by the letter %v", seed, got, want)
			}
			s := judge.NewSearch(func(id tinycloud.Hash) *capstore.Token { return known[id] })
			for _, c := range tok.Caps {
				s.Justified(tok, c)
			}
			switch {
			case want:
				granted++
			case s.Looks() < 0:
				beyond++
			default:
				void++
			}
		}
	}
	if granted < 100 || void < 100 || beyond < 20 {
		t.Errorf("%d granted, %d void, %d beyond what is looked at", granted, void, beyond)
	}
}

func signerAt(r *rand.Rand, space tinycloud.SpaceID, level int, rarely bool) tinycloud.Principal {
	switch {
	case level == 0 && (rarely && r.IntN(16) == 0 || !rarely && r.IntN(4) > 0):
		return space.Owner()
	case level == 0:
		return "did:example:mallory"
	}
	return tinycloud.Principal(fmt.Sprint("did:example:", level-1, "-0"))
}

func someCaps(t *testing.T, r *rand.Rand, space tinycloud.SpaceID, keys int) (out []capstore.Capability) {
	t.Helper()
	for n := range keys {
		key, ok := space.NewKey("kv", fmt.Sprint(n))
		if !ok {
			t.Fatal("no resource")
		}
		if r.IntN(6) > 0 {
			out = append(out, capstore.Capability{Resource: key, Ability: "tinycloud.kv/put"})
		}
	}
	return out
}
