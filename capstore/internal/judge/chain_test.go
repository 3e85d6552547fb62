package judge

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/recap"
)

// docs/protocol.md, "Abilities" and "Attenuation": what holding one capability gives. A host judges writes alone;
// the abilities of other services count for delegations.
func TestGrants(t *testing.T) {
	for _, tt := range []struct {
		held, wanted string
		want         bool
	}{
		{"kv/put on kv", "kv/put on kv", true},
		{"kv/put on kv", "kv/get on kv", false},
		{"kv/del on kv", "kv/delete on kv", true},
		{"kv/delete on kv", "kv/del on kv", true},
		{"kv/* on kv", "kv/put on kv", false},
		{"kv/put on kv", "kv/* on kv", false},
		{"sql/read on sql", "sql/select on sql", true},
		{"sql/select on sql", "sql/read on sql", true},
		{"duckdb/read on duckdb", "duckdb/select on duckdb", true},
		{"duckdb/select on duckdb", "duckdb/read on duckdb", true},
		{"sql/read on sql", "duckdb/read on sql", false},
		{"sql/admin on sql", "sql/schema on sql", true},
		{"sql/schema on sql", "sql/admin on sql", false},
		{"sql/admin on sql", "sql/write on sql", false},
		{"sql/* on sql", "sql/anything on sql", true},
		{"sql/* on sql", "duckdb/read on sql", false},
		{"duckdb/* on duckdb", "duckdb/anything on duckdb", true},
		{"duckdb/* on duckdb", "sql/read on duckdb", false},

		{"kv/put on kv", "kv/put on kv/a", true},
		{"kv/put on kv", "kv/put on kv/", true},
		{"kv/put on kv/a", "kv/put on kv/a", true},
		{"kv/put on kv/a", "kv/put on kv/a/b", true},
		{"kv/put on kv/a", "kv/put on kv/ab", false},
		{"kv/put on kv/a", "kv/put on kv/b", false},
		{"kv/put on kv/a", "kv/put on kv", false},
		{"kv/put on kv/a/", "kv/put on kv/a/b", true},
		{"kv/put on kv/a/", "kv/put on kv/a", false},
		{"kv/put on kv/", "kv/put on kv/", true},
		{"kv/put on kv/", "kv/put on kv//a", true},
		{"kv/put on kv", "kv/put on sql", false},
		{"kv/put on kv", "kv/put on " + otherSpace.String() + "/kv", false},
		{"kv/put on urn:x:a", "kv/put on urn:x:a", true},
		{"kv/put on urn:x:a", "kv/put on urn:x:a/b", false},

		{"kv/put on kv", `kv/put on kv if [{"x":1}]`, true},
		{`kv/put on kv if [{"x":1}]`, `kv/put on kv if [{"x":1}]`, true},
		{`kv/put on kv if [{"x":1}]`, `kv/put on kv if [{"x":2}]`, false},
		{`kv/put on kv if [{"x":1}]`, "kv/put on kv", false},
	} {
		t.Run(tt.held+" > "+tt.wanted, func(t *testing.T) {
			if got := Grants(can(tt.held)[0], can(tt.wanted)[0]); got != tt.want {
				t.Errorf("grants: %v, want %v", got, tt.want)
			}
		})
	}
}

