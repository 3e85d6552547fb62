package judge

import (
	"slices"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// docs/replication.md, "Events": an invocation is valid in its window, widened by 120 s, at the time of some valid entry,
// with each delegation of a path in its window then.
func TestInvocationTimes(t *testing.T) {
	slack := Slack.Milliseconds()
	root := grant(owner, ann, "kv/put on kv", from(start), until(after(5000)))
	facts := known([]*token.Token{root})
	write := func(what ...aspect) *token.Token { return invoke(ann, "kv/put on kv/k", append(what, by(root))...) }
	brief := write(from(after(1000)), until(after(2000)))
	for _, tt := range []struct {
		name  string
		token *token.Token
		times []int64
		void  string
	}{
		{"no valid entry", write(), nil, "outside its window"},
		{"120 s before its window", brief, []int64{1000 - slack}, ""},
		{"earlier", brief, []int64{999 - slack}, "outside its window"},
		{"120 s after its window", brief, []int64{2000 + slack}, ""},
		{"later", brief, []int64{2001 + slack}, "outside its window"},
		{"one of two entries in time", brief, []int64{999 - slack, 1500}, ""},
		{"120 s before the window of its proof", write(), []int64{-slack}, ""},
		{"before that", write(), []int64{-slack - 1}, "is not covered"},
		{"120 s after the window of its proof", write(), []int64{5000 + slack}, ""},
		{"after that", write(), []int64{5001 + slack}, "is not covered"},
		{"one of two entries in the window of its proof", write(), []int64{-slack - 1, 0}, ""},
		{"one entry in each window alone", brief, []int64{999 - slack, 5001 + slack}, "outside its window"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var times []time.Time
			for _, ms := range tt.times {
				times = append(times, after(ms))
			}
			verdict(t, facts.Invoked(tt.token, put("k"), times, seenFrom(1, 1, 0)), tt.void)
		})
	}
}

// docs/replication.md, "Events": the token asks for each operation on each key. docs/protocol.md, "KV": a capability
// without a path is no operation.
func TestOperations(t *testing.T) {
	facts := known(nil)
	both := slices.Concat(put("a"), put("b"))
	for _, tt := range []struct {
		name, caps string
		ops        []Asked
		void       string
	}{
		{"a put", "kv/put on kv/a", put("a"), ""},
		{"a delete", "kv/del on kv/a", del("a"), ""},
		{"a delete by its other name", "kv/delete on kv/a", del("a"), ""},
		{"the empty key", "kv/put on kv/", put(""), ""},
		{"a put where a delete was asked for", "kv/del on kv/a", put("a"), "was not invoked"},
		{"a delete where a put was asked for", "kv/put on kv/a", del("a"), "was not invoked"},
		{"another key", "kv/put on kv/a", put("b"), "was not invoked"},
		{"a key below", "kv/put on kv/a", put("a/b"), "was not invoked"},
		{"all keys", "kv/put on kv", put("a"), "was not invoked"},
		{"the empty key where all were asked for", "kv/put on kv", put(""), "was not invoked"},
		{"another service", "kv/put on sql/a", put("a"), "was not invoked"},
		{"another Space", "kv/put on " + otherSpace.String() + "/kv/a", put("a"), "was not invoked"},
		{"two", "kv/put on kv/a; kv/put on kv/b", both, ""},
		{"two where one was asked for", "kv/put on kv/a", both, "was not invoked"},
		{"one where two were asked for", "kv/put on kv/a; kv/put on kv/b", put("a"), ""},
		{"none", "kv/put on kv/a", nil, ""},
		{"one that can't be read", "sql/write on sql/a", []Asked{{Service: "sql", Path: "a"}}, ""},
		{"one that can't be read, on another subject", "sql/write on sql/a", []Asked{{Service: "sql", Path: "b"}}, "was not invoked"},
		{"one that can't be read, of another service", "kv/put on kv/a", []Asked{{Service: "sql", Path: "a"}}, "was not invoked"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inv := invoke(owner, tt.caps)
			verdict(t, facts.Invoked(inv, tt.ops, []time.Time{start}, seenFrom(1, 1, 0)), tt.void)
		})
	}
	t.Run("each operation is covered", func(t *testing.T) {
		root := grant(owner, ann, "kv/put on kv/a")
		inv := invoke(ann, "kv/put on kv/a; kv/put on kv/b", by(root))
		facts := known([]*token.Token{root})
		verdict(t, facts.Invoked(inv, put("a"), []time.Time{start}, seenFrom(1, 1, 0)), "")
		verdict(t, facts.Invoked(inv, both, []time.Time{start}, seenFrom(1, 1, 0)), "kv/b / tinycloud.kv/put is not covered")
	})
}

