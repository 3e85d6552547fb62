package judge

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// beside is another Space of an owner.
func beside(s tinycloud.SpaceID) string {
	id := s.String()
	return id[:strings.LastIndex(id, ":")+1] + "beside"
}

// docs/protocol.md, "Revocations": who may revoke a delegation.
func TestMayRevoke(t *testing.T) {
	first := grant(owner, ann, "kv/put on kv")
	target := grant(ann, ben, "kv/put on kv", by(first))
	foreign := grant(ann, ben, "kv/put on "+otherSpace.String()+"/kv")
	both := grant(ann, ben, "kv/put on kv; kv/put on "+otherSpace.String()+"/kv")
	other := otherSpace.Owner()
	right := grant(owner, cat, "delegation/revoke on delegation")
	rightBelow := grant(owner, cat, "delegation/revoke on delegation/x")
	rightEmpty := grant(owner, cat, "delegation/revoke on delegation/")
	rightElsewhere := grant(owner, cat, "delegation/revoke on kv")
	rightQuery := grant(owner, cat, "delegation/revoke on delegation?x=y")
	rightFragment := grant(owner, cat, "delegation/revoke on delegation#x")
	rightIf := grant(owner, cat, "delegation/revoke on delegation", func(t *token.Token) { t.Caps[0].Caveats = []byte(`[{"until":"noon"}]`) })
	rightBeside := grant(owner, cat, "delegation/revoke on "+beside(space)+"/delegation")
	otherRight := grant(owner, cat, "delegation/status on delegation")
	othersRight := grant(other, cat, "delegation/revoke on "+otherSpace.String()+"/delegation")
	usurped := grant(mallory, cat, "delegation/revoke on delegation")
	delegators := grant(ann, cat, "delegation/revoke on delegation")
	passed := grant(cat, mallory, "delegation/revoke on delegation", by(right))
	toOne := grant(ann, cat, "delegation/revoke on urn:cid:"+target.ID.EventID())
	unknown := grant(owner, cat, "delegation/revoke on delegation", issued(start))
	all := []*token.Token{
		first, target, foreign, both, right, rightBelow, rightEmpty, rightQuery, rightFragment, rightIf, rightBeside, rightElsewhere, otherRight, othersRight, usurped, delegators, passed, toOne,
	}
	facts := known(all)
	for _, tt := range []struct {
		name   string
		signer tinycloud.Principal
		target *token.Token
		proofs []*token.Token
		want   bool
	}{
		{"the delegator", ann, target, nil, true},
		{"the delegatee", ben, target, nil, true},
		{"the owner of the Space", owner, target, nil, true},
		{"the owner of another Space", other, target, nil, false},
		{"the owner of a Space it does not name", owner, foreign, nil, false},
		{"the owner of one of its Spaces", other, both, nil, true},
		{"a stranger", mallory, target, nil, false},
		{"who holds a right without naming it", cat, target, nil, false},
		{"who holds the owner's right", cat, target, []*token.Token{right}, true},
		{"who holds it with the empty path", cat, target, []*token.Token{rightEmpty}, false},
		{"who holds it with a query", cat, target, []*token.Token{rightQuery}, false},
		{"who holds it with a fragment", cat, target, []*token.Token{rightFragment}, false},
		{"who holds it with caveats", cat, target, []*token.Token{rightIf}, false},
		{"who holds it on another Space of the owner", cat, target, []*token.Token{rightBeside}, false},
		{"who holds it on a path", cat, target, []*token.Token{rightBelow}, false},
		{"who holds it on another service", cat, target, []*token.Token{rightElsewhere}, false},
		{"who holds another ability", cat, target, []*token.Token{otherRight}, false},
		{"who holds the right of another owner", cat, target, []*token.Token{othersRight}, false},
		{"of a delegation that names that owner's Space", cat, both, []*token.Token{othersRight}, true},
		{"who names a right of somebody else", mallory, target, []*token.Token{right}, false},
		{"who holds a right that was not its signer's", cat, target, []*token.Token{usurped}, false},
		{"who holds the right of the delegator, who owns no Space", cat, target, []*token.Token{delegators}, false},
		{"who was passed the right", mallory, target, []*token.Token{passed}, false},
		{"who holds a right to it alone, which nobody owns", cat, target, []*token.Token{toOne}, false},
		{"with a proof that is not known", cat, target, []*token.Token{unknown}, false},
		{"with two proofs", cat, target, []*token.Token{right, rightEmpty}, false},
		{"the delegator with a proof that is not for him", ann, target, []*token.Token{right}, false},
		{"the owner with two proofs", owner, target, []*token.Token{right, rightEmpty}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := revoke(tt.signer, tt.target, by(tt.proofs...))
			if got := MayRevoke(r, tt.target, facts.Delegation); got != tt.want {
				t.Errorf("may revoke: %v, want %v", got, tt.want)
			}
			facts := known(append(slices.Clone(all), r))
			if by, got := facts.Revoked(tt.target.ID, seenFrom(1, 1, 0)); got != tt.want || got && by != r.ID {
				t.Errorf("revoked: %v, want %v", got, tt.want)
			}
		})
	}
}