// docs/replication.md, "Facts" and "Events": an operation is covered if a path of delegations leads from the signer of
// the invocation to the owner of the Space.
func TestChain(t *testing.T) {
	root := grant(owner, ann, "kv/put on kv", from(after(-1000)), until(after(1000)))
	within := []aspect{by(root), from(after(-1000)), until(after(1000))}
	narrow := grant(ann, ben, "kv/put on kv/a", within...)
	wide := grant(ben, cat, "kv/put on kv", append([]aspect{by(narrow)}, within[1:]...)...)
	passed := grant(ben, cat, "kv/put on kv/a/b", append([]aspect{by(narrow)}, within[1:]...)...)
	long := grant(ann, ben, "kv/put on kv", by(root), from(after(-1000)), until(after(1001)))
	endless := grant(ann, ben, "kv/put on kv", by(root), from(after(-1000)))
	early := grant(ann, ben, "kv/put on kv", by(root), from(after(-1001)), until(after(1000)))
	stolen := grant(mallory, ben, "kv/put on kv", within...)
	rootless := grant(ann, ben, "kv/put on kv", within[1:]...)
	reading := grant(ann, ben, "kv/get on kv", within...)
	limited := grant(owner, ann, `kv/put on kv if [{"x":1}]`)
	apart := grant(ann, ben, "kv/put on "+otherSpace.String()+"/kv", within...)
	loop := grant(ann, ann, "kv/put on kv")
	loop.Proofs = []tinycloud.Hash{loop.ID}
	facts := known([]*token.Token{root, narrow, wide, passed, long, endless, early, stolen, rootless, reading, limited, apart, loop})
	unknown := grant(owner, ben, "kv/put on kv")
	for _, tt := range []struct {
		name   string
		signer tinycloud.Principal
		key    string
		proofs []*token.Token
		void   string // "": not
	}{
		{"the owner", owner, "k", nil, ""},
		{"the owner with what is not for him", owner, "k", []*token.Token{root}, ""},
		{"by a delegation of the owner", ann, "k", []*token.Token{root}, ""},
		{"by one that rests on it", ben, "a", []*token.Token{narrow}, ""},
		{"below its path", ben, "a/b", []*token.Token{narrow}, ""},
		{"beside its path", ben, "ab", []*token.Token{narrow}, "is not covered"},
		{"outside its path", ben, "b", []*token.Token{narrow}, "is not covered"},
		{"by a third one", cat, "a/b/c", []*token.Token{passed}, ""},
		{"without a proof", ann, "k", nil, "is not covered"},
		{"by a proof for somebody else", cat, "a", []*token.Token{narrow}, "is not covered"},
		{"by a proof that is not known", ben, "k", []*token.Token{unknown}, "missing " + unknown.ID.EventID()},
		{"by one that is not known and one that is", ben, "a", []*token.Token{unknown, narrow}, ""},
		{"by one that does not fit and one that does", ben, "a", []*token.Token{reading, narrow}, ""},
		{"by the rest of the chain without the first link", ann, "a", []*token.Token{narrow}, "is not covered"},
		{"by more than its issuer had", cat, "b", []*token.Token{wide}, "is not covered"},
		{"by what its issuer had of it", cat, "a", []*token.Token{wide}, "is not covered"}, // it asks more of its proof
		{"by one that outlives its proof", ben, "k", []*token.Token{long}, "is not covered"},
		{"by one without an end on a proof with one", ben, "k", []*token.Token{endless}, "is not covered"},
		{"by one that begins before its proof", ben, "k", []*token.Token{early}, "is not covered"},
		{"by one of a thief", ben, "k", []*token.Token{stolen}, "is not covered"},
		{"by one without a proof", ben, "k", []*token.Token{rootless}, "is not covered"},
		{"by one of another ability", ben, "k", []*token.Token{reading}, "is not covered"},
		{"without the caveats of its proof", ann, "k", []*token.Token{limited}, "is not covered"},
		{"by one of another Space", ben, "k", []*token.Token{apart}, "is not covered"},
		{"by one that rests on itself", ann, "k", []*token.Token{loop}, "is not covered"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inv := invoke(tt.signer, "kv/put on kv/"+tt.key, by(tt.proofs...))
			verdict(t, facts.Invoked(inv, put(tt.key), []time.Time{start}, seenFrom(1, 1, 0)), tt.void)
		})
	}
}

// docs/replication.md, "Facts": at most 1,024 delegations are looked at for a token.
func TestChainBound(t *testing.T) {
	signer, proofs, all := owner, []aspect(nil), []*token.Token{}
	for i := range MaxLooks + 1 {
		to := tinycloud.Principal(fmt.Sprint("did:example:", i))
		d := grant(signer, to, "kv/put on kv", proofs...)
		signer, proofs, all = to, []aspect{by(d)}, append(all, d)
	}
	facts := known(all)
	for _, tt := range []struct {
		length int
		void   string
	}{{1, ""}, {MaxLooks - 1, ""}, {MaxLooks, ""}, {MaxLooks + 1, "looked at"}} {
		leaf := all[tt.length-1]
		inv := invoke(leaf.Audience, "kv/put on kv/k", by(leaf))
		t.Run(fmt.Sprint("an invocation on ", tt.length), func(t *testing.T) {
			verdict(t, facts.Invoked(inv, put("k"), []time.Time{start}, seenFrom(1, 1, 0)), tt.void)
		})
		t.Run(fmt.Sprint("a delegation on ", tt.length), func(t *testing.T) {
			verdict(t, facts.Delegated(grant(leaf.Audience, ann, "kv/put on kv/k", by(leaf))), tt.void)
		})
	}
	junk := make([]*token.Token, MaxLooks)
	for i := range junk { // not known
		junk[i] = grant(owner, ann, fmt.Sprint("kv/put on kv/", i))
	}
	for _, n := range []int{MaxLooks - 1, MaxLooks} {
		t.Run(fmt.Sprint("behind others: ", n), func(t *testing.T) {
			inv := invoke(all[0].Audience, "kv/put on kv/k", by(append(junk[:n:n], all[0])...))
			void := ""
			if n == MaxLooks {
				void = "looked at"
			}
			verdict(t, facts.Invoked(inv, put("k"), []time.Time{start}, seenFrom(1, 1, 0)), void)
		})
	}
}