// docs/replication.md, "Events": a write is void if and only if a revocation of a delegation in its chain stands in its
// causal past. Wherever the delegations stand, they count.
func TestRevokedInThePast(t *testing.T) {
	root := grant(owner, ann, "kv/put on kv")
	leaf := grant(ann, ben, "kv/put on kv", by(root))
	second := grant(owner, ben, "kv/put on kv")
	ofRoot, ofLeaf, ofSecond := revoke(owner, root), revoke(ann, leaf), revoke(ben, second)
	strangers := revoke(mallory, leaf)
	for _, tt := range []struct {
		name   string
		proofs []*token.Token
		here   Here
		there  []placed
		void   string
	}{
		{"none", []*token.Token{leaf}, seenFrom(1, 5, 0), nil, ""},
		{"in its past", []*token.Token{leaf}, seenFrom(1, 5, 0), []placed{{ofLeaf, in(1, 4, 0)}}, "revoked " + leaf.ID.EventID()},
		{"long ago", []*token.Token{leaf}, seenFrom(1, 5, 0), []placed{{ofLeaf, in(1, 0, 9)}}, "revoked"},
		{"after it", []*token.Token{leaf}, seenFrom(1, 5, 0), []placed{{ofLeaf, in(1, 6, 0)}}, ""},
		{"beside it", []*token.Token{leaf}, seenFrom(1, 5, 0), []placed{{ofLeaf, in(2, 0, 0)}}, ""},
		{"beside it and in its past", []*token.Token{leaf}, seenFrom(1, 5, 0), []placed{{ofLeaf, in(2, 0, 0)}, {ofLeaf, in(1, 4, 0)}}, "revoked"},
		{"before it in its epoch", []*token.Token{leaf}, seenFrom(1, 5, 3), []placed{{ofLeaf, in(1, 5, 2)}}, "revoked"},
		{"at its own place", []*token.Token{leaf}, seenFrom(1, 5, 3), []placed{{ofLeaf, in(1, 5, 3)}}, ""},
		{"after it in its epoch", []*token.Token{leaf}, seenFrom(1, 5, 3), []placed{{ofLeaf, in(1, 5, 4)}}, ""},
		{"of what its proof rests on", []*token.Token{leaf}, seenFrom(1, 5, 0), []placed{{ofRoot, in(1, 4, 0)}}, "revoked " + root.ID.EventID()},
		{"of what its proof rests on, beside it", []*token.Token{leaf}, seenFrom(1, 5, 0), []placed{{ofRoot, in(2, 4, 0)}}, ""},
		{"of something else", []*token.Token{leaf}, seenFrom(1, 5, 0), []placed{{ofSecond, in(1, 4, 0)}}, ""},
		{"of one of two proofs", []*token.Token{leaf, second}, seenFrom(1, 5, 0), []placed{{ofLeaf, in(1, 4, 0)}}, ""},
		{"of both", []*token.Token{leaf, second}, seenFrom(1, 5, 0), []placed{{ofRoot, in(1, 4, 0)}, {ofSecond, in(1, 4, 1)}}, "revoked"},
		{"by a stranger", []*token.Token{leaf}, seenFrom(1, 5, 0), []placed{{strangers, in(1, 4, 0)}}, ""},
		{"by a stranger and by who may", []*token.Token{leaf}, seenFrom(1, 5, 0), []placed{{strangers, in(1, 3, 0)}, {ofLeaf, in(1, 4, 0)}}, "revoked"},
		{"by one who may, after it, and one in its past", []*token.Token{leaf}, seenFrom(1, 5, 0), []placed{{ofLeaf, in(1, 6, 0)}, {revoke(ben, leaf), in(1, 4, 0)}}, "revoked"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			facts := known(nil, tt.there...)
			for i, d := range []*token.Token{root, leaf, second} {
				facts.Add(d, in(2, 100, i)) // beside all
			}
			inv := invoke(ben, "kv/put on kv/k", by(tt.proofs...))
			verdict(t, facts.Invoked(inv, put("k"), []time.Time{start}, tt.here), tt.void)
		})
	}
}

// docs/replication.md, "Entries": what a host gives an epoch before an event, and what not
// again, is what its past does not have.
func TestSeen(t *testing.T) {
	d := grant(owner, ann, "kv/put on kv")
	r := revoke(owner, d)
	facts := known(nil, placed{d, in(1, 3, 0)}, placed{r, in(2, 7, 0)})
	for _, tt := range []struct {
		name  string
		token *token.Token
		past  Clock
		want  bool
	}{
		{"nothing before", d, Clock{}, false},
		{"before its place", d, Clock{1: 2}, false},
		{"at its place", d, Clock{1: 3}, true},
		{"after it", d, Clock{1: 4}, true},
		{"in another log", d, Clock{2: 9}, false},
		{"a revocation before its place", r, Clock{1: 9, 2: 6}, false},
		{"a revocation at its place", r, Clock{2: 7}, true},
		{"not known", invoke(ann, ""), Clock{1: 9, 2: 9}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := facts.Seen(tt.token.ID, tt.past); got != tt.want {
				t.Errorf("seen: %v, want %v", got, tt.want)
			}
		})
	}
}