// docs/replication.md, "Removed hosts": the revocation of a host delegation counts if it is signed by the owner, by an issuer
// above it in that host's chain, or by the host itself.
func TestWhoRemovesAHost(t *testing.T) {
	boss := hostBy(owner, ann)
	manager := hostBy(ann, ben, by(boss))
	x := hostBy(ben, hostX, by(manager))
	y := hostBy(owner, hostY)
	right := grant(owner, cat, "delegation/revoke on delegation")
	unknown := hostBy(owner, cat)
	fromUnknown := hostBy(cat, hostX, by(unknown))
	twoSpaces := grant(owner, hostX, "space/host on space; space/host on "+otherSpace.String()+"/space")
	elsewhere := grant(owner, cat, "kv/put on kv")
	withOther := grant(ben, hostX, "space/host on space; kv/put on kv", by(manager, elsewhere))
	facts := known([]*token.Token{boss, manager, x, y, right, fromUnknown, twoSpaces, elsewhere, withOther})
	for _, tt := range []struct {
		name   string
		signer tinycloud.Principal
		target *token.Token
		proofs []*token.Token
		want   bool
	}{
		{"the owner", owner, x, nil, true},
		{"the host", hostX, x, nil, true},
		{"the host in its early spelling", earlySpelling(keyX), x, nil, true},
		{"who let it in", ben, x, nil, true},
		{"who let that one in", ann, x, nil, true},
		{"whom nobody let in", mallory, x, nil, false},
		{"another host", hostY, x, nil, false},
		{"who let in others", ann, y, nil, false},
		{"who holds a right to revoke", cat, x, []*token.Token{right}, false},
		{"the owner, whatever proofs he names", owner, x, []*token.Token{right, y}, true},
		{"who let it in, whose own right is not known", cat, fromUnknown, nil, false},
		{"the owner of one of two Spaces", owner, twoSpaces, nil, false},
		{"the host in two Spaces", hostX, twoSpaces, nil, true},
		{"an issuer above its other capabilities", cat, withOther, nil, false},
		{"the delegatee who is no host", ben, manager, nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := revoke(tt.signer, tt.target, by(tt.proofs...))
			if got := MayRevoke(r, tt.target, facts.Delegation); got != tt.want {
				t.Errorf("may remove: %v, want %v", got, tt.want)
			}
		})
	}
}