// docs/replication.md, "Facts": a delegation grants something in a Space if all its capabilities there are covered.
func TestDelegated(t *testing.T) {
	root := grant(owner, ann, "kv/put on kv")
	facts := known([]*token.Token{root})
	elsewhere := "kv/put on " + otherSpace.String() + "/kv"
	unknown := grant(owner, ben, "kv/put on kv")
	for _, tt := range []struct {
		name  string
		token *token.Token
		void  string
	}{
		{"by the owner", root, ""},
		{"by who holds it", grant(ann, ben, "kv/put on kv/a", by(root)), ""},
		{"by who does not", grant(ben, cat, "kv/put on kv/a", by(root)), "is not covered"},
		{"without capabilities", grant(ben, cat, ""), ""},
		{"of two one that is not covered", grant(ann, ben, "kv/put on kv/a; kv/get on kv/a", by(root)), "kv/get is not covered"},
		{"of another Space by nobody", grant(ben, cat, elsewhere), ""},
		{"of two Spaces", grant(ann, ben, "kv/put on kv; "+elsewhere, by(root)), ""},
		{"by a proof that is not known", grant(ben, cat, "kv/put on kv", by(unknown)), "missing " + unknown.ID.EventID()},
	} {
		t.Run(tt.name, func(t *testing.T) { verdict(t, facts.Delegated(tt.token), tt.void) })
	}
}

// many are capabilities on so many keys.
func many(n int) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = fmt.Sprint("kv/put on kv/", i)
	}
	return strings.Join(parts, "; ")
}

// web makes levels of delegations that all cite all of the level before, and the principal that the last are to.
// Nobody had any of it to give.
func web(levels, width, caps int) (all, last []*token.Token, to tinycloud.Principal) {
	signer := mallory
	for level := range levels {
		to = tinycloud.Principal(fmt.Sprint("did:example:level", level))
		var next []*token.Token
		for i := range width {
			next = append(next, grant(signer, to, many(caps), by(last...), issued(after(int64(i)))))
		}
		all, last, signer = append(all, next...), next, to
	}
	return all, last, to
}

// docs/replication.md, "Facts": what is looked at for a token has one bound, whatever its capabilities and proofs are.
func TestTokenBound(t *testing.T) {
	all, last, signer := web(5, 32, 16)
	looked := 0
	known := map[tinycloud.Hash]*token.Token{}
	for _, d := range all {
		known[d.ID] = d
	}
	find := func(id tinycloud.Hash) *token.Token { looked++; return known[id] }
	leaf := grant(signer, ann, many(16), by(last...))
	for i, c := range leaf.Caps {
		s := NewSearch(find)
		looked = 0
		if s.Justified(leaf, c) || looked != MaxLooks {
			t.Fatalf("capability %d: %d looks", i, looked)
		}
	}
	s := NewSearch(find)
	looked = 0
	for _, c := range leaf.Caps {
		if s.Justified(leaf, c) {
			t.Fatal("what nobody had is held")
		}
	}
	if looked != MaxLooks || s.Looks() >= 0 {
		t.Errorf("%d looks for all, %d left", looked, s.Looks())
	}

	// As many keys as a token may name, each of which has been passed on three times.
	signer, proofs := owner, []aspect(nil)
	facts := NewFacts(space)
	for i := range 3 {
		to := tinycloud.Principal(fmt.Sprint("did:example:", i))
		d := grant(signer, to, many(recap.MaxCapabilities), proofs...)
		facts.Add(d, in(1, 0, i))
		signer, proofs = to, []aspect{by(d)}
	}
	inv := invoke(signer, many(recap.MaxCapabilities), proofs...)
	var ops []Asked
	for i := range recap.MaxCapabilities {
		ops = append(ops, put(fmt.Sprint(i))...)
	}
	verdict(t, facts.Invoked(inv, ops, []time.Time{start}, seenFrom(1, 1, 0)), "")
}

// What a delegation rests on may come after it and use up what is looked at: the verdict does not depend on the order.
func TestBoundInAnyOrder(t *testing.T) {
	all, last, _ := web(5, 32, 16)
	signer := last[0].Audience
	root := grant(owner, signer, "kv/put on kv")
	leaf := grant(signer, ann, "kv/put on kv/0", by(append([]*token.Token{last[0]}, root)...))
	before, later := NewFacts(space), NewFacts(space)
	for i, d := range append([]*token.Token{root}, all...) {
		before.Add(d, in(1, 0, i))
	}
	verdict(t, before.Delegated(leaf), "looked at")

	later.Add(root, in(1, 0, 0))
	verdict(t, later.Delegated(leaf), "")
	again := false
	for i, d := range slices.Backward(all) {
		if later.Add(d, in(1, 0, 1+i)) {
			again = true
			later.Forget()
			_ = later.Delegated(leaf)
		}
	}
	if !again {
		t.Error("a verdict that may change is not made again")
	}
	verdict(t, later.Delegated(leaf), "looked at")
}