// docs/replication.md, "Judging anew": an arrival changes earlier verdicts only when it brings what a verdict waited for. It
// does not matter in which order facts come.
func TestLateFacts(t *testing.T) {
	root := grant(owner, ann, "kv/put on kv")
	leaf := grant(ann, ben, "kv/put on kv", by(root))
	right := grant(owner, cat, "delegation/revoke on delegation")
	boss := hostBy(owner, ann)
	manager := hostBy(ann, ben, by(boss))
	x := hostBy(ben, hostX, by(manager))
	mixed := grant(ben, cat, "space/host on space; kv/put on kv", by(manager, leaf))
	writes := func(f *Facts) error {
		return f.Invoked(invoke(ben, "kv/put on kv/k", by(leaf)), put("k"), []time.Time{start}, seenFrom(1, 9, 0))
	}
	catWrites := func(f *Facts) error {
		return f.Invoked(invoke(cat, "kv/put on kv/k", by(mixed)), put("k"), []time.Time{start}, seenFrom(1, 9, 0))
	}
	hosts := func(f *Facts) error { _, err := f.Host(keyX, start, seenFrom(1, 9, 0)); return err }
	imports := func(f *Facts) error { return f.Importer(keyX, start, nil) }
	removes := func(f *Facts) error { f.FindRemovals(); return nil }
	revokes := func(f *Facts) error { return f.Delegated(leaf) }
	for _, tt := range []struct {
		name    string
		before  []*token.Token
		verdict func(*Facts) error
		was     string // before the late fact came
		late    *token.Token
		again   bool
		is      string // afterwards, and when the late one was the first
	}{
		{"the proof of an invocation", []*token.Token{root}, writes, "missing", leaf, true, ""},
		{"what that rests on", []*token.Token{leaf}, writes, "missing", root, true, ""},
		{"the proof of a delegation", nil, revokes, "missing", root, true, ""},
		{"a delegation that nothing rests on", []*token.Token{root, leaf}, writes, "", grant(owner, cat, "kv/put on kv"), false, ""},
		{"a delegation again", []*token.Token{root, leaf}, writes, "", leaf, false, ""},
		{"what is no fact", []*token.Token{root}, writes, "missing", invoke(ann, ""), false, "missing"},

		// What a revocation ends comes after it: its own arrival changes nothing before.
		{"a revocation that nothing followed", []*token.Token{root, leaf}, func(*Facts) error { return nil }, "", revoke(owner, leaf), false, ""},
		{"the target of a revocation", []*token.Token{root, revoke(owner, leaf)}, writes, "missing", leaf, true, "revoked"},
		{"the target, to which nothing was judged", []*token.Token{root, revoke(owner, leaf)}, func(*Facts) error { return nil }, "", leaf, true, ""},
		{"the target of a stranger's", []*token.Token{root, revoke(mallory, leaf)}, func(*Facts) error { return nil }, "", leaf, false, ""},
		{"the right to a revocation", []*token.Token{root, leaf, revoke(cat, leaf, by(right))}, writes, "", right, true, "revoked"},
		{"a right that two proofs do not give", []*token.Token{root, leaf, revoke(cat, leaf, by(right, root))}, writes, "", right, false, ""},
		{"a link of a host's chain by which an issuer may revoke", []*token.Token{root, leaf, boss, mixed, revoke(ann, mixed)}, catWrites, "", manager, true, "revoked"},

		{"the delegation of a host's manager", []*token.Token{boss, x}, hosts, "its issuer may not", manager, true, ""},
		{"the delegation of an importer", nil, imports, "no host delegation", hostBy(owner, hostX), true, ""},
		{"the delegation of an importer's manager", []*token.Token{boss, x}, imports, "no host delegation", manager, true, ""},
		{"what a host rests on beside a removed one", []*token.Token{boss, x, revoke(owner, hostBy(owner, hostX)), hostBy(owner, hostX)}, removes, "", manager, true, ""},
		{"that of another host", nil, imports, "no host delegation", hostBy(owner, hostY), false, "no host delegation"},
		{"a host delegation for which no importer waited", nil, hosts, "no host delegation", hostBy(owner, hostX), false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			facts := known(tt.before)
			verdict(t, tt.verdict(facts), tt.was)
			if got := facts.Add(tt.late, in(1, 1, 0)); got != tt.again {
				t.Errorf("judged again: %v, want %v", got, tt.again)
			}
			verdict(t, tt.verdict(facts), tt.is)
			verdict(t, tt.verdict(known([]*token.Token{tt.late}, stand(tt.before)...)), tt.is)
		})
	}
	t.Run("what an earlier judgement waited for", func(t *testing.T) {
		facts := known([]*token.Token{root})
		verdict(t, writes(facts), "missing")
		verdict(t, imports(facts), "no host delegation")
		facts.Forget()
		if facts.Add(leaf, in(1, 1, 0)) || facts.Add(hostBy(owner, hostX), in(1, 1, 1)) {
			t.Error("judged again for a verdict that was forgotten")
		}
	})
}

// docs/protocol.md, "Revocations": what ends at once on a host that hears of it. Each is told once.
func TestEnded(t *testing.T) {
	root := grant(owner, ann, "kv/put on kv")
	leaf := grant(ann, ben, "kv/put on kv", by(root))
	right := grant(owner, cat, "delegation/revoke on delegation")
	boss := hostBy(owner, ann)
	x := hostBy(ann, hostX, by(boss))
	for _, tt := range []struct {
		name  string
		facts []*token.Token
		want  []string
	}{
		{"nothing", []*token.Token{root, leaf, boss, x}, []string{}},
		{"a target", []*token.Token{root, leaf, revoke(owner, leaf)}, []string{"leaf"}},
		{"not what rests on it, which is found by it", []*token.Token{root, leaf, revoke(owner, root)}, []string{"root"}},
		{"a target that comes later", []*token.Token{root, revoke(owner, leaf), leaf}, []string{"leaf"}},
		{"a right that comes later", []*token.Token{root, leaf, revoke(cat, leaf, by(right)), right}, []string{"leaf"}},
		{"not by a stranger", []*token.Token{root, leaf, revoke(mallory, leaf)}, []string{}},
		{"not what is not known", []*token.Token{root, revoke(owner, leaf)}, []string{}},
		{"by two", []*token.Token{root, leaf, revoke(owner, leaf), revoke(ben, leaf)}, []string{"leaf"}},
		{"two by two", []*token.Token{root, leaf, revoke(owner, leaf), revoke(owner, root)}, []string{"leaf", "root"}},
		{"a host that rests on it", []*token.Token{boss, x, revoke(owner, boss)}, []string{"boss", "x"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			facts := NewFacts(space)
			var ends []End
			for i, f := range tt.facts {
				facts.Add(f, in(1, uint64(i), 0))
				facts.FindRemovals()
				ends = append(ends, facts.Ended()...)
			}
			got := named(map[string]*token.Token{"root": root, "leaf": leaf, "boss": boss, "x": x}, func(t *token.Token) bool {
				n := 0
				for _, e := range ends {
					if e.Delegation == t.ID && e.Revocation.Kind == token.Revocation {
						n++
					}
				}
				return n == 1
			})
			if fmt.Sprint(got) != fmt.Sprint(tt.want) || len(ends) != len(got) {
				t.Errorf("ended: %v, %d in all, want %v", got, len(ends), tt.want)
			}
			if rest := facts.Ended(); len(rest) > 0 {
				t.Errorf("told again: %v", rest)
			}
		})
	}
}

// BenchmarkRevocations shows that revocations and delegations cost the same however many there are.
func BenchmarkRevocations(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		targets, revocations := make([]*token.Token, n), make([]*token.Token, n)
		for i := range n {
			targets[i] = grant(owner, tinycloud.Principal(fmt.Sprint("did:example:", i)), "kv/put on kv")
			revocations[i] = revoke(owner, targets[i])
		}
		for _, order := range []struct {
			name          string
			first, second []*token.Token
		}{{"delegations first", targets, revocations}, {"revocations first", revocations, targets}} {
			b.Run(fmt.Sprintf("%s/n=%d", order.name, n), func(b *testing.B) {
				for b.Loop() {
					f, ended := NewFacts(space), 0
					for i, t := range append(order.first[:n:n], order.second...) {
						f.Add(t, in(1, uint64(i), 0))
						ended += len(f.Ended())
					}
					if ended != n {
						b.Fatalf("%d ended", ended)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(2*n), "ns/token")
			})
		}
	}
}
